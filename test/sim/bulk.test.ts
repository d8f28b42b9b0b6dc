// time limit: 120 s
/**
 * Bulk transfers: for how long the engine lets its host leave datagrams in the sockets (`receive_delay`), when it does
 * not, and how late paced segments may leave (`timeout_slack`).
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MS } from '../../testkit/sim/endpoint.ts'
import { Pair, type PairOptions, type Side } from '../../testkit/sim/pair.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { concat, DIAL, MessageType, message, push } from '../../testkit/sim/wire.ts'

const test = suite('sim/bulk')

const RTT_MS = 50
/** A bottleneck of 20 Mbit/s, in bytes per ms. */
const RATE = 2500
const SIDES: readonly Side[] = ['client', 'server']

/** `options` beside a bottleneck; with a method, without which a server does not measure the RTT to a new address. */
function pairOn(rtt: number, options: Partial<PairOptions> = {}): Pair {
  const shape = { delay: rtt / 2, rate: RATE, queue: 128_000 }
  return new Pair({ seed: 3, sealing: 'counter', ...options, up: { ...shape, ...options.up }, down: shape })
}

/** An upload that does not end. */
function upload(pair: Pair): void {
  pair.connect({ client: { bytes: 1e9, stream: 1, fin: 'never' }, server: {} })
}

const delayOf = (pair: Pair, side: Side): number => pair[side].core.calls.receive_delay(pair[side].now)

/** Largest `receive_delay` of each end during `ms`, in ms. */
function longest(pair: Pair, ms: number): Record<Side, number> {
  const most = { client: 0, server: 0 }
  for (let passed = 0; passed < ms; passed++) {
    pair.run(1)
    for (const side of SIDES) most[side] = Math.max(most[side], delayOf(pair, side) / MS)
  }
  return most
}

test('while a bulk transfer arrives steadily both ends may wait, at most 5 ms and an eighth of the RTT', () => {
  for (const rtt of [RTT_MS, 20]) {
    const pair = pairOn(rtt)
    upload(pair)
    pair.run(2000)
    const most = longest(pair, 500)
    for (const side of SIDES) {
      assert.ok(most[side] >= Math.min(rtt / 16, 3), `${side}, RTT ${rtt}: ${most[side]} ms`)
      assert.ok(most[side] <= Math.min(rtt / 8, 5), `${side}, RTT ${rtt}: ${most[side]} ms`)
    }
  }
})

test('nothing waits in the first flights, on a short path, or when nothing arrives', () => {
  const pair = pairOn(RTT_MS)
  upload(pair)
  assert.equal(longest(pair, 2 * RTT_MS), { client: 0, server: 0 })
  const near = pairOn(6, { up: { rate: 25_000 } })
  upload(near)
  assert.equal(longest(near, 2000), { client: 0, server: 0 })
  pair.run(2000)
  pair.up.blackhole = true
  pair.run(3 * RTT_MS)
  assert.equal(longest(pair, 100), { client: 0, server: 0 })
})

test('after a pause nothing waits before more than a hundred segments of the transfer have arrived', () => {
  const pair = pairOn(RTT_MS)
  // 300 segments in each second
  pair.connect({ client: { bytes: 1e9, stream: 1, chunk: 400_000, writeRate: 400, fin: 'never' }, server: {} })
  pair.run(3500)
  let before = pair.server.counter('segments_received')
  let arrived = 0
  pair.runUntil(() => pair.server.counter('segments_received') > before, 2)
  for (before = pair.server.counter('segments_received'); arrived < 250; ) {
    pair.run(1 / 2)
    arrived = pair.server.counter('segments_received') - before
    if (delayOf(pair, 'server') > 0) break
  }
  assert.ok(arrived >= 120 && arrived < 250, `${arrived} segments`)
})

test('nothing waits for a second after a small message of another connection, in either direction', () => {
  for (const isAnswer of [false, true]) {
    const pair = pairOn(RTT_MS)
    upload(pair)
    pair.connect({
      client: { bytes: isAnswer ? 0 : 1e6, stream: 2, chunk: 64, writeRate: 64 / 400, fin: 'never' },
      server: { bytes: isAnswer ? 1e6 : 0, stream: 3, chunk: 64, writeRate: 64 / 400, fin: 'never' },
    })
    pair.run(2000)
    assert.equal(longest(pair, 2000), { client: 0, server: 0 })
  }
})

test('while a gap is open only a small share of the RTT passes: nothing on a path of 20 ms', () => {
  const pair = pairOn(20)
  upload(pair)
  pair.run(2000)
  assert.ok(longest(pair, 200).server >= 1)
  let dropped = 0
  pair.tap = (from, bytes) => from !== 'client' || bytes.length < 1000 || dropped++ !== 0
  pair.runUntil(() => dropped > 0, 1)
  // the segments behind the lost one arrive, and their ACKs
  pair.run(12)
  assert.is(delayOf(pair, 'server'), 0)
  assert.is(longest(pair, 6).server, 0)
})

test('nothing waits where a millisecond brings more than 64 segments, or 12 while a gap is open', () => {
  for (const [perMs, hasGap, isDelayed] of [
    [40, false, true],
    [200, false, false],
    [6, true, true],
    [30, true, false],
  ] as const) {
    const solo = new Solo({ role: 'server', sealing: 'random' })
    solo.feed(push(5, 0, concat(DIAL, message(MessageType.PUSH, new Uint8Array(1)))))
    // the RTT: the KEEPALIVE is acknowledged after that time
    solo.run(RTT_MS)
    solo.confirm(5)
    // the first message is a small one
    solo.run(1100)
    const payload = message(MessageType.PUSH, new Uint8Array(1200))
    let sn = hasGap ? 2 : 1
    // behind a gap the window of 256 segments ends
    const duration = hasGap ? Math.floor(250 / perMs) : 50
    for (let ms = 0; ms < duration; ms++) {
      solo.feed(...Array.from({ length: perMs }, () => push(5, sn++, payload, { una: 1 })))
      solo.run(1)
    }
    const delay = solo.endpoint.core.calls.receive_delay(solo.endpoint.now)
    assert.is(delay > 0, isDelayed, `${perMs} segments/ms, ${hasGap ? 'a' : 'no'} gap: ${delay}`)
  }
})

/** Largest and smallest `timeout_slack` of the client while its next deadline is one of pacing, ms. */
function slacks(pair: Pair, ms: number): readonly [number, number] {
  let most = 0
  let least = Number.POSITIVE_INFINITY
  for (let passed = 0; passed < ms * 8; passed++) {
    pair.run(1 / 8)
    const { calls } = pair.client.core
    const wait = calls.next_timeout(pair.client.now)
    if (wait <= 0 || wait > MS) continue
    const slack = calls.timeout_slack(pair.client.now) / MS
    most = Math.max(most, slack)
    least = Math.min(least, slack)
  }
  return [most, least]
}

test('paced segments of a bulk transfer may wait for a burst, at most 2 ms and an eighth of the RTT', () => {
  for (const [rtt, limit] of [
    [RTT_MS, 2],
    [12, 1.5],
  ] as const) {
    const pair = pairOn(rtt)
    upload(pair)
    assert.equal(slacks(pair, 3)[0], 0, 'not in the first flight')
    pair.run(2000)
    const [most] = slacks(pair, 200)
    assert.ok(most >= limit / 2 && most <= limit + 0.25, `RTT ${rtt}: ${most} ms`)
  }
})

test('segments do not wait for a burst at a low rate, nor beside something interactive', () => {
  const slow = pairOn(RTT_MS, { up: { rate: 500 } })
  upload(slow)
  slow.run(3000)
  assert.is(slacks(slow, 200)[0], 0)
  const pair = pairOn(RTT_MS)
  upload(pair)
  pair.connect({ client: { bytes: 1e6, stream: 2, chunk: 64, writeRate: 64 / 400, fin: 'never' }, server: {} })
  pair.run(2000)
  assert.is(slacks(pair, 200)[0], 0)
})

test.run()
