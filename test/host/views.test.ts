/** Cached views reflect the memory, also when they share a table slot or the memory grows. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { StartViews } from '../../host/view-cache.ts'

const test = suite('views')
const LENGTH = 1500

test('the same offset yields the same view, other offsets yield their own', () => {
  const views = new StartViews(LENGTH)
  const memory = new Uint8Array(1 << 20)
  const first = views.at(memory, 4096)
  assert.is(views.at(memory, 4096), first)
  const second = views.at(memory, 4097)
  assert.is.not(second, first)
  assert.equal([second.byteOffset, second.length], [4097, LENGTH])
  memory[4097] = 7
  assert.is(second[0], 7)
  assert.is(first[1], 7)
})

test('more offsets than table slots still yield correct views', () => {
  const views = new StartViews(LENGTH)
  const memory = new Uint8Array(16 << 20)
  for (let round = 0; round < 2; round++) {
    for (let start = 0; start + LENGTH <= memory.length; start += 1984) {
      const view = views.at(memory, start)
      assert.is(view.byteOffset, start)
      assert.is(view.length, LENGTH)
    }
  }
})

test('a view at the end of the memory is cut to the available bytes', () => {
  const views = new StartViews(LENGTH)
  const memory = new Uint8Array(65536)
  assert.is(views.at(memory, 65536 - 100).length, 100)
})

test('a grown memory gets new views', () => {
  const views = new StartViews(LENGTH)
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 4 })
  const before = views.at(new Uint8Array(memory.buffer), 2048)
  memory.grow(1)
  const u8 = new Uint8Array(memory.buffer)
  const after = views.at(u8, 2048)
  assert.is(before.length, 0, 'detached')
  assert.is(after.length, LENGTH)
  u8[2048] = 9
  assert.is(after[0], 9)
})

test.run()
