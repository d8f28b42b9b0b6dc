/** Cached views of blocks always refer to the current memory. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { BlockViews } from '../../testkit/block-views.ts'

const test = suite('views')

test('a view is cached by offset and length', () => {
  const memory = new Uint8Array(2048 * 4)
  const views = new BlockViews()
  const first = views.at(memory, 2060, 1308)
  assert.is(views.at(memory, 2060, 1308), first)
  memory[2060] = 7
  assert.is(first[0], 7)
  const shorter = views.at(memory, 2060, 100)
  assert.is(shorter.length, 100)
  const beside = views.at(memory, 2061, 100)
  assert.is(beside.byteOffset, 2061)
  assert.is(views.at(memory, 2060, 1308).length, 1308)
})

test('after the memory has grown no view of the old buffer is returned', () => {
  const memory = new WebAssembly.Memory({ initial: 1 })
  const views = new BlockViews()
  const old = views.at(new Uint8Array(memory.buffer), 4096, 10)
  memory.grow(1)
  const fresh = new Uint8Array(memory.buffer)
  fresh[4096] = 9
  assert.is(old.length, 0)
  assert.is(views.at(fresh, 4096, 10)[0], 9)
})

test('each memory has its own views', () => {
  const views = new BlockViews()
  const [one, other] = [new Uint8Array(4096), new Uint8Array(4096)]
  assert.is(views.at(one, 0, 10).buffer, one.buffer)
  assert.is(views.at(other, 0, 10).buffer, other.buffer)
})

test('offsets that share a slot of the cache are distinguished', () => {
  const memory = new Uint8Array(4097 * 2048)
  const views = new BlockViews()
  const far = 4096 * 2048
  assert.is(views.at(memory, 0, 10).byteOffset, 0)
  assert.is(views.at(memory, far, 10).byteOffset, far)
  assert.is(views.at(memory, 0, 10).byteOffset, 0)
})

test.run()
