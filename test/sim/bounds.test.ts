/**
 * Bounds on sessions, memory and windows. At a bound, new work is rejected and counted; existing work is unaffected.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode, EventType } from '../../host/engine/core.ts'
import { address4 } from '../../testkit/sim/address.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { Solo, TESTER } from '../../testkit/sim/solo.ts'
import {
  ack,
  Cmd,
  concat,
  control,
  DIAL,
  KEEPALIVE,
  MessageType,
  message,
  push,
  segment,
  What,
} from '../../testkit/sim/wire.ts'

const MIB = 1024 * 1024

const test = suite('sim/bounds')

test('MUST 48: no stream opens without a peer', () => {
  const solo = new Solo({ role: 'client', peer: false })
  assert.is(solo.open(), ErrorCode.NO_PEER)
  assert.is(solo.endpoint.sessions, 0)
})

test('MUST 49: a client rejects sessions above the limit and accepts them again after one has ended', () => {
  const solo = new Solo({ role: 'client', config: { maxSessions: 5, timeWait: 5 } })
  for (let i = 0; i < 5; i++) assert.ok(solo.open() > 0)
  assert.is(solo.open(), ErrorCode.SESSIONS)
  assert.is(solo.endpoint.counter('sessions_refused'), 1)
  // a session in TIME_WAIT does not count
  solo.feed(control(What.RESET, solo.endpoint.list()[0]?.conv ?? 0))
  assert.is(solo.endpoint.counter('sessions_time_wait'), 1)
  assert.ok(solo.open() > 0)
  assert.is(solo.open(), ErrorCode.SESSIONS)
})

test('MUST 49: 65535 sessions are accepted, one more is rejected', () => {
  const solo = new Solo({ role: 'client', config: { memoryCeiling: 512 * MIB } })
  const { endpoint } = solo
  for (let i = 0; i < 65535; i++) {
    const handle = endpoint.open()
    if (handle <= 0) assert.unreachable(`session ${i + 1}: ${handle}`)
  }
  assert.is(endpoint.open(), ErrorCode.SESSIONS)
  assert.is(endpoint.sessions, 65535)
})

test('a server drops sessions above the limit without a reply', () => {
  const solo = new Solo({ role: 'server', config: { maxSessions: 3 } })
  for (let conv = 1; conv <= 3; conv++) solo.feed(push(conv, 0, DIAL))
  solo.run(100)
  solo.take()
  solo.feed(push(4, 0, DIAL))
  solo.run(100)
  assert.is(solo.streams.size, 3)
  assert.is(solo.take().length, 0)
  assert.ok(solo.endpoint.counter('sessions_refused') >= 1)
  // other sessions continue
  solo.feed(push(1, 1, message(MessageType.PUSH, new Uint8Array([1, 2, 3]))))
  const [first] = solo.streams.values()
  assert.equal(first?.data, new Uint8Array([1, 2, 3]))
})

test('a flood of new sessions stops at the memory ceiling; earlier sessions continue', () => {
  const ceiling = 24 * MIB
  const pair = new Pair({ seed: 1, server: { memoryCeiling: ceiling, rcvwnd: 64 } })
  const connection = pair.connect({
    client: { bytes: 1_000_000, stream: 1, fin: 'send' },
    server: { bytes: 1_000_000, stream: 2, fin: 'send' },
  })
  const flood = (): void => {
    // out of order: the engine cannot deliver the bytes
    for (let i = 0; i < 2000; i++) {
      const conv = pair.random.u32() | 1
      const data = pair.random.bytes(1300)
      pair.inject('server', push(conv, 1 + pair.random.below(30), data), address4(66, 1000 + pair.random.below(60000)))
    }
  }
  pair.run(20)
  for (let i = 0; i < 15; i++) {
    flood()
    pair.run(50)
  }
  assert.ok(pair.server.counter('memory_used') <= ceiling, `${pair.server.counter('memory_used')} bytes`)
  assert.ok(pair.server.counter('sessions_refused') + pair.server.counter('drop_memory') > 0, 'nothing was refused')
  assert.ok(pair.finish(120), connection.describe())
  assert.ok(connection.clean, connection.describe())
})

test('a stalled receiver buffers at most its window: allocated and WASM memory stay bounded', () => {
  const solo = new Solo({ role: 'server', read: false, config: { rcvwnd: 128, memoryCeiling: 64 * MIB } })
  const base = solo.endpoint.counter('memory_used')
  const payload = new Uint8Array(1300).fill(7)
  solo.feed(push(5, 0, DIAL))
  for (let sn = 1; sn < 3000; sn++) solo.feed(push(5, sn, sn === 1 ? message(1, payload, 14884) : payload))
  solo.run(200)
  const used = solo.endpoint.counter('memory_used') - base
  assert.ok(used < 128 * 2048 * 2 + 200_000, `${used} bytes for a window of 128`)
  assert.ok(solo.endpoint.counter('drop_window') > 0)
})

test('MUST 40: a peer that does not acknowledge stops the writer at its window', () => {
  const solo = new Solo({ role: 'server', config: { sndwnd: 256, nc: 1 } })
  solo.feed(push(5, 0, DIAL, { wnd: 50 }))
  const handle = solo.only.handle
  const taken = solo.write(handle, new Uint8Array(5_000_000))
  // 1.5 windows
  assert.ok(taken >= 50 * 1300 && taken <= 1.5 * 256 * 1348, `${taken} bytes were accepted`)
  solo.endpoint.drain()
  solo.run(20)
  const pushes = new Set(
    solo
      .takeSegments(5)
      .filter(({ cmd }) => cmd === 'PUSH')
      .map(({ sn }) => sn),
  )
  assert.is(pushes.size, 50)
  // WRITABLE is reported when there is room again
  const before = solo.events.length
  for (let acked = 0; acked < 200; acked += 50) {
    const acks = Array.from({ length: 50 }, (_, i) => ack(5, acked + i, 0, acked + i + 1, { wnd: 256 }))
    solo.feed(concat(...acks))
    solo.run(10)
  }
  assert.ok(solo.events.slice(before).some(({ type, handle: of }) => type === EventType.WRITABLE && of === handle))
  assert.ok(solo.write(handle, new Uint8Array(1000)) === 1000)
})

test('a peer that requests replies and acknowledges none: few are in flight, memory is bounded, others continue', () => {
  const ceiling = 16 * MIB
  const pair = new Pair({ seed: 1, server: { memoryCeiling: ceiling } })
  const peer = address4(66, 1000)
  const conv = 77
  pair.inject('server', push(conv, 0, KEEPALIVE), peer)
  const before = pair.server.counter('memory_used')
  let most = 0
  for (let sn = 1; sn <= 20_000; sn++) {
    const wask = segment({ conv, cmd: Cmd.WASK })
    pair.inject('server', concat(push(conv, sn, KEEPALIVE), wask, push(conv, sn, KEEPALIVE)), peer)
    if (sn % 100 === 0) pair.run(1)
    most = Math.max(most, pair.server.counter('waitsnd'))
  }
  // echoes of 4 bytes each, possibly one per segment
  assert.ok(most <= 1100, `${most} segments`)
  assert.ok(
    pair.server.counter('memory_used') - before < 4 * MIB,
    `${pair.server.counter('memory_used') - before} bytes`,
  )
  const end = (stream: number) => ({ bytes: MIB, stream })
  const connection = pair.connect({ client: end(1), server: end(2) })
  assert.ok(
    pair.runUntil(() => connection.over, 60),
    connection.describe(),
  )
  assert.ok(connection.clean, connection.describe())
  pair.run(2000)
  // later requests are answered once the replies are acknowledged
  const { sessions } = pair.server
  pair.inject('server', ack(conv, 0, 0, pair.server.counter('waitsnd')), peer)
  assert.ok(pair.server.counter('waitsnd') > 0)
  assert.is(pair.server.sessions, sessions)
})

test('an idle session uses less than 2.5 KiB at either end', () => {
  const pair = new Pair({ seed: 1, sealing: 'random' })
  const used = (): number[] => [pair.server.counter('memory_used'), pair.client.counter('memory_used')]
  const before = used()
  const open = 500
  for (let i = 0; i < open; i++) {
    const end = (stream: number) => ({ bytes: 10, stream, fin: 'never' }) as const
    pair.connect({ client: end(1), server: end(2) })
    if (i % 50 === 0) pair.run(200)
  }
  pair.run(5000)
  assert.is(pair.server.counter('sessions_established'), open)
  for (const [i, bytes] of used().entries()) {
    const each = (bytes - (before[i] ?? 0)) / open
    assert.ok(each < 2560, `${each} bytes`)
  }
})

test('bytes held by the host count: the engine accepts less, and the full amount once they are released', () => {
  const fill = (toTcp: number, fromTcp: number, before = 0): { received: number; sent: number } => {
    const solo = new Solo({
      role: 'server',
      read: false,
      config: { memoryCeiling: 16 * MIB, rcvwnd: 65535, sndwnd: 65535, nc: 1 },
    })
    const { calls } = solo.endpoint.core
    const base = solo.endpoint.counter('memory_used')
    for (const [to, from] of [
      [before, before],
      [toTcp, fromTcp],
    ] as const) {
      assert.is(calls.set_host_bytes(to, from), 0)
      assert.is(solo.endpoint.counter('memory_used') - base, to + from)
    }
    solo.feed(push(5, 0, DIAL))
    const sent = solo.write(solo.only.handle, new Uint8Array(16 * MIB))
    const data = new Uint8Array(1340)
    const first = message(MessageType.PUSH, data.subarray(4), 14884)
    for (let sn = 1; sn < 8000; sn++) solo.feed(push(5, sn, sn === 1 ? first : data))
    const received = 8000 - solo.endpoint.counter('drop_memory')
    assert.is(calls.set_host_bytes(0, 0), 0)
    return { received, sent }
  }
  const free = fill(0, 0)
  assert.equal(fill(0, 0, 4 * MIB), free)
  const toTcp = fill(4 * MIB, 0)
  const fromTcp = fill(0, 4 * MIB)
  assert.ok(toTcp.received < 0.7 * free.received, `${toTcp.received} of ${free.received}`)
  assert.is(toTcp.sent, free.sent)
  assert.ok(fromTcp.sent < 0.7 * free.sent, `${fromTcp.sent} of ${free.sent}`)
  const solo = new Solo({ role: 'client' })
  assert.is(solo.endpoint.core.calls.set_host_bytes(1024 * MIB + 1, 0), ErrorCode.ARGUMENT)
})

test('MUST 43: the same conv from two addresses are two sessions', () => {
  const solo = new Solo({ role: 'server' })
  solo.feedFrom(TESTER, push(77, 0, concat(DIAL, message(1, new Uint8Array([1])))))
  solo.feedFrom(address4(9, 50002), push(77, 0, concat(DIAL, message(1, new Uint8Array([2])))))
  assert.is(solo.streams.size, 2)
  assert.equal(
    [...solo.streams.values()].map(({ data }) => data[0]),
    [1, 2],
  )
})

test.run()
