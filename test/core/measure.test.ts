/** What a host measures a path with: numbered PINGs of any size, an echo without a connection, the addresses of a PUNCH. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AbortReason, ECHO_BYTES, ErrorCode, EventType, Pong } from '../../host/engine/core.ts'
import { type Address, address4, address6, addressKey } from '../../testkit/sim/address.ts'
import { type Output, Solo, TESTER } from '../../testkit/sim/solo.ts'
import { ack, concat, control, KEEPALIVE, push, What } from '../../testkit/sim/wire.ts'
import { isPing, party, punch, RENDEZVOUS } from './party.ts'

const test = suite('core/measure')

const SEALED = 40
const CHUNK = 200
const HEADER = 24

/** Sends a PING of the host. @returns its number or an error */
function ping(solo: Solo, to: Address, bytes: number): number {
  const { core, now } = solo.endpoint
  const at = core.calls.peer_ptr() >>> 0
  const before = core.u8.slice(at, at + 24)
  core.u8.set(to, at)
  const number = core.calls.ping_address(bytes, now)
  core.refresh()
  core.u8.set(before, at)
  solo.endpoint.dirty = true
  solo.endpoint.drain()
  return number
}

/** The answers since the last call: number, round trip in ms, address. */
function pongs(solo: Solo): [number, number, string][] {
  const { core } = solo.endpoint
  const count = core.calls.poll_pongs()
  const word = core.calls.pongs_ptr() >>> 2
  return Array.from({ length: count }, (_, i) => {
    const at = word + i * Pong.WORDS
    const address = core.u8.slice(4 * (at + Pong.address), 4 * (at + Pong.address) + 24)
    return [core.u32[at + Pong.number] ?? -1, (core.u32[at + Pong.rtt] ?? -1) / 8, addressKey(address)]
  })
}

function pong({ plain }: Output): Uint8Array {
  const bytes = plain.slice(0, 10)
  bytes[5] = What.PONG
  return bytes
}

test('pings are numbered, as long as asked for, and each answer is reported with its sender', () => {
  const solo = new Solo({ role: 'client', config: { keepalive: 0 }, sealing: 'random' })
  solo.take()
  const other = address4(9, 9)
  assert.is(ping(solo, other, 0), 0)
  assert.is(ping(solo, TESTER, 1200), 1)
  const [small, large] = solo.take()
  assert.ok(small && large && isPing(small) && isPing(large))
  assert.is(addressKey(small.peer), addressKey(other))
  assert.ok(small.plain.length >= 10 && small.plain.length <= 25, 'no padding but that of every message')
  assert.is(large.bytes.length, 1200 + SEALED)
  solo.run(30)
  solo.feedFrom(address4(8, 8), pong(large))
  solo.feedFrom(address4(8, 8), pong(large), control(What.PONG, 5))
  solo.feedFrom(other, pong(small))
  const elsewhere = addressKey(address4(8, 8))
  assert.equal(pongs(solo), [
    [1, 30, elsewhere],
    [1, 30, elsewhere],
    [0, 30, addressKey(other)],
  ])
  assert.equal(pongs(solo), [], 'each is returned once')
})

test('a ping that is no datagram, or has no receiver, is refused; the oldest of many is forgotten', () => {
  const solo = new Solo({ role: 'client', config: { keepalive: 0, kcpMtu: 1500 - SEALED }, sealing: 'random' })
  assert.is(ping(solo, TESTER, 1500 - SEALED + 1), ErrorCode.ARGUMENT)
  assert.is(ping(solo, TESTER, 0xffff_ffff), ErrorCode.ARGUMENT)
  assert.is(ping(solo, new Uint8Array(24), 0), ErrorCode.ARGUMENT)
  solo.take()
  for (let i = 0; i < 257; i++) assert.is(ping(solo, TESTER, i === 0 ? 1500 - SEALED : 0), i)
  const sent = solo.take()
  for (const output of sent.slice(0, 2)) solo.feed(pong(output))
  assert.equal(
    pongs(solo).map(([number]) => number),
    [1],
  )
})

test('the addresses of a PUNCH are reported, but not those that are of no use', () => {
  const solo = party('client')
  const [first, second] = [address4(7, 700), address6(1, 600)]
  const seen = (): string[] => {
    const { core } = solo.endpoint
    const at = core.calls.punched_ptr() >>> 0
    const records = [core.u8.slice(at, at + 24), core.u8.slice(at + 24, at + 48)]
    return records.map((record) => (record[0] === 0 ? 'none' : addressKey(record)))
  }
  const reported = (): number => solo.events.filter(({ type }) => type === EventType.PUNCHED).length
  solo.feedFrom(RENDEZVOUS, punch(first, second))
  assert.is(reported(), 1)
  assert.equal(seen(), [addressKey(first), addressKey(second)])
  solo.feedFrom(RENDEZVOUS, punch(address4(7, 0), first))
  assert.is(reported(), 2)
  assert.equal(seen(), ['none', addressKey(first)])
})

/** Opens a session that asks for an echo. */
function openEcho(solo: Solo, bytes: number): number {
  const { endpoint } = solo
  const handle = endpoint.core.calls.echo_open(bytes, endpoint.now)
  endpoint.dirty = true
  if (handle > 0) solo.stream(handle)
  endpoint.drain()
  return handle
}

const echoes = (solo: Solo): [number, number][] =>
  solo.events.filter(({ type }) => type === EventType.ECHO).map(({ arg, arg2 }) => [arg, arg2])

test('an echo is asked for in short segments, of which the first follows the others', () => {
  const solo = new Solo({ role: 'client', config: { keepalive: 0 } })
  const handle = openEcho(solo, 1600)
  const sent = solo.take()
  assert.ok(sent.every(({ bytes }) => bytes.length <= CHUNK + HEADER))
  const sns = sent.flatMap(({ segments }) => segments.map(({ sn }) => sn))
  assert.equal(sns, [1, 2, 3, 4, 5, 6, 7])
  const conv = sent[0]?.conv ?? 0
  solo.run(20)
  const acks = sent.flatMap(({ segments }) => segments.map(({ sn, ts }) => ack(conv, sn, ts, 0)))
  solo.feed(...acks)
  solo.run(20)
  const [first] = solo.takeSegments(conv)
  assert.is(first?.sn, 0)
  const question = solo.streamSent(conv)
  assert.equal([...question], [...concat(...new Array<Uint8Array>(400).fill(KEEPALIVE))], 'no DIAL')
  assert.equal(echoes(solo), [])
  solo.feed(push(conv, 0, KEEPALIVE, { una: 8 }))
  assert.equal(echoes(solo), [], 'a question of the server is no echo')
  solo.feed(push(conv, 1, new Uint8Array(1300), { una: 8 }), push(conv, 3, new Uint8Array(4), { una: 8 }))
  solo.feed(push(conv, 2, new Uint8Array(296), { una: 8 }))
  assert.equal(echoes(solo), [
    [1324, 1300],
    [1324, 1600],
  ])
  assert.is(solo.stream(handle).ending, undefined)
})

test('an echo that is no number of KEEPALIVEs, or too long, is refused; one needs a peer and a client', () => {
  const solo = new Solo({ role: 'client' })
  for (const bytes of [0, 4, 10, ECHO_BYTES + 4, 0xffff_fffc]) assert.is(openEcho(solo, bytes), ErrorCode.ARGUMENT)
  assert.ok(openEcho(solo, ECHO_BYTES) > 0)
  assert.is(openEcho(new Solo({ role: 'client', peer: false }), 8), ErrorCode.NO_PEER)
  assert.is(openEcho(new Solo({ role: 'server' }), 8), ErrorCode.STATE)
})

/** Exchanges datagrams until both are silent. */
function exchange(client: Solo, server: Solo): void {
  for (let i = 0; i < 50; i++) {
    for (const { plain } of client.take()) server.feed(plain)
    for (const { plain } of server.take()) client.feed(plain)
    for (const solo of [client, server]) solo.run(5)
  }
}

test('a server returns the echo in full datagrams and dials nothing; reset, it forgets the session in silence', () => {
  const client = new Solo({ role: 'client', config: { keepalive: 0 } })
  const server = new Solo({ role: 'server' })
  const handle = openEcho(client, 1600)
  exchange(client, server)
  const full = server.endpoint.config.kcpMtu
  assert.equal(echoes(client).at(-1), [full, 1600])
  assert.equal(server.events, [])
  const { core, now } = client.endpoint
  assert.is(core.calls.stream_reset(handle, now), 0)
  client.endpoint.dirty = true
  exchange(client, server)
  assert.equal(server.events, [], 'neither a connection nor its end')
  assert.is(server.endpoint.core.counter('sessions_aborted'), 0n)
})

test('an endpoint that serves nothing refuses the echo', () => {
  const client = new Solo({ role: 'client', config: { keepalive: 0 } })
  const handle = openEcho(client, 8)
  exchange(client, new Solo({ role: 'client', config: { keepalive: 0 }, seed: 2 }))
  assert.is(client.stream(handle).reason, AbortReason.RESET)
})

test.run()
