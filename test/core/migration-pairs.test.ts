/** The table of pairs of addresses that are being checked: it is finite, and its entries are used again. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EventType } from '../../host/engine/core.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { Solo, TESTER } from '../../testkit/sim/solo.ts'
import { concat, DIAL, MessageType, message, push, utf8, What } from '../../testkit/sim/wire.ts'
import { isPing } from './party.ts'

const FLIGHT = push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('a'))))
const OTHER = address4(9, 60001)
const THIRD = address4(9, 60002)
/** pairs that are checked at the same time */
const PAIRS = 256

const test = suite('core/migration-pairs')

/** A server with one session, dialled for a first flight, whose client has received nothing yet. */
function dialled(): Solo {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  solo.feed(FLIGHT)
  solo.run(20)
  solo.confirm(5)
  solo.take()
  return solo
}

/** The first flight arrives again from `address`, some times; only the addresses `answering` answer PINGs. */
function repeat(solo: Solo, address: Address, answering: readonly Address[], turns = 3): void {
  const keys = answering.map(addressKey)
  for (let turn = 0; turn < turns; turn++) {
    solo.feedFrom(address, FLIGHT)
    solo.run(1)
    for (const output of solo.take()) {
      if (!isPing(output) || !keys.includes(addressKey(output.peer))) continue
      const pong = output.plain.slice()
      pong[5] = What.PONG
      solo.feedFrom(output.peer, pong)
    }
    solo.run(30)
  }
  solo.run(1500)
}

const migrated = (solo: Solo): number => solo.events.filter(({ type }) => type === EventType.MIGRATED).length

test('another client is told from one that moved by the answers to this check, not to an earlier one', () => {
  const silent = dialled()
  repeat(silent, OTHER, [TESTER, OTHER])
  assert.is(silent.endpoint.sessions, 2, 'both addresses answered: two clients with the same first flight')
  silent.run(5000)
  // replayed from an address that nobody answers at
  repeat(silent, THIRD, [TESTER])
  assert.is(silent.endpoint.sessions, 2)

  const moved = dialled()
  repeat(moved, OTHER, [TESTER, OTHER], 1)
  moved.run(5000)
  assert.is(moved.endpoint.sessions, 1, 'the first flight did not come again after the answers')
  repeat(moved, THIRD, [THIRD])
  assert.is(moved.endpoint.sessions, 1, 'the client has moved')
  assert.is(migrated(moved), 1)
})

test('while all pairs are in use, a first flight that comes again from another address opens no session', () => {
  const solo = dialled()
  for (let i = 0; i < PAIRS + 10; i++) {
    solo.feedFrom(address4(10, 1000 + i), FLIGHT)
    assert.is(solo.endpoint.sessions, 1, `address ${i}`)
  }
  // and when they are free again, the client can move
  solo.run(5000)
  repeat(solo, OTHER, [OTHER])
  assert.is(solo.endpoint.sessions, 1)
  assert.is(migrated(solo), 1)
})

test.run()
