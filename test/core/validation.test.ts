/**
 * First flights, address validation and restarted peers (docs/validation.md): an attacker without the key gains nothing
 * by recording, replaying, relaying and forging datagrams.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreConfig, EventType } from '../../host/engine/core.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { type Output, Solo, summary } from '../../testkit/sim/solo.ts'
import {
  ack,
  Cmd,
  concat,
  control,
  DIAL,
  EOF,
  MessageType,
  message,
  push,
  segment,
  utf8,
  What,
} from '../../testkit/sim/wire.ts'

const CLIENT = address4(9, 50001)
const SECOND = 8000

function text(words: string): Uint8Array {
  return message(MessageType.PUSH, utf8(words))
}

function server(config: Partial<CoreConfig> = {}): Solo {
  return new Solo({ role: 'server', sealing: 'random', config })
}

function dials(solo: Solo): number {
  return solo.events.filter(({ type }) => type === EventType.DIAL).length
}

function isPing({ conv, plain }: Output): boolean {
  return conv === 0 && plain[5] === What.PING
}

/** Answers the PINGs of these datagrams as the peer. */
function answerPings(solo: Solo, outputs: readonly Output[], from?: Address): void {
  for (const output of outputs.filter(isPing)) {
    const pong = output.plain.slice()
    pong[5] = What.PONG
    solo.feedFrom(from ?? output.peer, pong)
  }
}

/** The tester's clock for ts, in 1/8 ms as the engine's. */
const clock = (solo: Solo): number => Math.round(solo.ms * 8) + 123_456

/** Opens and confirms a conversation of a client with clock `ts`. */
function openConfirmed(solo: Solo, conv: number, ts: () => number = () => clock(solo)): void {
  solo.feed(push(conv, 0, concat(DIAL, text('hello')), { ts: ts() }))
  const outputs = solo.take()
  answerPings(solo, outputs)
  for (const { segments } of outputs) {
    for (const { cmd, sn, ts } of segments) if (cmd === 'PUSH') solo.feed(ack(conv, sn, ts, sn + 1))
  }
  solo.feed(push(conv, 1, text('more'), { ts: ts(), una: 1 }))
  solo.run(30)
  solo.take()
}

const test = suite('core/validation')

// ---- first flights

test('a new server does not dial for a first flight before the client has confirmed it', () => {
  const solo = server()
  solo.feed(push(5, 0, concat(DIAL, text('steal'))))
  solo.run(3000)
  assert.is(dials(solo), 0)
  // recorded datagrams do not confirm it: an ACK of sn 0 with another ts, WINS, PONG
  solo.feed(ack(5, 0, 4711, 1), segment({ conv: 5, cmd: Cmd.WINS, una: 1 }), control(What.PONG, 1))
  answerPings(solo, solo.take())
  solo.run(1000)
  assert.is(dials(solo), 0)
  // una acknowledged the challenge: it is sent again
  solo.run(2000)
  solo.confirm(5)
  assert.is(dials(solo), 1)
  assert.equal(solo.only.data, utf8('steal'))
})

test('a late answer to any transmission of the challenge confirms the session', () => {
  for (const delay of [50, 300, 900, 2500]) {
    const solo = server()
    solo.feed(push(5, 0, concat(DIAL, text('x'))))
    const first = solo.take().flatMap(({ segments }) => segments)
    const challenge = first.find(({ cmd }) => cmd === 'PUSH')
    solo.run(delay)
    assert.ok(challenge)
    solo.feed(ack(5, challenge.sn, challenge.ts, 1))
    assert.is(dials(solo), 1, `${delay} ms`)
  }
})

test('recorded acknowledgements of an ended session do not confirm its replayed first flight', () => {
  const solo = server({ replayCapacity: 64, timeWait: 10 })
  const flight = solo.seal(push(5, 0, concat(DIAL, text('steal'))))
  /** ACKs of all transmissions of the challenge since the last call, as the client would send them. */
  const acks = (): Uint8Array[] =>
    solo.takeSegments(5).flatMap(({ cmd, sn, ts }) => (cmd === 'PUSH' ? [ack(5, sn, ts, sn + 1)] : []))
  solo.feedRaw(CLIENT, flight)
  solo.run(4000)
  const recorded = acks()
  assert.ok(recorded.length > 1, 'the challenge is repeated')
  solo.feed(...recorded)
  assert.is(dials(solo), 1)
  solo.feed(control(What.RESET, 5))
  for (let i = 0; i < 400; i++) {
    solo.run(1000)
    solo.feed(control(What.PING, i))
  }
  assert.is(solo.feedRaw(CLIENT, flight), 1, 'its nonce is still in the filter')
  for (let i = 0; i < 20; i++) {
    solo.feed(...recorded)
    solo.run(200)
  }
  assert.is(dials(solo), 1)
})

test('a RESET from the client ends an unconfirmed session at once', () => {
  const solo = server()
  solo.feed(push(5, 0, concat(DIAL, text('steal'))))
  solo.feed(control(What.RESET, 5))
  solo.run(60_000)
  assert.is(dials(solo), 0)
})

test('the conversation of an earlier server is not dialled, but answered with RESET', () => {
  const solo = server()
  solo.feed(push(5, 0, concat(DIAL, text('steal'))))
  const challenge = solo
    .take()
    .flatMap(({ segments }) => segments)
    .find(({ cmd }) => cmd === 'PUSH')
  // the client received 7 segments of that conversation, and acknowledges the first of them again
  solo.feed(ack(5, 0, challenge?.ts ?? 0, 7))
  assert.ok(solo.take().some((output) => summary(output) === 'RESET'))
  solo.run(60_000)
  assert.is(dials(solo), 0)
})

for (const [name, step] of [
  ['kcptun-wasm', 8],
  ['kcptun-libev', 1],
] as const) {
  test(`later connections of a confirmed client take one round trip (clock of ${name})`, () => {
    const solo = server()
    const ts = (): number => Math.round(solo.ms * step) + 99
    solo.run(600_000)
    openConfirmed(solo, 100, ts)
    solo.run(30_000)
    for (let i = 1; i < 20; i++) {
      solo.feed(push(100 + i, 0, concat(DIAL, text('x')), { ts: ts() }))
      assert.is(dials(solo), 1 + i)
      solo.run(3000 * i)
    }
  })
}

test('a replayed first flight is not dialled again, even after its nonce left the filter', () => {
  // far fewer nonces than the datagrams that follow
  const solo = server({ replayCapacity: 64 })
  openConfirmed(solo, 100)
  solo.run(30_000)
  const flight = solo.seal(push(101, 0, concat(DIAL, text('x')), { ts: clock(solo) }))
  solo.feedRaw(CLIENT, flight)
  assert.is(dials(solo), 2)
  solo.feed(push(101, 1, EOF, { ts: clock(solo) }))
  for (let i = 0; i < 400; i++) {
    solo.run(2000)
    solo.feed(control(What.PING, i))
  }
  solo.take()
  assert.is(solo.feedRaw(CLIENT, flight), 1, 'its nonce is still in the filter')
  solo.run(5000)
  assert.is(dials(solo), 2)
  // nor if its nonce left the filter within seconds
  const late = solo.seal(push(102, 0, concat(DIAL, text('x')), { ts: clock(solo) }))
  for (let i = 0; i < 400; i++) solo.feed(control(What.PING, i))
  solo.feedRaw(CLIENT, late)
  assert.is(dials(solo), 2)
})

test('a replayed first flight is not dialled by another worker or a restarted server, from any address', () => {
  const solo = server()
  openConfirmed(solo, 100)
  solo.run(30_000)
  const flight = solo.seal(push(101, 0, concat(DIAL, text('x')), { ts: clock(solo) }))
  solo.feedRaw(CLIENT, flight)
  assert.is(dials(solo), 2)
  for (const from of [CLIENT, address4(66, 6)]) {
    const other = server()
    openConfirmed(other, 500, () => Math.round(other.ms * 8) + 77_777_777)
    const before = dials(other)
    other.run(40_000)
    other.feedRaw(from, flight)
    other.run(5000)
    assert.is(dials(other), before)
  }
})

test('a first flight with a future or past clock, or an old conv, is not dialled without confirmation', () => {
  for (const [conv, shift] of [
    [101, 20 * SECOND],
    [101, -20 * SECOND],
    [101, 0x7000_0000],
    [100 - 5000, 0],
  ] as const) {
    const solo = server()
    openConfirmed(solo, 100)
    solo.run(30_000)
    solo.feed(push(conv >>> 0, 0, concat(DIAL, text('x')), { ts: (clock(solo) + shift) >>> 0 }))
    assert.is(dials(solo), 1, `${conv} ${shift}`)
  }
})

test('a first flight with a slightly lower conv is dialled at once, an older conv needs confirmation', () => {
  const solo = server()
  openConfirmed(solo, 1000)
  const before = dials(solo)
  for (let conv = 999; conv >= 936; conv--) solo.feed(push(conv, 0, DIAL, { ts: clock(solo) }))
  assert.is(dials(solo), before + 64)
  solo.feed(push(935, 0, DIAL, { ts: clock(solo) }))
  assert.is(dials(solo), before + 64)
})

test('a first flight far below the newest conv needs confirmation, wherever convs began', () => {
  for (const conv of [100, 0x5000_0000, 0xffff_f000]) {
    const solo = server()
    openConfirmed(solo, conv)
    solo.run(60_000)
    const next = (conv + 5000) >>> 0
    solo.feed(push(next, 0, concat(DIAL, text('get')), { ts: clock(solo) }))
    solo.write([...solo.streams.keys()].at(-1) ?? 0, utf8('answer'))
    solo.endpoint.drain()
    solo.feed(push(next, 1, text('more'), { ts: clock(solo), una: 1 }))
    assert.is(dials(solo), 2)
    solo.feed(push((conv + 10) >>> 0, 0, concat(DIAL, text('x')), { ts: clock(solo) }))
    assert.is(dials(solo), 2, `${conv}`)
  }
})

test('a replayed segment of an open conversation cannot set the clock back', () => {
  const solo = server({ replayCapacity: 64 })
  openConfirmed(solo, 100)
  const old = solo.seal(push(100, 2, text('old'), { ts: clock(solo), una: 1 }))
  const flight = solo.seal(push(90, 0, concat(DIAL, text('x')), { ts: clock(solo) }))
  solo.feedRaw(CLIENT, old)
  solo.run(600_000 / 4)
  for (let i = 0; i < 400; i++) solo.feed(control(What.PING, i))
  solo.write([...solo.streams.keys()][0] ?? 0, utf8('something new'))
  solo.endpoint.drain()
  solo.run(30_000)
  solo.feedRaw(CLIENT, old)
  solo.feedRaw(CLIENT, flight)
  assert.is(dials(solo), 1)
})

test('replay: strict confirms every first flight', () => {
  const solo = server({ confirm: 1 })
  openConfirmed(solo, 100)
  solo.run(30_000)
  solo.feed(push(101, 0, concat(DIAL, text('x')), { ts: clock(solo) }))
  assert.is(dials(solo), 1)
  solo.confirm(101)
  assert.is(dials(solo), 2)
})

test('between two engines the first connection takes two round trips, later ones take one', () => {
  const pair = new Pair({ seed: 3, sealing: 'random', up: { delay: 40 }, down: { delay: 40 } })
  const times: number[] = []
  for (let i = 0; i < 4; i++) {
    const start = pair.ms
    const connection = pair.connect({
      client: { bytes: 100, stream: 2 * i + 1 },
      server: { bytes: 100, stream: 2 * i + 2 },
    })
    while (connection.server === undefined) pair.run(1)
    times.push(pair.ms - start)
    assert.ok(pair.finish(60), connection.describe())
    pair.run(15_000)
  }
  assert.ok((times[0] ?? 0) >= 120, `${times}`)
  for (const time of times.slice(2)) assert.ok(time < 60, `${times}`)
})

// ---- addresses

test('an address that never answers is sent at most three times what it sent, or 4 KB, and a few PINGs', () => {
  const solo = server()
  const victim = address4(77, 7)
  openConfirmed(solo, 100)
  solo.run(30_000)
  let received = 0
  for (let i = 0; i < 3; i++) {
    const flight = solo.seal(push(101 + i, 0, concat(DIAL, text('get')), { ts: clock(solo) }))
    received += flight.length
    solo.feedRaw(victim, flight)
  }
  solo.run(600_000)
  const sent = solo.take().filter(({ peer }) => addressKey(peer) === addressKey(victim))
  const pings = sent.filter(isPing)
  const bytes = sent.filter((output) => !isPing(output)).reduce((sum, output) => sum + output.bytes.length, 0)
  assert.ok(pings.length > 0 && pings.length <= 5, `${pings.length} PINGs`)
  // each pause is twice the one before
  const pauses = pings.slice(1).map(({ ms }, i) => ms - (pings[i]?.ms ?? ms))
  for (const [i, pause] of pauses.entries()) assert.ok(pause >= 250 * 2 ** i, `${pauses} ms`)
  assert.ok(bytes <= Math.max(3 * received, 4096), `${bytes} bytes`)
})

test('a large response is held back until the address is validated, then delivered completely', () => {
  const solo = server()
  openConfirmed(solo, 100)
  // long without a session: the address is known, but no longer validated
  solo.feed(push(100, 2, EOF, { ts: clock(solo), una: 1 }))
  const first = [...solo.streams.keys()][0] ?? 0
  solo.endpoint.shutdown(first)
  solo.endpoint.drain()
  solo.confirm(100)
  solo.run(1_000_000)
  solo.take()
  const flight = solo.seal(push(101, 0, concat(DIAL, text('get'.repeat(330))), { ts: clock(solo) }))
  solo.feedRaw(CLIENT, flight)
  assert.is(dials(solo), 2, 'recent, so dialled at once')
  const stream = [...solo.streams.values()].at(-1)
  assert.ok(stream)
  const answer = new Uint8Array(60_000).map((_, i) => i * 31)
  // part of the allowance is used before the rest is written
  solo.write(stream.handle, answer.subarray(0, 1276))
  solo.endpoint.drain()
  solo.write(stream.handle, answer.subarray(1276))
  solo.endpoint.drain()
  solo.run(3000)
  const held = solo.take()
  const bytes = held.filter((output) => !isPing(output)).reduce((sum, output) => sum + output.bytes.length, 0)
  assert.ok(bytes <= Math.max(3 * flight.length, 4096), `${bytes} bytes`)
  answerPings(solo, held.slice(-50))
  for (let i = 0; i < 400; i++) {
    solo.run(20)
    for (const { segments } of solo.take()) {
      for (const { cmd, sn, ts } of segments) if (cmd === 'PUSH') solo.feed(ack(101, sn, ts, 0))
    }
  }
  assert.is(solo.streamSent(101).length, answer.length + 4 * (1 + Math.ceil((answer.length - 1276) / 14880)))
})

test('PONGs with another value, or from another address, validate no address', () => {
  const solo = server()
  solo.feed(push(5, 0, concat(DIAL, text('get'))))
  const outputs = solo.take()
  answerPings(solo, outputs, address4(66, 6))
  for (const output of outputs.filter(isPing)) {
    const pong = output.plain.slice()
    pong[5] = What.PONG
    pong[9] = (pong[9] ?? 0) ^ 1
    solo.feed(pong)
  }
  assert.ok(solo.endpoint.counter('pongs_unasked') >= 2)
  solo.run(1000)
  assert.ok(solo.take().some(isPing), 'the PING is repeated')
})

test('sessions of addresses that never answered count as half-open after DIAL', () => {
  const solo = server({ maxHalfOpen: 8 })
  for (let i = 0; i < 40; i++) {
    const from = address4(100 + i, 7)
    solo.feedFrom(from, push(200 + i, 0, concat(DIAL, text('get'))))
  }
  assert.ok(solo.endpoint.counter('sessions_refused') >= 30)
  assert.is(dials(solo), 0)
  // the half-open sessions end, and new ones are accepted
  solo.run(60_000)
  solo.take()
  solo.feed(push(900, 0, concat(DIAL, text('get'))))
  solo.confirm(900)
  assert.is(dials(solo), 1)
})

test('an upload to a silent target does not end for lack of data to acknowledge', () => {
  const solo = server()
  solo.feed(push(5, 0, concat(DIAL, text('a'))))
  solo.confirm(5)
  for (let i = 1; i < 400; i++) {
    solo.feed(push(5, i, text('b')))
    solo.run(1000)
  }
  assert.is(solo.only.data.length, 400)
  assert.is(solo.only.ending, undefined)
})

test.run()
