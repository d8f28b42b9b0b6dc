/** The secret shared by the engines of one endpoint, and the clock jump that renews it. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ClockJump } from '../../host/engine/clock-jump.ts'
import { EndpointSecret, SECRET_BYTES, SLOTS } from '../../host/engine/secret.ts'

const test = suite('secret of an endpoint')

const keyOf = (block: Uint8Array | undefined): string => String(block?.slice(0, 16))
const baseOf = (block: Uint8Array | undefined): string => String(block?.slice(16, 28))
const slotOf = (block: Uint8Array | undefined): number => (block?.[28] ?? 0) | ((block?.[29] ?? 0) << 8)

test('engines of one endpoint share key and base and have a slot each; another endpoint has its own secret', () => {
  const secret = new EndpointSecret()
  const blocks = Array.from({ length: 300 }, () => secret.next())
  assert.ok(blocks.every((list) => list.length === 1 && list[0]?.length === SECRET_BYTES))
  const first = blocks[0]?.[0]
  assert.ok(blocks.every(([block]) => keyOf(block) === keyOf(first) && baseOf(block) === baseOf(first)))
  assert.equal(
    blocks.map(([block]) => slotOf(block)),
    blocks.map((_, i) => i),
  )
  assert.equal(first?.slice(30), new Uint8Array(2))
  const [other] = new EndpointSecret().next()
  assert.is.not(keyOf(other), keyOf(first))
  assert.is.not(baseOf(other), baseOf(first))
})

test('no slot is used twice by any worker, even when the slots of a base are exhausted', () => {
  const secret = new EndpointSecret()
  const used = new Set<string>()
  const take = (block: Uint8Array | undefined): void => {
    const name = `${baseOf(block)} ${slotOf(block)}`
    assert.not.ok(used.has(name), name)
    used.add(name)
  }
  const COUNT = 1000
  for (let start = 0; start < 2 * SLOTS; start += COUNT) {
    const part = new EndpointSecret(JSON.parse(JSON.stringify(secret.part(COUNT))))
    for (let i = 0; i < COUNT; i++) take(part.next().at(-1))
  }
  const last = new EndpointSecret(secret.part(2))
  for (let i = 0; i < 5; i++) take(last.next().at(-1))
})

test('a worker has the key and the bases of the first process', () => {
  const secret = new EndpointSecret()
  const [first] = secret.next()
  const renewed = secret.renew()
  assert.is.not(baseOf(renewed), baseOf(first))
  const blocks = new EndpointSecret(secret.part(10)).next()
  assert.equal(blocks.map(baseOf), [first, renewed].map(baseOf))
  assert.ok(blocks.every((block) => keyOf(block) === keyOf(first)))
  assert.is(slotOf(renewed), 0)
  assert.is(slotOf(blocks[1]), 1)
})

test('only the most recent bases are kept, as many as an engine remembers', () => {
  const secret = new EndpointSecret()
  const drawn = Array.from({ length: 20 }, () => baseOf(secret.renew()))
  assert.equal(secret.next().map(baseOf), drawn.slice(-8))
})

/** Two clocks set by the test. */
function clocks() {
  const time = { monotonic: 5000, wall: 1_700_000_000_000 }
  const clock = new ClockJump({ monotonic: () => time.monotonic, wall: () => time.wall })
  const pass = (ms: number): void => {
    time.monotonic += ms
    time.wall += ms
  }
  return { time, clock, pass }
}

test('a jump of the wall clock in either direction is detected once', () => {
  for (const jump of [600, -600, 3_600_000, -86_400_000]) {
    const { time, clock, pass } = clocks()
    pass(2000)
    assert.is(clock.look(), 0)
    time.wall += jump
    pass(1000)
    assert.is(clock.look(), jump)
    for (let i = 0; i < 10; i++) {
      pass(1000)
      assert.is(clock.look(), 0)
    }
  }
})

test('slewed, late or long idle clocks are not a jump', () => {
  const { time, clock, pass } = clocks()
  for (let i = 0; i < 1000; i++) {
    pass(1000)
    time.wall += (i % 3) - 1
    assert.is(clock.look(), 0)
  }
  pass(30 * 86_400_000)
  assert.is(clock.look(), 0)
})

test('the clocks are compared at most once a second, and a jump in between is detected', () => {
  const time = { monotonic: 0, wall: 0 }
  let looks = 0
  const clock = new ClockJump({
    monotonic: () => time.monotonic,
    wall() {
      looks++
      return time.wall
    },
  })
  let jumps = 0
  for (let i = 0; i < 1000; i++) {
    time.monotonic += 10
    time.wall += i === 550 ? 5010 : 10
    jumps += clock.look()
  }
  assert.is(jumps, 5000)
  assert.ok(looks <= 11, `${looks} looks`)
})

test.run()
