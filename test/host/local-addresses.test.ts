/** The numbers of a wildcard socket's local addresses. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { LOCAL_WORDS, LocalAddresses } from '../../host/linux/local-addresses.ts'

const test = suite('local addresses')

/** An entry: words of the IP as in memory, interface of the arrival. */
const entry = (ip: readonly number[], index = 7): Uint32Array =>
  Uint32Array.from([...ip, 0, 0, 0].slice(0, 4).concat(index))

test('each address has one number, whatever the interface; a link-local one has one for each interface', () => {
  const locals = new LocalAddresses(6)
  const global = [0x000080fd, 0, 0, 1]
  const linkLocal = [0x000080fe, 0, 0, 1]
  const number = locals.numberOf(entry(global, 7))
  assert.ok(number > 0)
  assert.is(locals.numberOf(entry(global, 8)), number)
  const [seven, eight] = [locals.numberOf(entry(linkLocal, 7)), locals.numberOf(entry(linkLocal, 8))]
  assert.is(new Set([number, seven, eight, 0]).size, 4)
  assert.is(locals.words[eight * LOCAL_WORDS + LOCAL_WORDS - 1], 8)
  assert.is(locals.words[number * LOCAL_WORDS + LOCAL_WORDS - 1], 0)
  assert.is(locals.numberOf(entry([0x000002ff, 0, 0, 1])), 0, 'multicast')
})

test('a number keeps its address, however many others are asked; beyond 255 the system selects', () => {
  const locals = new LocalAddresses(4)
  const numbers = Array.from({ length: 255 }, (_, i) => locals.numberOf(entry([i + 1])))
  assert.equal(new Set(numbers), new Set(Array.from({ length: 255 }, (_, i) => i + 1)))
  for (let ip = 256; ip <= 1000; ip++) assert.is(locals.numberOf(entry([ip])), 0)
  assert.equal(
    numbers.map((number) => locals.words[number * LOCAL_WORDS]),
    Array.from({ length: 255 }, (_, i) => i + 1),
  )
  const [first = 0] = numbers
  assert.is(locals.numberOf(entry([1])), first)
  // an address that vanished makes room
  locals.forget(first)
  assert.is(locals.numberOf(entry([1000])), first)
})

test('an address that vanished or was announced is not used as a source', () => {
  const locals = new LocalAddresses(4)
  const number = locals.numberOf(entry([1]))
  assert.ok(locals.isKnown(number))
  assert.not.ok(locals.isKnown(0))
  locals.forget(number)
  assert.not.ok(locals.isKnown(number))
  const again = locals.numberOf(entry([1]))
  assert.ok(locals.isKnown(again))
  locals.leaveFree({ family: 4, address: '1.0.0.0', port: 9, scope: 0 })
  assert.is(locals.numberOf(entry([1])), 0)
  assert.not.ok(locals.isKnown(again))
})

test.run()
