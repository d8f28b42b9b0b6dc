// time limit: 120 s
/**
 * Input from unauthenticated senders and misbehaving peers does not trap the engine, provoke needless datagrams or leak
 * memory.
 */

import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { address4 } from '../../testkit/sim/address.ts'
import { Random } from '../../testkit/sim/random.ts'
import { Solo, TESTER } from '../../testkit/sim/solo.ts'
import {
  Cmd,
  concat,
  control,
  DIAL,
  EOF,
  KEEPALIVE,
  MessageType,
  message,
  push,
  segment,
} from '../../testkit/sim/wire.ts'

const seeds = fc.integer({ min: 0, max: 0x7fffffff })

/** @returns an almost valid datagram */
function nearlyValid(random: Random, conv: number): Uint8Array {
  const parts: Uint8Array[] = []
  for (let i = random.between(1, 4); i > 0; i--) {
    const data = random.chance(0.5)
      ? concat(random.pick(DIAL, EOF, KEEPALIVE, message(MessageType.PUSH, random.bytes(random.below(200)))))
      : message(random.below(6), random.bytes(random.below(60)), random.below(80))
    parts.push(
      segment({
        conv: random.chance(0.05) ? random.u32() : conv,
        cmd: random.chance(0.9) ? random.pick(Cmd.PUSH, Cmd.PUSH, Cmd.ACK, Cmd.WASK, Cmd.WINS) : random.below(256),
        frg: random.chance(0.1) ? random.below(256) : 0,
        wnd: random.pick(0, 1, 128, 65535),
        ts: random.chance(0.5) ? random.u32() : 0,
        sn: random.chance(0.8) ? random.below(40) : random.u32(),
        una: random.chance(0.8) ? random.below(6) : random.u32(),
        data,
        ...(random.chance(0.05) ? { len: random.u32() } : {}),
      }),
    )
  }
  const bytes = concat(...parts)
  if (random.chance(0.2)) return bytes.slice(0, random.below(bytes.length + 1))
  if (random.chance(0.2)) bytes[random.below(bytes.length)] = random.below(256)
  return bytes
}

/** Ends all sessions and asserts that their memory is freed. */
function assertNoLeak(solo: Solo, limit: number): void {
  for (const { handle, ending } of solo.streams.values()) if (!ending) solo.endpoint.abort(handle)
  solo.endpoint.drain()
  solo.run(3000_000)
  assert.is(solo.endpoint.sessions, 0)
  assert.is(solo.endpoint.counter('waitsnd'), 0)
  assert.ok(solo.endpoint.counter('memory_used') <= limit, `${solo.endpoint.counter('memory_used')} > ${limit}`)
}

/** Allowance for the session tables, which are not freed. */
const TABLES = 256 * 1024

const test = suite('core/malformed')

for (const sealing of ['none', 'random'] as const) {
  for (const role of ['server', 'client', 'neither'] as const) {
    test(`random datagrams of every length 0..1510 to a ${role} (${sealing}): no trap, no leak`, () => {
      const solo = new Solo({ role, sealing, config: { timeWait: 5 } })
      const base = solo.endpoint.counter('memory_used')
      const random = new Random(5)
      solo.run(1)
      solo.take()
      for (let length = 0; length <= 1510; length++) {
        solo.feedRaw(TESTER, random.bytes(length))
        // with a method random bytes are not answered
        if (sealing === 'random') assert.is(solo.take().length, 0)
        // zeros parse as control messages, small numbers as segments
        solo.feed(new Uint8Array(length).fill(length % 3))
        solo.feed(random.bytes(length))
        solo.take()
      }
      assertNoLeak(solo, base + TABLES)
    })
  }
}

test('first flights truncated at every length: no trap, no answer, no leak', () => {
  const flight = push(7, 0, concat(DIAL, message(MessageType.PUSH, new Uint8Array(1300))))
  for (const sealing of ['none', 'random', 'counter'] as const) {
    const solo = new Solo({ role: 'server', sealing, config: { timeWait: 5 } })
    const base = solo.endpoint.counter('memory_used')
    const sealed = solo.seal(flight)
    for (let length = 0; length < sealed.length; length++) solo.feedRaw(TESTER, sealed.subarray(0, length))
    assert.is(solo.take().length, 0)
    assert.is(solo.streams.size, 0)
    if (sealing !== 'none') assert.is(solo.endpoint.sessions, 0)
    solo.feedRaw(TESTER, sealed)
    solo.confirm(7)
    assert.is(solo.only.data.length, 1300)
    assertNoLeak(solo, base + TABLES)
  }
})

test('authentic garbage to a server: no trap, no leak, and new sessions are still served', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      const random = new Random(seed)
      const solo = new Solo({ role: 'server', seed, config: { timeWait: 5 } })
      const base = solo.endpoint.counter('memory_used')
      for (let i = 0; i < 400; i++) {
        const peer = address4(20 + random.below(3), 1000)
        const conv = 1 + random.below(4)
        if (random.chance(0.1)) solo.feedFrom(peer, control(random.below(7), random.chance(0.5) ? conv : random.u32()))
        else solo.feedFrom(peer, nearlyValid(random, conv))
        if (random.chance(0.1)) solo.run(random.below(3000))
        for (const { handle, ending } of solo.streams.values()) {
          if (!ending && random.chance(0.05)) solo.write(handle, random.bytes(random.below(5000)))
          if (!ending && random.chance(0.01)) solo.endpoint.shutdown(handle)
        }
        solo.endpoint.drain()
      }
      solo.feedFrom(address4(99, 9), push(3, 0, concat(DIAL, message(MessageType.PUSH, new Uint8Array([1, 2, 3])))))
      assert.equal([...solo.streams.values()].at(-1)?.data, new Uint8Array([1, 2, 3]))
      assertNoLeak(solo, base + TABLES)
    }),
    { numRuns: 40 },
  )
})

test('authentic garbage to a client with open streams: no trap, no leak', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      const random = new Random(seed)
      const solo = new Solo({ role: 'client', seed, config: { timeWait: 5 } })
      const base = solo.endpoint.counter('memory_used')
      const handles = [solo.open(), solo.open(), solo.open()]
      const convs = handles.map((handle) => solo.endpoint.convOf(handle))
      for (let i = 0; i < 400; i++) {
        solo.feed(nearlyValid(random, random.chance(0.9) ? (convs[random.below(3)] ?? 1) : random.u32()))
        if (random.chance(0.1)) solo.run(random.below(3000))
        for (const handle of handles) {
          if (!solo.stream(handle).ending && random.chance(0.05)) solo.write(handle, random.bytes(random.below(5000)))
        }
        solo.endpoint.drain()
      }
      assert.ok(solo.open() > 0)
      assertNoLeak(solo, base + TABLES)
    }),
    { numRuns: 40 },
  )
})

test('valid datagrams with one byte changed: no trap, no leak', () => {
  const stream = concat(DIAL, message(MessageType.PUSH, new Uint8Array(500).fill(3)), KEEPALIVE, EOF)
  const good = push(7, 0, stream)
  const base = new Solo({ role: 'server' }).endpoint.counter('memory_used')
  for (let at = 0; at < 60; at++) {
    const solo = new Solo({ role: 'server', config: { timeWait: 5 } })
    for (const value of [0, 1, 4, 80, 81, 82, 84, 127, 128, 255]) {
      const bytes = good.slice()
      bytes[at] = value
      solo.feed(bytes)
    }
    solo.run(5000)
    assertNoLeak(solo, base + TABLES)
  }
})

test('a flood of garbage is counted and not answered', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const random = new Random(1)
  const used = solo.endpoint.counter('memory_used')
  for (let i = 0; i < 200; i++) {
    solo.feedRaw(
      address4(random.below(255), random.below(65535)),
      ...Array.from({ length: 128 }, () => random.bytes(200)),
    )
  }
  assert.is(solo.endpoint.counter('drop_auth'), 200 * 128)
  assert.is(solo.take().length, 0)
  assert.is(solo.endpoint.counter('memory_used'), used)
})

test.run()
