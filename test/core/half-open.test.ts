/**
 * Sessions of a server that wait for DIAL yield to new ones when a limit is reached: recorded first flights and clients
 * that vanish do not lock out those that answer, nor take the memory of open streams.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreConfig, EventType } from '../../host/engine/core.ts'
import { type Address, address4 } from '../../testkit/sim/address.ts'
import { type Output, Solo } from '../../testkit/sim/solo.ts'
import { ack, Cmd, concat, DIAL, MessageType, message, push, segment, utf8, What } from '../../testkit/sim/wire.ts'

const GENUINE = address4(9, 50001)
const MIB = 2 ** 20
const ROUND_TRIP_MS = 200

const test = suite('core: half-open sessions')

function server(config: Partial<CoreConfig>): Solo {
  return new Solo({ role: 'server', sealing: 'random', config })
}

/** A first flight with DIAL and payload. */
function flight(conv: number, payload = 'get'): Uint8Array {
  return push(conv, 0, concat(DIAL, message(MessageType.PUSH, utf8(payload))))
}

/** A flood of first flights whose senders never answer. */
class Flood {
  readonly #solo: Solo
  #next = 0

  constructor(solo: Solo) {
    this.#solo = solo
  }

  /** Sends `perSecond` of them for `ms`. */
  run(perSecond: number, ms: number): void {
    const pause = 1000 / perSecond
    for (let at = 0; at < ms; at += pause) {
      this.#next++
      this.#solo.feedFrom(this.from(this.#next), flight(0x70000000 + this.#next))
      this.#solo.run(pause)
      this.#solo.take()
    }
  }

  from(index: number): Address {
    return address4(100 + (index % 100), 1000 + (index >> 7))
  }
}

function dials(solo: Solo): number {
  return solo.events.filter(({ type }) => type === EventType.DIAL).length
}

/** A client opens a conversation and answers after a round trip, during which the flood goes on. */
function open(solo: Solo, flood: Flood, conv: number, perSecond: number): boolean {
  const before = dials(solo)
  solo.take()
  solo.feedFrom(GENUINE, flight(conv))
  const sent = solo.take().filter((output) => output.conv === conv)
  flood.run(perSecond, ROUND_TRIP_MS)
  for (const { sn, ts } of pushes(sent)) solo.feedFrom(GENUINE, ack(conv, sn, ts, sn + 1))
  return dials(solo) === before + 1
}

function pushes(outputs: readonly Output[]): { sn: number; ts: number }[] {
  return outputs.flatMap(({ segments }) => segments.filter(({ cmd }) => cmd === 'PUSH'))
}

for (const [limit, config] of [
  ['maxHalfOpen', { maxHalfOpen: 180 }],
  ['maxSessions', { maxSessions: 180 }],
  ['memoryCeiling', { memoryCeiling: 2 * MIB }],
] as const) {
  test(`${limit}: first flights that nobody answers for do not lock clients out`, () => {
    const solo = server(config)
    const flood = new Flood(solo)
    flood.run(150, 20_000)
    assert.ok(solo.endpoint.counter('sessions_evicted') > 1000, `${solo.endpoint.counter('sessions_evicted')} evicted`)
    assert.is(dials(solo), 0)
    for (let conv = 1; conv <= 20; conv++) assert.ok(open(solo, flood, conv, 150), `client ${conv}`)
  })
}

test('a session is not evicted before its client had time to answer', () => {
  const solo = server({ maxHalfOpen: 8 })
  const flood = new Flood(solo)
  flood.run(1000, 500)
  assert.is(solo.endpoint.counter('sessions_evicted'), 0)
  assert.is(solo.endpoint.sessions, 8)
  assert.ok(solo.endpoint.counter('sessions_refused') >= 490)
})

test('an open stream keeps its place, its memory and its bytes', () => {
  const solo = server({ memoryCeiling: 2 * MIB, rcvwnd: 256 })
  const flood = new Flood(solo)
  assert.ok(open(solo, flood, 5, 100))
  flood.run(400, 10_000)
  assert.ok(solo.endpoint.counter('sessions_evicted') > 1000)
  // a window with a hole in front, which nobody can read yet
  const payload = new Uint8Array(1300).fill(7)
  const dropped = solo.endpoint.counter('drop_memory')
  for (let sn = 2; sn <= 100; sn++) solo.feedFrom(GENUINE, push(5, sn, message(MessageType.PUSH, payload)))
  assert.is(solo.endpoint.counter('drop_memory'), dropped, 'segments of the open stream dropped')
  solo.feedFrom(GENUINE, push(5, 1, message(MessageType.PUSH, payload)))
  const stream = [...solo.streams.values()].find(({ dialled }) => dialled)
  assert.is(stream?.data.length, 3 + 100 * payload.length)
  assert.is(stream?.ending, undefined)
})

test('what was evicted is dialled by no late answer, and its client is told', () => {
  const solo = server({ maxHalfOpen: 3 })
  solo.feedFrom(GENUINE, flight(1))
  const [sent] = pushes(solo.take().filter(({ conv }) => conv === 1))
  assert.ok(sent)
  new Flood(solo).run(2, 4000)
  solo.take()
  solo.feedFrom(GENUINE, ack(1, sent.sn, sent.ts, sent.sn + 1))
  assert.is(dials(solo), 0)
  assert.ok(solo.take().some(({ plain, conv }) => conv === 0 && plain[5] === What.RESET))
  // evicted sessions leave no records that would fill the table of ended ones
  assert.is(solo.endpoint.counter('sessions_time_wait'), 0)
  // if nothing had reached the client, its next transmission opens the session again
  solo.feedFrom(GENUINE, flight(2))
  new Flood(solo).run(2, 4000)
  solo.take()
  solo.feedFrom(GENUINE, flight(2))
  const again = pushes(solo.take().filter(({ conv }) => conv === 2))
  for (const { sn, ts } of again) solo.feedFrom(GENUINE, ack(2, sn, ts, sn + 1))
  assert.is(dials(solo), 1)
})

test('an invalid stream that never dialled, and ends, is in no list any more', () => {
  const solo = server({ maxHalfOpen: 2, timeout: 60 })
  const invalid = (conv: number, sn: number, ...bytes: number[]): Uint8Array =>
    segment({ conv, cmd: Cmd.PUSH, sn, data: new Uint8Array(bytes) })
  for (let conv = 1; conv <= 6; conv++) {
    solo.feedFrom(GENUINE, invalid(conv, 0, 0xff, 0, 3, 0))
    solo.feedFrom(GENUINE, invalid(conv, 1, 0, 4, 0, 4))
    solo.confirm(conv, GENUINE)
    solo.run(1100)
  }
  solo.run(300_000)
  assert.is(solo.endpoint.sessions, 0)
})

test.run()
