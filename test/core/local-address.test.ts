/** A peer that sends to another local address of the host is on another path, and is answered on the path it uses. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AddressRecord, EventType } from '../../host/engine/core.ts'
import { type Address, address4, address6, addressKey } from '../../testkit/sim/address.ts'
import { type Output, Solo } from '../../testkit/sim/solo.ts'
import { concat, control, DIAL, MessageType, message, push, utf8, What } from '../../testkit/sim/wire.ts'
import { hello, ID, isPing, LOCAL } from './party.ts'

/** The address of a peer that sent to local address number `local`. */
function at(local: number, record: Address): Address {
  const copy = record.slice()
  copy[AddressRecord.local] = local
  return copy
}

function text(words: string): Uint8Array {
  return message(MessageType.PUSH, utf8(words))
}

function receivers(outputs: readonly Output[]): string[] {
  return [...new Set(outputs.map(({ peer }) => addressKey(peer)))].sort()
}

const PEER = address4(9, 5000)
const PEER6 = address6(9, 5000)

const test = suite('core/local-address')

test('PONG and RESET go back with the local address that was asked', () => {
  for (const peer of [PEER, PEER6]) {
    const solo = new Solo({ role: 'server', sealing: 'random' })
    const asked = at(3, peer)
    solo.feedFrom(asked, control(What.PING, 77))
    assert.equal(receivers(solo.take()), [addressKey(asked)])
    solo.feedFrom(asked, push(5, 1, text('a'), { una: 1 }))
    assert.equal(receivers(solo.take()), [addressKey(asked)])
  }
})

test('PUNCH goes to service and client, each with the local address that it asked', () => {
  const solo = new Solo({ role: 'neither', sealing: 'random' })
  const [service, client] = [at(1, address4(20, 2000)), at(2, address4(30, 3000))]
  solo.feedFrom(service, hello(What.LISTEN, LOCAL, ID))
  solo.feedFrom(client, hello(What.CONNECT, address4(31, 1), ID))
  assert.equal(receivers(solo.take()), [addressKey(service), addressKey(client)].sort())
})

test('a service that asks at another local address does not expire', () => {
  const solo = new Solo({ role: 'neither', sealing: 'random', config: { timeout: 60 } })
  const [before, after] = [at(1, address4(20, 2000)), at(2, address4(20, 2000))]
  solo.feedFrom(before, hello(What.LISTEN, LOCAL, ID))
  for (let round = 0; round < 4; round++) {
    for (let passed = 0; passed < 25_000; passed += 50) {
      solo.run(50)
      for (const { peer, plain } of solo.take().filter(isPing)) {
        const pong = plain.slice()
        pong[5] = What.PONG
        solo.feedFrom(peer, pong)
      }
    }
    solo.feedFrom(after, hello(What.LISTEN, LOCAL, ID))
  }
  solo.feedFrom(address4(30, 3000), hello(What.CONNECT, address4(31, 1), ID))
  assert.is(solo.take().filter(({ plain }) => plain[5] === What.PUNCH).length, 2)
})

test('with a method a session follows its peer to another local address when only that one answers', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const [before, after] = [at(1, PEER), at(2, PEER)]
  solo.feedFrom(before, push(5, 0, concat(DIAL, text('a'))))
  solo.confirm(5, before)
  solo.run(50)
  solo.take()
  solo.feedFrom(after, push(5, 1, text('b')))
  assert.equal(solo.only.data, utf8('ab'))
  solo.run(5)
  for (const { peer, plain } of solo.take().filter(isPing)) {
    if (addressKey(peer) !== addressKey(after)) continue
    const pong = plain.slice()
    pong[5] = What.PONG
    solo.feedFrom(after, pong)
  }
  solo.run(1500)
  assert.is(solo.events.filter(({ type }) => type === EventType.MIGRATED).length, 1)
  solo.take()
  solo.write(solo.only.handle, utf8('x'))
  solo.endpoint.drain()
  solo.run(1)
  assert.equal(receivers(solo.take().filter(({ conv }) => conv === 5)), [addressKey(after)])
})

test('without a method it follows at once', () => {
  const solo = new Solo({ role: 'server', sealing: 'none' })
  solo.feedFrom(at(1, PEER), push(5, 0, concat(DIAL, text('a'))))
  solo.run(50)
  solo.take()
  solo.feedFrom(at(2, PEER), push(5, 1, text('b')))
  assert.equal(solo.only.data, utf8('ab'))
  solo.write(solo.only.handle, utf8('x'))
  solo.endpoint.drain()
  solo.run(50)
  assert.equal(receivers(solo.take().filter(({ conv }) => conv === 5)), [addressKey(at(2, PEER))])
  assert.is(solo.endpoint.sessions, 1)
})

test.run()
