/** The probing socket: what is sent from it, what an answer there means, and the move to its port. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AbortReason, ErrorCode, EventType } from '../../host/engine/core.ts'
import { address4, addressKey } from '../../testkit/sim/address.ts'
import { type Output, Solo, TESTER } from '../../testkit/sim/solo.ts'
import { ack, control, utf8, What } from '../../testkit/sim/wire.ts'
import { addresses, hello, ID, isPing, LOCAL, party, punch, RENDEZVOUS } from './party.ts'

const test = suite('core/probe')

const PORT = 41_234

function probe(solo: Solo): Output[] {
  solo.take()
  const { endpoint } = solo
  assert.is(endpoint.core.calls.probe_path(PORT, endpoint.now), 0)
  endpoint.dirty = true
  endpoint.drain()
  return solo.take()
}

function pong({ plain }: Output): Uint8Array {
  const bytes = plain.slice()
  bytes[5] = What.PONG
  return bytes
}

const probed = (solo: Solo): number => solo.events.filter(({ type }) => type === EventType.PROBED).length
const silent = (solo: Solo): boolean => solo.endpoint.core.counter('peer_silent_pings') > 0n

/** A client whose peer does not answer. */
function silentClient(): Solo {
  const solo = new Solo({ role: 'client' })
  solo.run(10_000)
  assert.ok(silent(solo))
  return solo
}

test('one ping goes out from each socket; an answer at the probing socket does not end the silence', () => {
  const solo = silentClient()
  const pings = probe(solo)
  assert.equal(
    pings.map((output) => [isPing(output), addressKey(output.peer), output.probe]),
    [
      [true, addressKey(TESTER), false],
      [true, addressKey(TESTER), true],
    ],
  )
  const [old, fresh] = pings
  assert.ok(old && fresh)
  solo.feedProbe(TESTER, control(What.PONG, 1))
  solo.feedProbe(address4(66, 6), pong(fresh))
  assert.is(probed(solo), 0, 'only an answer to a ping counts')
  solo.feedProbe(TESTER, pong(fresh))
  assert.is(probed(solo), 1)
  assert.ok(silent(solo))
  solo.feedProbe(TESTER, pong(fresh))
  assert.is(probed(solo), 1, 'a ping is answered once')
  solo.feed(pong(old))
  assert.is(probed(solo), 1)
  assert.not.ok(silent(solo))
})

test('what arrives at the probing socket is answered from there', () => {
  const solo = silentClient()
  solo.take()
  solo.feedProbe(TESTER, control(What.PING, 7))
  solo.feed(control(What.PING, 8))
  assert.equal(
    solo.take().map(({ plain, probe: isProbe }) => [plain[9], isProbe]),
    [
      [7, true],
      [8, false],
    ],
  )
})

test('without an address to ping there is nothing to probe', () => {
  for (const options of [{ role: 'server' }, { role: 'client', peer: false }] as const) {
    const { endpoint } = new Solo(options)
    assert.is(endpoint.core.calls.probe_path(PORT, endpoint.now), ErrorCode.NO_PEER)
  }
})

test('a move pings the peer at once, ends what is still opening, and sends something for every other session', () => {
  const solo = new Solo({ role: 'client' })
  const established = solo.open()
  const first = solo.take().find(({ conv }) => conv !== 0)
  assert.ok(first)
  solo.feed(ack(first.conv, 0, first.segments[0]?.ts ?? 0, 1))
  solo.run(9000)
  const opening = solo.open()
  solo.take()
  const { endpoint } = solo
  assert.is(endpoint.core.calls.path_moved(endpoint.now), 0)
  endpoint.dirty = true
  solo.run(1)
  assert.is(solo.stream(opening).ending, 'aborted')
  assert.is(solo.stream(opening).reason, AbortReason.MOVED)
  assert.is(solo.stream(established).ending, undefined)
  const sent = solo.take()
  assert.ok(sent.some(isPing))
  assert.ok(sent.some(({ conv }) => conv === first.conv))
  assert.ok(solo.write(established, utf8('on')) > 0)
})

test('a rendezvous client announces the port of the probing socket, and opens its NAT for it', () => {
  const solo = party('client')
  const service = address4(2, 33905)
  solo.feedFrom(RENDEZVOUS, punch(address4(2, 44783), service))
  solo.run(1)
  const ping = solo.take().find((output) => isPing(output) && addressKey(output.peer) === addressKey(service))
  assert.ok(ping)
  solo.feedFrom(service, pong(ping))
  solo.run(40_000)
  assert.ok(silent(solo))
  const others = [7, 8].map((number) => address4(number, 12345))
  for (const other of others) assert.is(solo.endpoint.addRendezvous(other), 0)
  const connects = probe(solo).filter(({ conv, plain }) => conv === 0 && plain[5] === What.CONNECT)
  assert.equal(
    connects.map((output) => [addressKey(output.peer), output.probe]),
    [RENDEZVOUS, ...others].map((address) => [addressKey(address), true]),
    'the service may be known at any of them',
  )
  const [connect] = connects
  assert.ok(connect?.probe)
  assert.is(addressKey(connect.peer), addressKey(RENDEZVOUS))
  assert.equal(connect.plain, hello(What.CONNECT, address4(3, PORT), ID))
  assert.ok(addresses(connect))
  solo.feedProbe(RENDEZVOUS, punch(address4(2, 44783), service))
  solo.run(1)
  const punched = solo.take().filter((output) => isPing(output) && output.probe)
  assert.ok(punched.some(({ peer }) => addressKey(peer) === addressKey(service)))
  for (const each of punched) if (addressKey(each.peer) === addressKey(service)) solo.feedProbe(service, pong(each))
  assert.is(probed(solo), 1)
  assert.ok(silent(solo), 'the socket in use is still not answered')
  assert.is(addressKey(solo.endpoint.peer), addressKey(service))
})

for (const role of ['client', 'server'] as const) {
  test(`a ${role} without a peer probes another address of its rendezvous server`, () => {
    const solo = party(role)
    const other = address4(7, 12345)
    assert.is(solo.endpoint.addRendezvous(other), 0)
    solo.run(60_000)
    assert.ok(silent(solo))
    solo.endpoint.core.u8.set(other, solo.endpoint.core.calls.peer_ptr() >>> 0)
    const sent = probe(solo)
    solo.endpoint.core.u8.fill(
      0,
      solo.endpoint.core.calls.peer_ptr() >>> 0,
      (solo.endpoint.core.calls.peer_ptr() >>> 0) + 24,
    )
    assert.equal(
      sent.filter((output) => isPing(output)).map((output) => [addressKey(output.peer), output.probe]),
      [
        [addressKey(RENDEZVOUS), false],
        [addressKey(other), true],
      ],
    )
    const asked = sent.filter(({ plain }) => plain[5] === What.CONNECT)
    assert.equal(
      asked.map((output) => [addressKey(output.peer), output.probe]),
      role === 'client'
        ? [
            [addressKey(RENDEZVOUS), true],
            [addressKey(other), true],
          ]
        : [],
    )
    const ping = sent.find((output) => isPing(output) && output.probe)
    assert.ok(ping)
    solo.feedProbe(other, pong(ping))
    assert.is(probed(solo), 1)
    assert.ok(silent(solo), 'the one in use is still not answered')
  })
}

test('a server in rendezvous mode pings its rendezvous server, and notices when no answer arrives', () => {
  const solo = party('server')
  const pings = (): Output[] =>
    solo.take().filter((output) => isPing(output) && addressKey(output.peer) === addressKey(RENDEZVOUS))
  const [first] = pings()
  assert.ok(first, 'the first ping')
  solo.feedFrom(RENDEZVOUS, pong(first))
  for (let second = 0; second < 120; second++) {
    solo.run(1000)
    for (const ping of pings()) solo.feedFrom(RENDEZVOUS, pong(ping))
    assert.not.ok(silent(solo))
  }
  solo.run(60_000)
  assert.ok(silent(solo))
  assert.equal(
    probe(solo).map((output) => [isPing(output), addressKey(output.peer), output.probe]),
    [
      [true, addressKey(RENDEZVOUS), false],
      [true, addressKey(RENDEZVOUS), true],
    ],
    'the probing socket is not announced',
  )
  assert.is(addressKey(LOCAL), addressKey(address4(3, 39427)))
})

test.run()
