/**
 * Rendezvous messages and their effects (protocol.md 7.1, 8).
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RENDEZVOUS_OTHERS } from '../../host/engine/abi.ts'
import { ErrorCode, EventType } from '../../host/engine/core.ts'
import { decode } from '../../testkit/decode.ts'
import { type Address, address4, address6, addressKey } from '../../testkit/sim/address.ts'
import { type Output, Solo } from '../../testkit/sim/solo.ts'
import { control, fromHex, toHex, utf8, What } from '../../testkit/sim/wire.ts'
import { addresses, answer, hello, ID, isPing, LOCAL, others, party, pinged, punch, RENDEZVOUS, wire } from './party.ts'

const test = suite('core/rendezvous')

test('MUST 53, MUST 54: a server sends LISTEN at start and every keepalive seconds, with its address and id', () => {
  const solo = party('server')
  const [first, ...none] = others(solo.take())
  assert.is(none.length, 0)
  assert.is(toHex(first?.plain ?? new Uint8Array(0)), '000000000003000a0000039a0300096d7973657276696365')
  assert.is(addressKey(first?.peer ?? LOCAL), addressKey(RENDEZVOUS))
  solo.run(24_900)
  assert.is(others(solo.take()).length, 0)
  solo.run(200)
  assert.is(others(solo.take()).length, 1)
  solo.run(75_000)
  assert.ok(others(solo.take()).length >= 3)
})

test('MUST 53: an IPv6 address is encoded as type 1, 19 bytes', () => {
  const solo = party('client')
  solo.take()
  solo.endpoint.setRendezvous(address6(1, 12345), address6(2, 0x5555), utf8(''))
  solo.run(1)
  const [first] = solo.take()
  assert.is(toHex(first?.plain ?? new Uint8Array(0)), '00000000000401fd00000000000000000000000000000255550000')
})

test('MUST 54: a client sends CONNECT at start and every 4 s until it has a peer', () => {
  const solo = party('client')
  solo.run(20_000)
  const connects = others(solo.take())
  assert.equal(
    connects.map(({ ms, plain }) => [Math.round(ms / 4000), plain[5]]),
    [0, 1, 2, 3, 4, 5].map((i) => [i, What.CONNECT]),
  )
  // the rendezvous server answers with PUNCH, the service with PONG
  const service = address4(2, 33905)
  solo.feedFrom(RENDEZVOUS, punch(address4(2, 44783), service))
  answer(solo, service)
  for (let i = 0; i < 60; i++) {
    solo.run(1000)
    for (const { plain } of solo.take()) {
      assert.is(plain[5], What.PING)
      const pong = plain.slice()
      pong[5] = What.PONG
      solo.feedFrom(service, pong)
    }
  }
})

/** Messages of one kind, as the numbers of the hosts they were sent to. */
const sentTo = (outputs: readonly Output[], what: number): number[] =>
  others(outputs)
    .filter(({ conv, plain }) => conv === 0 && plain[5] === what)
    .map(({ peer }) => peer[11] ?? 0)

test('a client asks one more address of its rendezvous server each time, until it has a peer', () => {
  const solo = party('client')
  for (const number of [7, 8, 9]) assert.is(solo.endpoint.addRendezvous(address4(number, 12345)), 0)
  solo.take()
  solo.run(20_000)
  assert.equal(sentTo(solo.take(), What.CONNECT), [1, 7, 1, 8, 1, 9, 1, 7, 1, 8])
  const service = address4(2, 33905)
  // the service is known there only
  solo.feedFrom(address4(9, 12345), punch(address4(2, 44783), service))
  answer(solo, service)
  assert.is(addressKey(solo.endpoint.peer), addressKey(service))
  solo.take()
  solo.run(3000)
  assert.equal(sentTo(solo.take(), What.CONNECT), [])
})

test('a server is announced at one address of its rendezvous server, which a change pings at once', () => {
  const solo = party('server')
  assert.is(solo.endpoint.addRendezvous(address4(7, 12345)), 0)
  solo.run(60_000)
  assert.equal([...new Set(sentTo(solo.take(), What.LISTEN))], [1])
  assert.ok(solo.endpoint.core.counter('peer_silent_pings') > 0n)
  solo.endpoint.setRendezvous(address4(7, 12345), LOCAL, ID)
  solo.run(1)
  const sent = solo.take()
  assert.equal(sentTo(sent, What.LISTEN), [7])
  const [ping] = sent.filter(isPing)
  assert.ok(ping, 'it is not known whether that one answers')
  const pong = ping.plain.slice()
  pong[5] = What.PONG
  solo.feedFrom(address4(7, 12345), pong)
  assert.is(solo.endpoint.core.counter('peer_silent_pings'), 0n)
})

test('other addresses of the rendezvous server are limited, and replaced with it', () => {
  const solo = party('client')
  for (let i = 0; i < RENDEZVOUS_OTHERS; i++) assert.is(solo.endpoint.addRendezvous(address4(10 + i, 1)), 0)
  assert.is(solo.endpoint.addRendezvous(address4(99, 1)), ErrorCode.ARGUMENT)
  solo.endpoint.setRendezvous(RENDEZVOUS, LOCAL, ID)
  solo.take()
  solo.run(20_000)
  assert.equal([...new Set(sentTo(solo.take(), What.CONNECT))], [1])
})

test('a client whose peer stops responding sends CONNECT again and adopts the new address', () => {
  const solo = party('client')
  const [old, fresh] = [address4(2, 33905), address4(2, 40000)]
  solo.feedFrom(RENDEZVOUS, punch(address4(2, 44783), old))
  answer(solo, old)
  solo.run(40_000)
  assert.ok(solo.take().some(({ plain }) => plain[5] === What.CONNECT))
  solo.feedFrom(RENDEZVOUS, punch(address4(2, 44783), fresh))
  answer(solo, fresh)
  assert.is(addressKey(solo.endpoint.peer), addressKey(fresh))
})

test('MUST 48, MUST 57: the source of the first PONG becomes the peer; later PONGs do not change it', () => {
  const solo = party('client')
  assert.is(solo.open(), ErrorCode.NO_PEER)
  const service = address4(2, 33905)
  solo.feedFrom(RENDEZVOUS, punch(address4(2, 44783), service))
  // neither an unsolicited PONG nor one from another address counts
  solo.feedFrom(service, control(What.PONG, 5))
  answer(solo, service, address4(99, 1))
  const found = (): number => solo.events.filter(({ type }) => type === EventType.PEER_FOUND).length
  assert.is(found(), 0)
  solo.run(300)
  answer(solo, service)
  assert.is(found(), 1)
  assert.is(addressKey(solo.endpoint.peer), addressKey(service))
  solo.feedFrom(address4(99, 1), control(What.PONG, 5))
  assert.is(found(), 1)
  const handle = solo.open()
  assert.ok(handle > 0)
  const first = solo.take().find(({ conv }) => conv !== 0)
  assert.is(addressKey(first?.peer ?? LOCAL), addressKey(service))
})

test('a recorded PONG cannot set the peer: neither its value nor its source matches a PING', () => {
  const solo = party('client', { sealing: 'random' })
  const service = address4(2, 33905)
  solo.feedFrom(RENDEZVOUS, punch(address4(2, 44783), service))
  solo.run(1)
  const ping = others(solo.take()).find(isPing)
  assert.ok(ping)
  const pong = ping.plain.slice()
  pong[5] = What.PONG
  const recorded = solo.seal(pong)
  const attacker = address4(66, 6)
  solo.feedRaw(attacker, recorded)
  assert.is(solo.open(), ErrorCode.NO_PEER)
  answerLast(solo, pong, service)
  assert.is(addressKey(solo.endpoint.peer), addressKey(service))
  // the peer stops responding and is searched again: old PONGs are not accepted
  solo.run(40_000)
  for (const from of [attacker, service]) solo.feedFrom(from, pong)
  for (let value = 0; value < 200; value++) solo.feedFrom(attacker, control(What.PONG, value))
  assert.is(addressKey(solo.endpoint.peer), addressKey(service))
})

/** Delivers `pong` from `peer`. */
function answerLast(solo: Solo, pong: Uint8Array, peer: Address): void {
  solo.feedFrom(peer, pong)
  solo.take()
}

test('PING values are unpredictable', () => {
  const values = new Set<number>()
  const steps = new Set<number>()
  let last = 0
  const solo = new Solo({ role: 'client', sealing: 'random' })
  for (let i = 0; i < 100; i++) {
    solo.endpoint.core.calls.ping_peer(solo.endpoint.now)
    solo.endpoint.dirty = true
    solo.endpoint.drain()
    for (const { plain } of solo.take().filter(isPing)) {
      const value = new DataView(plain.buffer, plain.byteOffset).getUint32(6)
      values.add(value)
      steps.add((value - last) | 0)
      last = value
    }
  }
  assert.ok(values.size >= 100 && steps.size >= 100)
})

test('behind a hairpin NAT a PONG from the other address of the same PUNCH is accepted', () => {
  const solo = party('client')
  const [inside, outside] = [address4(2, 44783), address4(7, 33905)]
  solo.feedFrom(RENDEZVOUS, punch(inside, outside))
  answer(solo, outside, inside)
  assert.is(addressKey(solo.endpoint.peer), addressKey(inside))
})

test('while the peer is searched the source of a PING is pinged back, after the addresses of a PUNCH', () => {
  const solo = party('client')
  const source = address4(8, 1234)
  solo.feedFrom(source, control(What.PING, 77))
  solo.run(900)
  assert.not.ok(pinged(solo.take()).includes(addressKey(source)))
  solo.run(200)
  answer(solo, source)
  assert.is(addressKey(solo.endpoint.peer), addressKey(source))
  // with a peer PINGs are not returned
  solo.feedFrom(address4(8, 99), control(What.PING, 78))
  solo.run(5000)
  assert.not.ok(pinged(solo.take()).includes(addressKey(address4(8, 99))))
})

test('a server does not adopt the source of a PONG as peer', () => {
  const solo = party('server')
  solo.feedFrom(address4(99, 1), control(What.PONG, 5))
  assert.is(solo.endpoint.open(), ErrorCode.STATE)
  assert.not.ok(solo.events.some(({ type }) => type === EventType.PEER_FOUND))
})

for (const role of ['client', 'server'] as const) {
  test(`MUST 56: a ${role} pings exactly the usable addresses of a PUNCH`, () => {
    const four = (text: string, port = 1000): Address => {
      const record = address4(0, port)
      record.set(text.split('.').map(Number), 8)
      return record
    }
    const six = (hex: string, port = 1000): Address => {
      const record = address6(0, port)
      record.set(fromHex(hex), 8)
      return record
    }
    const usable = [
      four('10.1.2.3'),
      four('172.16.0.1'),
      four('192.168.255.1'),
      four('192.0.0.9'),
      four('8.8.8.8'),
      four('100.63.255.255'),
      four('100.128.0.0'),
      four('223.255.255.255'),
      four('9.255.255.255'),
      four('11.0.0.1', 1),
      four('126.1.1.1', 65535),
      four('128.0.0.1'),
      four('169.253.1.1'),
      four('1.0.0.1'),
      six('fd000000000000000000000000000001'),
      six('fec00000000000000000000000000001'),
      six('20010db8000000000000000000000001'),
    ]
    const unusable = [
      four('8.8.8.8', 0),
      four('0.0.0.0'),
      four('0.1.2.3'),
      four('127.0.0.1'),
      four('127.255.255.255'),
      four('169.254.1.1'),
      four('100.64.0.1'),
      four('100.127.255.255'),
      four('224.0.0.1'),
      four('239.255.255.255'),
      four('240.0.0.1'),
      four('255.255.255.255'),
      six('00000000000000000000000000000000'),
      six('00000000000000000000000000000001'),
      six('fe800000000000000000000000000001'),
      six('febf0000000000000000000000000001'),
      six('ff020000000000000000000000000001'),
      six('20010db8000000000000000000000001', 0),
      six('00000000000000000000ffff7f000001'),
      six('00000000000000000000ffff64400001'),
    ]
    for (const first of [...usable, ...unusable]) {
      const solo = party(role)
      solo.take()
      const second = four('203.0.113.7', 7777)
      solo.feedFrom(RENDEZVOUS, punch(first, second))
      solo.run(3000)
      const expected = usable.includes(first) ? [first, second] : [second]
      assert.equal(pinged(solo.take()), expected.map(addressKey).sort(), toHex(wire(first)))
    }
  })
}

test('punched addresses are pinged several times, because the NAT of the peer often drops the first ping', () => {
  const solo = party('server')
  solo.take()
  const [first, second] = [address4(40, 4000), address4(41, 4100)]
  solo.feedFrom(RENDEZVOUS, punch(first, second))
  solo.run(10_000)
  const pings = solo.take().filter(({ plain }) => plain[5] === What.PING)
  for (const target of [first, second]) {
    const count = pings.filter(({ peer }) => addressKey(peer) === addressKey(target)).length
    assert.ok(count >= 2 && count <= 10, `${count} pings`)
  }
  // the first pings are sent at once
  assert.ok(pings.slice(0, 2).every(({ ms }) => ms < 2))
})

test('an IPv4 address is pinged as v4-mapped from an IPv6 socket, and a v4-mapped one is reported as IPv4', () => {
  const solo = party('server')
  solo.take()
  const mapped = (host: number, port: number): Address => {
    const record = address6(0, port)
    record.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, host], 8)
    return record
  }
  solo.endpoint.setRendezvous(mapped(1, 12345), mapped(2, 2000), ID)
  solo.run(1)
  const [listen] = solo.take()
  assert.is(toHex((listen?.plain ?? new Uint8Array(0)).subarray(6, 13)), '00cb00710207d0')
  assert.is(addressKey(listen?.peer ?? LOCAL), addressKey(mapped(1, 12345)))
  const four = address4(0, 3000)
  four.set([203, 0, 113, 3], 8)
  solo.feedFrom(mapped(1, 12345), punch(four, mapped(4, 4000)))
  solo.run(3000)
  assert.equal(pinged(solo.take()), [mapped(3, 3000), mapped(4, 4000)].map(addressKey).sort())
  // a rendezvous server announces v4-mapped peers of a dual-stack socket as IPv4
  const rendezvous = new Solo({ role: 'neither' })
  rendezvous.feedFrom(mapped(20, 2000), hello(What.LISTEN, four, ID))
  rendezvous.feedFrom(mapped(30, 3000), hello(What.CONNECT, four, ID))
  const seen = rendezvous.take().map((output) => addresses(output)[1]?.addr)
  assert.equal(seen.sort(), ['203.0.113.20', '203.0.113.30'])
})

test("MUST 55: an endpoint of any mode sends each side of a rendezvous the other's addresses", () => {
  for (const role of ['neither', 'server', 'client'] as const) {
    const solo = new Solo({ role })
    solo.run(1)
    solo.take()
    const service = address4(20, 2000)
    const client = address4(30, 3000)
    solo.feedFrom(client, hello(What.CONNECT, address4(31, 3131), ID))
    assert.is(solo.take().length, 0)
    solo.feedFrom(service, hello(What.LISTEN, address4(21, 2121), ID))
    assert.is(solo.take().length, 0)
    solo.feedFrom(client, hello(What.CONNECT, address4(31, 3131), ID))
    const outputs = solo.take()
    assert.is(outputs.length, 2)
    const announced = (to: Address): string =>
      addresses(outputs.find(({ peer }) => addressKey(peer) === addressKey(to)))
        .map(({ addr, port }) => `${addr}:${port}`)
        .join()
    assert.is(announced(service), '10.0.0.31:3131,10.0.0.30:3000')
    assert.is(announced(client), '10.0.0.21:2121,10.0.0.20:2000')
  }
})

test('MUST 51: truncated LISTEN, CONNECT and PUNCH are dropped silently; a missing id is the empty id', () => {
  const solo = new Solo({ role: 'neither' })
  for (const bytes of [hello(What.LISTEN, LOCAL, ID), hello(What.CONNECT, LOCAL, ID), punch(LOCAL, RENDEZVOUS)]) {
    const body = bytes[5] === What.PUNCH ? bytes.length : 13
    for (let length = 6; length < body; length++) solo.feed(bytes.subarray(0, length))
  }
  solo.run(5000)
  assert.is(solo.take().length, 0)
  solo.feed(hello(What.LISTEN, LOCAL, ID).subarray(0, 13))
  solo.feed(hello(What.CONNECT, LOCAL, ID).subarray(0, 16))
  assert.is(solo.take().length, 2)
})

test('LISTEN and CONNECT contain the configured address and id', () => {
  for (const [role, name] of [
    ['server', 'LISTEN'],
    ['client', 'CONNECT'],
  ] as const) {
    const solo = party(role, { sealing: 'random' })
    const [first] = solo.take()
    const decoded = decode(first?.plain ?? new Uint8Array(0))
    assert.ok('session0' in decoded)
    const { pad, ...rest } = decoded
    assert.ok(pad <= 15)
    assert.equal(rest, {
      session0: name,
      addr: { type: 'inet', addr: '10.0.0.3', port: 39427 },
      service_id: 'myservice',
    })
  }
})

test.run()
