/** The services of a rendezvous server: lifetime, takeover and limits. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { Solo, type SoloOptions } from '../../testkit/sim/solo.ts'
import { control, utf8, What } from '../../testkit/sim/wire.ts'
import { hello, ID, isPing, LOCAL } from './party.ts'

const test = suite('core/services')

test('MUST 58: a service expires `timeout` seconds after its last LISTEN and is replaced by a newer one', () => {
  const solo = new Solo({ role: 'neither', config: { timeout: 60 } })
  const base = solo.endpoint.counter('memory_used')
  const connect = (): number => {
    solo.feedFrom(address4(30, 3000), hello(What.CONNECT, address4(31, 1), ID))
    return solo.take().length
  }
  solo.feedFrom(address4(20, 2000), hello(What.LISTEN, LOCAL, ID))
  solo.run(55_000)
  assert.is(connect(), 2)
  solo.feedFrom(address4(22, 2200), hello(What.LISTEN, LOCAL, ID))
  solo.run(50_000)
  solo.feedFrom(address4(30, 3000), hello(What.CONNECT, address4(31, 1), ID))
  assert.ok(solo.take().some(({ peer }) => addressKey(peer) === addressKey(address4(22, 2200))))
  solo.run(21_000)
  assert.is(connect(), 0)
  assert.is(solo.endpoint.counter('memory_used'), base)
})

const OLD = address4(20, 2000)
const NEW = address4(22, 2200)

/** A rendezvous server with a method, and a service at `OLD`. */
function withService(config: SoloOptions['config'] = {}): Solo {
  const solo = new Solo({ role: 'neither', sealing: 'random', config })
  solo.feedFrom(OLD, hello(What.LISTEN, LOCAL, ID))
  solo.run(10)
  // a service with a single claimant causes no traffic
  assert.is(solo.take().length, 0)
  return solo
}

/** @returns the address of the service as announced to a client */
function addressOf(solo: Solo): string | undefined {
  const client = address4(30, 3000)
  solo.take()
  solo.feedFrom(client, hello(What.CONNECT, address4(31, 1), ID))
  const punches = solo.take().filter(({ plain }) => plain[5] === What.PUNCH)
  return punches.map(({ peer }) => addressKey(peer)).find((key) => key !== addressKey(client))
}

/** Runs for `ms` while the given addresses answer PINGs. @returns the number of PINGs sent */
function answering(solo: Solo, ms: number, ...responders: Address[]): number {
  let pings = 0
  for (let passed = 0; passed < ms; passed += 20) {
    solo.run(20)
    for (const { peer, plain } of solo.take().filter(isPing)) {
      pings++
      const pong = plain.slice()
      pong[5] = What.PONG
      const from = responders.find((address) => addressKey(address) === addressKey(peer))
      if (from) solo.feedFrom(from, pong)
    }
  }
  return pings
}

test('a LISTEN from another address takes over no service that responds, even if both addresses respond', () => {
  for (const others of [[], [NEW]]) {
    const solo = withService()
    solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
    assert.is(addressOf(solo), addressKey(OLD))
    answering(solo, 5000, OLD, ...others)
    assert.is(addressOf(solo), addressKey(OLD))
  }
})

test('a service that moved is announced at its new address within seconds', () => {
  const solo = withService()
  solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
  answering(solo, 3000, NEW)
  assert.is(addressOf(solo), addressKey(NEW))
  // it may also move back
  solo.feedFrom(OLD, hello(What.LISTEN, LOCAL, ID))
  answering(solo, 3000, OLD)
  assert.is(addressOf(solo), addressKey(OLD))
})

test('a LISTEN from an address that does not respond changes nothing and causes a few PINGs', () => {
  const solo = withService()
  for (let i = 0; i < 100; i++) solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
  const pings = answering(solo, 10_000)
  assert.ok(pings >= 4 && pings <= 6, `${pings} PINGs`)
  assert.is(addressOf(solo), addressKey(OLD))
  // PONGs of the claimed address with other values do not count
  for (let value = 0; value < 100; value++) solo.feedFrom(NEW, control(What.PONG, value))
  solo.run(3000)
  assert.is(addressOf(solo), addressKey(OLD))
})

test('lost PINGs or PONGs of the old address cause no takeover', () => {
  const solo = withService()
  solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
  let dropped = 0
  for (let passed = 0; passed < 4000; passed += 20) {
    solo.run(20)
    for (const { peer, plain } of solo.take().filter(isPing)) {
      const pong = plain.slice()
      pong[5] = What.PONG
      if (addressKey(peer) === addressKey(OLD) && dropped++ < 2) continue
      solo.feedFrom(peer, pong)
    }
  }
  assert.ok(dropped > 2)
  assert.is(addressOf(solo), addressKey(OLD))
})

test('nonces of LISTEN are stored separately: a replay is recognised after a flood of other datagrams', () => {
  const solo = new Solo({ role: 'neither', sealing: 'random', config: { replayCapacity: 1 << 10, timeout: 60 } })
  const recorded = solo.seal(hello(What.LISTEN, LOCAL, ID))
  solo.feedRaw(OLD, recorded)
  assert.is(addressOf(solo), addressKey(OLD))
  for (let i = 0; i < 5000; i++) solo.feedFrom(address4(40, 4000), control(What.PONG, i))
  // the service has expired
  solo.run(61_000)
  assert.is(addressOf(solo), undefined)
  const replays = solo.endpoint.counter('drop_replay')
  solo.feedRaw(NEW, recorded)
  assert.is(addressOf(solo), undefined)
  assert.is(solo.endpoint.counter('drop_replay'), replays + 1)
  solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
  assert.is(addressOf(solo), addressKey(NEW))
})

test('a service that expires while another address claims it leaves no state', () => {
  const solo = withService({ timeout: 60 })
  solo.run(59_500)
  solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
  solo.run(700)
  assert.is(addressOf(solo), undefined)
  answering(solo, 5000, NEW)
  assert.is(addressOf(solo), undefined)
  solo.feedFrom(NEW, hello(What.LISTEN, LOCAL, ID))
  assert.is(addressOf(solo), addressKey(NEW))
})

test('ids of any length are compared as bytes; the number of services is limited', () => {
  const solo = new Solo({ role: 'neither' })
  const connects = (id: Uint8Array): number => {
    solo.feedFrom(address4(30, 3000), hello(What.CONNECT, LOCAL, id))
    return solo.take().length
  }
  for (const id of [
    utf8(''),
    utf8('a'),
    utf8('A'),
    new Uint8Array([0]),
    new Uint8Array([0, 0]),
    new Uint8Array(1000),
  ]) {
    assert.is(connects(id), 0)
    solo.feedFrom(address4(20, 2000), hello(What.LISTEN, LOCAL, id))
    assert.is(connects(id), 2)
  }
  const before = solo.endpoint.counter('memory_used')
  for (let i = 0; i < 20_000; i++) {
    solo.feedFrom(address4(20, 2000), hello(What.LISTEN, LOCAL, new Uint8Array([9, i >> 16, i >> 8, i])))
  }
  assert.ok(solo.endpoint.counter('memory_used') - before < 4 * 1024 * 1024)
  assert.is(connects(utf8('a')), 2)
})

test.run()
