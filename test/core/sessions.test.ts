/**
 * Sessions and control messages: which datagrams open a session, are answered with RESET, or are ignored
 * (protocol.md 6.3, 6.6, 6.8, 7).
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Core, ErrorCode, EventType, Info, instantiate, SessionState } from '../../host/engine/core.ts'
import type { FullSegment } from '../../testkit/decode.ts'
import { type Address, address4, address6, addressKey } from '../../testkit/sim/address.ts'
import { defaultConfig } from '../../testkit/sim/endpoint.ts'
import { Solo, summary, TESTER } from '../../testkit/sim/solo.ts'
import {
  ack,
  Cmd,
  concat,
  control,
  DIAL,
  EOF,
  fromHex,
  KEEPALIVE,
  MessageType,
  message,
  push,
  segment,
  toHex,
  utf8,
  What,
} from '../../testkit/sim/wire.ts'

const SETTLE_MS = 50

const test = suite('core/sessions')

test('control messages that are too short, or of an unknown kind, are counted as malformed', () => {
  const solo = new Solo({ role: 'server' })
  for (let length = 4; length < 10; length++) solo.feed(control(What.PING, 1).subarray(0, length))
  assert.is(solo.endpoint.counter('drop_malformed'), 6)
  solo.feed(control(99, 1))
  assert.is(solo.endpoint.counter('drop_malformed'), 7)
  solo.feed(control(What.PING, 1))
  assert.is(solo.endpoint.counter('drop_malformed'), 7)
})

for (const role of ['server', 'client', 'neither'] as const) {
  test(`MUST 50: PING is answered with the same four bytes, to its source (${role})`, () => {
    const solo = new Solo({ role })
    solo.run(1)
    solo.take()
    for (const peer of [TESTER, address6(3, 1234), address4(77, 65535)]) {
      for (const tstamp of [0, 1, 0x80000000, 0xffffffff, 0xdeadbeef]) {
        solo.feedFrom(peer, concat(control(What.PING, tstamp), new Uint8Array([7, 7, 7])))
        const [pong, more] = solo.take()
        assert.is(more, undefined)
        assert.is(toHex(pong?.plain ?? new Uint8Array(0)), toHex(control(What.PONG, tstamp)))
        assert.is(addressKey(pong?.peer ?? TESTER), addressKey(peer))
      }
    }
  })

  test(`MUST 51: short and unknown control messages get no answer (${role})`, () => {
    const solo = new Solo({ role })
    solo.run(1)
    solo.take()
    const all: Uint8Array[] = []
    for (let what = 0; what < 20; what++) {
      for (let length = 4; length < 10; length++) all.push(control(what, 0xffffffff).subarray(0, length))
      if (what > 5) all.push(control(what, 1), concat(control(what, 1), new Uint8Array(100)))
    }
    all.push(control(0x0100, 5), control(0xffff, 5))
    solo.feed(...all)
    solo.run(1000)
    assert.is(solo.take().length, 0)
    assert.is(solo.endpoint.sessions, 0)
  })
}

test('MUST 41: a server opens a session on the first datagram of an unknown conv, even of 4 bytes', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(fromHex('00000001'))
  solo.feed(fromHex('00000002 ffffffff'))
  solo.feed(concat(fromHex('00000003'), new Uint8Array(60).fill(0xee)))
  assert.is(solo.endpoint.sessions, 3)
  assert.is(solo.take().length, 0)
  // the sessions are usable
  solo.feed(push(1, 0, concat(DIAL, message(MessageType.PUSH, utf8('x')))))
  assert.equal(solo.only.data, utf8('x'))
})

test('a server drops sessions that receive no DIAL', () => {
  const solo = new Solo({ role: 'server', config: { timeWait: 5 } })
  const base = solo.endpoint.counter('memory_used')
  for (let conv = 1; conv <= 30; conv++) solo.feed(new Uint8Array([0, 0, 0, conv]))
  assert.is(solo.endpoint.sessions, 30)
  solo.run(40_000)
  assert.is(solo.endpoint.sessions, 0)
  assert.ok(solo.endpoint.counter('memory_used') - base < 4096)
})

for (const role of ['client', 'neither'] as const) {
  test(`MUST 42: a ${role === 'client' ? 'client' : 'rendezvous server'} answers every unknown conv with RESET`, () => {
    const solo = new Solo({ role })
    solo.run(1)
    solo.take()
    for (let i = 0; i < 5; i++) solo.feed(push(0xabcdef01, 0, DIAL))
    solo.feed(fromHex('deadbeef'))
    const texts = solo.take().map(({ plain }) => toHex(plain))
    assert.equal(texts, [...Array<string>(5).fill('000000000002abcdef01'), '000000000002deadbeef'])
    assert.is(solo.endpoint.sessions, 0)
  })
}

test('a session that fails before DIAL was polled reports only ABORT, an unconfirmed one reports nothing', () => {
  const broken = new Solo({ role: 'server' })
  // a second DIAL is a protocol error
  broken.feed(push(7, 0, concat(DIAL, DIAL)))
  assert.equal(
    broken.events.map(({ type, arg }) => [type, arg]),
    [[EventType.ABORT, 5]],
  )
  assert.not(broken.only.dialled)
  const unconfirmed = new Solo({ role: 'server', sealing: 'random' })
  unconfirmed.feed(push(7, 0, DIAL))
  unconfirmed.run(150_000)
  assert.ok(unconfirmed.events.every(({ handle }) => handle === 0))
  assert.is(unconfirmed.endpoint.counter('sessions_opened'), 1)
  assert.is(unconfirmed.endpoint.counter('sessions_aborted'), 0)
})

test('MUST 43: family, address, port and scope distinguish peers', () => {
  const solo = new Solo({ role: 'server' })
  const peers: Address[] = [
    address4(1, 1000),
    address4(2, 1000),
    address4(1, 1001),
    address6(1, 1000),
    address6(1, 1000, 2),
    address6(1, 1000, 3),
  ]
  for (const [i, peer] of peers.entries()) {
    solo.feedFrom(peer, push(7, 0, concat(DIAL, message(MessageType.PUSH, new Uint8Array([i])))))
  }
  assert.equal(
    [...solo.streams.values()].map(({ data }) => data[0]),
    [0, 1, 2, 3, 4, 5],
  )
  solo.run(SETTLE_MS)
  const answered = new Set(solo.take().map(({ peer }) => addressKey(peer)))
  assert.equal([...answered].sort(), peers.map(addressKey).sort())
  // RESET ends only the session of its own peer
  solo.feedFrom(address6(1, 1000, 2), control(What.RESET, 7))
  const endings = [...solo.streams.values()].map(({ ending }) => ending)
  assert.equal(endings, [undefined, undefined, undefined, undefined, 'aborted', undefined])
})

test('MUST 44: a client never uses conv 0 and counts up from a random start', () => {
  const calls = instantiate()
  const core = new Core(calls)
  core.u8.fill(0xff, core.entropyPtr, core.entropyPtr + 4096)
  calls.entropy_filled(4096)
  core.configure(defaultConfig('client'), 0)
  core.refresh()
  core.u8.set(TESTER, calls.peer_ptr())
  calls.set_peer(0)
  const convs: number[] = []
  for (let i = 0; i < 4; i++) {
    const handle = calls.stream_open(0)
    assert.ok(handle > 0)
    for (let slot = 0; slot < calls.session_slots(); slot++) {
      if (calls.session_info(slot, 0) === handle) convs.push(core.info().getUint32(0, true))
    }
  }
  assert.equal(convs, [1, 2, 3, 4])
  const first = (seed: number): number => {
    const solo = new Solo({ role: 'client', seed })
    return solo.endpoint.convOf(solo.open())
  }
  assert.ok(first(1) !== first(2))
})

test('MUST 45: RESET of an unknown session is ignored', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(control(What.RESET, 0x1234), control(What.RESET, 0))
  solo.run(1000)
  assert.is(solo.take().length, 0)
  assert.is(solo.endpoint.sessions, 0)
})

test('MUST 45: RESET of a session in TIME_WAIT is ignored and not answered', () => {
  const solo = new Solo({ role: 'server', config: { timeWait: 10 } })
  solo.feed(push(5, 0, DIAL))
  solo.feed(control(What.RESET, 5))
  assert.is(solo.only.ending, 'aborted')
  solo.take()
  solo.run(9000)
  solo.feed(control(What.RESET, 5))
  assert.is(solo.take().length, 0)
  solo.run(1500)
  assert.is(solo.endpoint.sessions, 0)
})

test('MUST 46: a session in TIME_WAIT answers with RESET at once, then at most once a second', () => {
  const solo = new Solo({ role: 'server', config: { timeWait: 10 } })
  solo.feed(push(5, 0, DIAL))
  solo.run(SETTLE_MS)
  solo.feed(control(What.RESET, 5))
  solo.take()
  const times: number[] = []
  const start = solo.ms
  for (let i = 0; i < 40; i++) {
    solo.feed(push(5, 1, KEEPALIVE))
    for (const output of solo.take()) {
      assert.is(toHex(output.plain), toHex(control(What.RESET, 5)))
      times.push(output.ms - start)
    }
    solo.run(100)
  }
  assert.equal(times, [0, 1000, 2000, 3000])
  assert.is(solo.endpoint.counter('resets_sent'), 4)
})

test('every call with a stale handle returns E_HANDLE, also after its slot was reused', () => {
  const solo = new Solo({ role: 'client', config: { timeWait: 5 } })
  const old = solo.open()
  solo.feed(control(What.RESET, solo.endpoint.convOf(old)))
  const { calls } = solo.endpoint.core
  const now = solo.endpoint.now
  const all = (handle: number): number[] => [
    calls.stream_connected(handle, 1, now),
    calls.stream_reserve(handle, 100),
    calls.stream_commit(handle, 0, now),
    calls.stream_peek(handle),
    calls.stream_consume(handle, 1, now),
    calls.stream_shutdown(handle, now),
    calls.stream_abort(handle, now),
  ]
  const gone = Array<number>(7).fill(ErrorCode.HANDLE)
  assert.equal(all(old), gone)
  solo.run(10_000)
  for (let i = 0; i < 200; i++) assert.ok(solo.open() !== old)
  assert.equal(all(old), gone)
  for (const invalid of [0, -1, 1, 0x7fffffff, 0x80000000 | 0, 0xffff]) assert.equal(all(invalid), gone, `${invalid}`)
})

test('calls before configure, with invalid arguments or in the wrong mode are rejected', () => {
  const calls = instantiate()
  for (const result of [
    calls.stream_open(0),
    calls.handle_datagrams(0, 0),
    calls.handle_timeout(0),
    calls.set_peer(0),
  ]) {
    assert.is(result, ErrorCode.STATE)
  }
  assert.is(calls.next_timeout(0), -1)
  const server = new Solo({ role: 'server' })
  assert.is(server.endpoint.core.calls.stream_open(0), ErrorCode.STATE)
  server.feed(push(5, 0, DIAL))
  const { handle } = server.only
  const now = server.endpoint.now
  const { calls: engine } = server.endpoint.core
  assert.ok(engine.stream_commit(handle, 5000, now) < 0, 'more was committed than reserved')
  assert.ok(engine.stream_consume(handle, 1_000_000, now) <= 0)
  assert.is(server.only.ending, undefined)
})

test('session_info reports conv, peer, state and bytes', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(0xfeedface, 0, concat(DIAL, message(MessageType.PUSH, utf8('12345')))))
  solo.write(solo.only.handle, utf8('123'))
  solo.endpoint.drain()
  const [info, more] = solo.endpoint.list()
  assert.is(more, undefined)
  assert.is(info?.handle, solo.only.handle)
  assert.is(info?.conv, 0xfeedface)
  assert.is(info?.state, SessionState.ESTABLISHED)
  assert.is(info?.tcpRead, 3)
  assert.is(info?.tcpWritten, 5)
  assert.is(info?.waitsnd, 1)
  assert.equal(info?.address, TESTER)
  solo.feed(control(What.RESET, 0xfeedface))
  const [ended] = solo.endpoint.list()
  assert.is(ended?.state, SessionState.TIME_WAIT)
  assert.is(ended?.rto, 0xffffffff)
  assert.equal(ended?.address, TESTER)
})

test('sessions that end in one batch are all freed, and one that goes on with them is not', () => {
  const solo = new Solo({ role: 'server', config: { maxSessions: 20 } })
  const convs = Array.from({ length: 19 }, (_, i) => 100 + i)
  solo.feed(push(5, 0, DIAL))
  const { handle } = solo.only
  for (let round = 1; round <= 5; round++) {
    solo.feed(...convs.map((conv) => push(1000 * round + conv, 0, DIAL)))
    const resets = convs.map((conv) => control(What.RESET, 1000 * round + conv))
    solo.feed(...resets.slice(0, 10), push(5, round, message(MessageType.PUSH, utf8('x'))), ...resets.slice(10))
    assert.equal(
      solo.endpoint.list().flatMap(({ conv, state }) => (state === SessionState.ESTABLISHED ? [conv] : [])),
      [5],
    )
  }
  assert.is(solo.endpoint.counter('sessions_refused'), 0, 'an ended one takes the place of a new one')
  assert.is(solo.stream(handle).data.length, 5)
})

test('session_info reports times, round trip, windows, retransmissions and rate', () => {
  const solo = new Solo({ role: 'server', config: { sndwnd: 100 } })
  const { core } = solo.endpoint
  const word = (field: Exclude<keyof typeof Info, 'BYTES'>): number => {
    core.calls.refresh_gauges(solo.endpoint.now)
    assert.ok(core.calls.session_info(0, solo.endpoint.now) > 0)
    return core.info().getUint32(Info[field], true)
  }
  solo.feed(push(5, 0, DIAL, { wnd: 77 }))
  solo.run(3000)
  assert.equal([word('age'), word('idle'), word('retransmissions')], [3, 3, 0])
  solo.take()
  solo.write(solo.only.handle, new Uint8Array(2000))
  solo.endpoint.drain()
  solo.run(40)
  const sent = (): FullSegment[] => solo.takeSegments(5).filter(({ cmd }) => cmd === 'PUSH')
  const [lost, second] = sent()
  assert.ok(lost && second)
  solo.feed(ack(5, second.sn, second.ts, 0, { wnd: 77 }))
  // the first sample, RFC 6298: RTTVAR = R / 2, RTO = SRTT + 4 RTTVAR
  assert.equal([word('srtt'), word('rttvar'), word('rto')], [320, 160, 960])
  assert.equal([word('sndwnd'), word('rmtWnd'), word('idle')], [100, 77, 0])
  assert.ok(word('cwnd') > 0 && word('cwnd') <= 100)
  solo.run(200)
  const again = sent()
  assert.ok(again.length > 0 && again.every(({ sn }) => sn === lost.sn))
  assert.is(word('retransmissions'), again.length)
  solo.feed(ack(5, lost.sn, again[0]?.ts ?? 0, 2, { wnd: 78 }))
  assert.is(word('rmtWnd'), 78)
  assert.ok(word('pace') > 0)
})

test('session gauges follow the states', () => {
  const solo = new Solo({ role: 'client', config: { timeWait: 5, linger: 5 } })
  const gauges = (): number[] =>
    (['sessions_connect', 'sessions_established', 'sessions_linger', 'sessions_time_wait'] as const).map((name) =>
      solo.endpoint.counter(name),
    )
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  assert.equal(gauges(), [1, 0, 0, 0])
  solo.feed(segment({ conv, cmd: Cmd.ACK, una: 1 }))
  assert.equal(gauges(), [0, 1, 0, 0])
  solo.endpoint.shutdown(handle)
  solo.endpoint.drain()
  solo.feed(push(conv, 0, EOF, { una: 2 }))
  assert.equal(gauges(), [0, 0, 1, 0])
  solo.run(11_000)
  assert.ok(gauges()[2] === 0)
  solo.run(11_000)
  assert.equal(gauges(), [0, 0, 0, 0])
})

test('PONG is reported with its round-trip time', () => {
  const solo = new Solo({ role: 'client' })
  solo.run(1)
  const [ping] = solo.take()
  assert.is(ping && summary(ping), 'PING')
  solo.run(30)
  const pong = (ping?.plain ?? new Uint8Array(10)).slice()
  pong[5] = What.PONG
  solo.feed(pong)
  const event = solo.events.find(({ type }) => type === EventType.PONG)
  assert.ok(event && event.arg >= 30 * 8 && event.arg <= 32 * 8, `${event?.arg}`)
})

test('MUST 59: RESOLVE is reported after T seconds of silence; authentic datagrams postpone it', () => {
  // keepalive 25: T = 79 s
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const resolves = (): number => solo.events.filter(({ type }) => type === EventType.RESOLVE).length
  solo.run(78_000)
  assert.is(resolves(), 0)
  solo.run(2000)
  assert.is(resolves(), 1)
  solo.run(79_000)
  assert.is(resolves(), 2)
  const replayed = solo.seal(control(What.PING, 1))
  for (let i = 0; i < 10; i++) {
    solo.feedRaw(TESTER, i === 0 ? replayed : solo.seal(control(What.PING, i)))
    solo.run(60_000)
  }
  assert.is(resolves(), 2)
  // garbage and replays may come from an attacker who tries to keep the endpoint at a dead address
  for (let i = 0; i < 10; i++) {
    solo.feedRaw(TESTER, new Uint8Array(100), replayed)
    solo.run(60_000)
  }
  assert.ok(resolves() > 5, `${resolves()}`)
})

test('MUST 59: a client whose ping is not answered reports RESOLVE within T, too', () => {
  const solo = new Solo({ role: 'client' })
  solo.run(79_000)
  assert.ok(solo.events.some(({ type }) => type === EventType.RESOLVE))
})

test('ping_peer sends a ping at once and does not change the keepalive schedule', () => {
  const solo = new Solo({ role: 'client' })
  const pings = () => solo.take().filter(({ plain }) => toHex(plain).startsWith(`00000000000${What.PING}`))
  const { calls } = solo.endpoint.core
  solo.run(1)
  const [own] = pings()
  assert.ok(own)
  solo.feed(control(What.PONG, 0))
  assert.is(calls.ping_peer(solo.endpoint.now), 0)
  solo.endpoint.dirty = true
  solo.endpoint.drain()
  const [probe, more] = pings()
  assert.is(more, undefined)
  assert.is(addressKey(probe?.peer ?? address4(1, 1)), addressKey(TESTER))
  solo.events.length = 0
  solo.run(20)
  solo.feed(
    concat(
      (probe?.plain ?? new Uint8Array(0)).slice(0, 5),
      new Uint8Array([What.PONG]),
      probe?.plain.slice(6) ?? new Uint8Array(0),
    ),
  )
  const pong = solo.events.find(({ type }) => type === EventType.PONG)
  assert.is(pong?.arg, 20 * 8)
  solo.run(24_000)
  assert.is(pings().length, 0)
  solo.run(8_000)
  assert.is(pings().length, 1)
  const server = new Solo({ role: 'server' })
  assert.is(server.endpoint.core.calls.ping_peer(server.endpoint.now), ErrorCode.STATE)
  const peerless = new Solo({ role: 'client', peer: false })
  assert.is(peerless.endpoint.core.calls.ping_peer(peerless.endpoint.now), ErrorCode.NO_PEER)
})

test('new sessions are refused at the half-open limit; a DIAL frees a place', () => {
  const solo = new Solo({ role: 'server', config: { maxHalfOpen: 3 } })
  for (let conv = 1; conv <= 5; conv++) solo.feed(push(conv, 0, new Uint8Array([0])))
  assert.is(solo.endpoint.sessions, 3)
  assert.ok(solo.endpoint.counter('sessions_refused') >= 2)
  solo.feed(push(1, 1, fromHex('00 0004')))
  assert.ok(solo.only.dialled)
  solo.feed(push(6, 0, DIAL))
  assert.is(solo.endpoint.sessions, 4)
})

test.run()
