/**
 * Peers with keys of their own at one engine (docs/validation.md, "Several keys"): what one of them sends concerns no
 * session, address or nonce of another.
 */

import sodium from 'libsodium-wrappers'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AbortReason, AddressRecord, EventType, KEY_NUMBERS, Key } from '../../host/engine/core.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { Random } from '../../testkit/sim/random.ts'
import type { Sealing } from '../../testkit/sim/sealing.ts'
import { type Output, Solo, type SoloStream } from '../../testkit/sim/solo.ts'
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
import { hello, ID, LOCAL } from './party.ts'

const ALICE = 1
const BOB = 2
const HERE = address4(9, 50001)
const THERE = address4(9, 60001)
/** ms after which every address validation has ended */
const DECIDED_MS = 1500
const random = new Random(99)
const TAGS = [random.bytes(16), random.bytes(16), random.bytes(16)] as const

const test = suite('core/keys')

/** The address of a peer that has a key. */
function by(key: number, place: Address): Address {
  const record = place.slice()
  record[AddressRecord.key] = key
  return record
}

function text(words: string): Uint8Array {
  return message(MessageType.PUSH, utf8(words))
}

function setKey(solo: Solo, key: number, maxSessions = 0): void {
  const { core } = solo.endpoint
  core.refresh()
  const at = (core.calls.key_ptr() >>> 0) + key * Key.BYTES
  core.u8.set(TAGS[key] ?? new Uint8Array(16), at + Key.tag)
  new DataView(core.u8.buffer).setUint32(at + Key.maxSessions, maxSessions, true)
  assert.is(core.calls.set_key(key, solo.endpoint.now), 0)
}

/** A figure of a key. */
function figure(solo: Solo, key: number, field: 'sessions' | 'opened' | 'refused' | 'received' | 'sent'): number {
  const { core } = solo.endpoint
  core.refresh()
  const at = (core.calls.key_ptr() >>> 0) + key * Key.BYTES + Key[field]
  return new DataView(core.u8.buffer).getUint32(at, true)
}

function endKey(solo: Solo, key: number): number {
  solo.endpoint.dirty = true
  return solo.endpoint.core.calls.end_key(key, solo.endpoint.now)
}

function server(sealing: Sealing = 'random', maxSessions = 0): Solo {
  const solo = new Solo({ role: 'server', sealing })
  for (const key of [0, ALICE, BOB]) setKey(solo, key, maxSessions)
  return solo
}

/** Answers the PINGs among `outputs` that went to `peer`. */
function answer(solo: Solo, outputs: readonly Output[], peer: Address, from = peer): number {
  const asked = outputs.filter((output) => isPing(output) && addressKey(output.peer) === addressKey(peer))
  for (const { plain } of asked) {
    const pong = plain.slice()
    pong[5] = What.PONG
    solo.feedFrom(from, pong)
  }
  return asked.length
}

function isPing({ conv, plain }: Output): boolean {
  return conv === 0 && plain[5] === What.PING
}

/** A session of `peer` that has carried a segment each way and whose address is validated. */
function open(solo: Solo, peer: Address, conv: number): SoloStream {
  const before = new Set(solo.streams.keys())
  solo.take()
  solo.feedFrom(peer, push(conv, 0, concat(DIAL, text('a'))))
  const outputs = solo.take()
  answer(solo, outputs, peer)
  for (const { segments } of outputs.filter((output) => output.conv === conv))
    for (const { cmd, sn, ts } of segments) if (cmd === 'PUSH') solo.feedFrom(peer, ack(conv, sn, ts, sn + 1))
  const stream = [...solo.streams.values()].find(({ handle }) => !before.has(handle))
  assert.ok(stream, 'no session')
  solo.write(stream.handle, utf8('answer'))
  solo.endpoint.drain()
  for (const output of solo.take().filter((sent) => sent.conv === conv))
    for (const { cmd, sn, ts } of output.segments) if (cmd === 'PUSH') solo.feedFrom(peer, ack(conv, sn, ts, sn + 1))
  solo.run(50)
  solo.take()
  return stream
}

/** @returns where the session sends, and under which key */
function destination(solo: Solo, stream: SoloStream, conv: number): string {
  solo.take()
  solo.write(stream.handle, utf8('x'))
  solo.endpoint.drain()
  solo.run(1)
  return addressKey(solo.take().find((sent) => sent.conv === conv)?.peer ?? new Uint8Array(24))
}

for (const sealing of ['random', 'counter'] as const) {
  for (const place of [HERE, THERE]) {
    test(`segments of another key touch no session, ${place === HERE ? 'at' : 'beside'} its address (${sealing})`, () => {
      const solo = server(sealing)
      const stream = open(solo, by(ALICE, HERE), 5)
      const bob = by(BOB, place)
      solo.feedFrom(bob, push(5, 2, text('b'), { una: 1 }), push(5, 1, text('b'), { una: 2 }))
      const outputs = solo.take()
      assert.equal([...new Set(outputs.map(({ peer }) => addressKey(peer)))], [addressKey(bob)])
      answer(solo, outputs, bob)
      solo.run(DECIDED_MS)
      answer(solo, solo.take(), bob)
      solo.run(DECIDED_MS)
      assert.equal(stream.data, utf8('a'))
      assert.not(solo.events.some(({ type }) => type === EventType.MIGRATED))
      assert.is(destination(solo, stream, 5), addressKey(by(ALICE, HERE)))
      // her next segments arrive
      solo.feedFrom(by(ALICE, HERE), push(5, 1, text('b'), { una: 1 }))
      assert.equal(stream.data, utf8('ab'))
    })
  }
}

test('a session moves with its own key, although another peer answers at the old place', () => {
  const solo = server()
  const stream = open(solo, by(ALICE, HERE), 5)
  solo.feedFrom(by(ALICE, THERE), push(5, 1, text('b'), { una: 1 }))
  const asked = solo.take()
  // the PINGs went to Alice: Bob knows their values only if he guesses them
  answer(solo, asked, by(ALICE, HERE), by(BOB, HERE))
  answer(solo, asked, by(ALICE, THERE))
  solo.run(DECIDED_MS)
  assert.is(destination(solo, stream, 5), addressKey(by(ALICE, THERE)))
})

test('a PONG under another key moves nothing', () => {
  const solo = server()
  const stream = open(solo, by(ALICE, HERE), 5)
  solo.feedFrom(by(ALICE, THERE), push(5, 1, text('b'), { una: 1 }))
  answer(solo, solo.take(), by(ALICE, THERE), by(BOB, THERE))
  solo.run(DECIDED_MS)
  assert.is(destination(solo, stream, 5), addressKey(by(ALICE, HERE)))
})

test('a RESET under another key neither ends a session nor makes it ask', () => {
  const solo = server()
  const stream = open(solo, by(ALICE, HERE), 5)
  for (const place of [HERE, THERE]) solo.feedFrom(by(BOB, place), control(What.RESET, 5))
  assert.not(solo.take().some((sent) => sent.conv === 5))
  solo.run(60_000)
  assert.is(stream.ending, undefined)
})

test('an address is validated for a key', () => {
  const solo = server()
  open(solo, by(ALICE, HERE), 5)
  solo.feedFrom(by(BOB, HERE), push(6, 0, concat(DIAL, text('a'))))
  assert.is(answer(solo, solo.take(), by(BOB, HERE), by(ALICE, HERE)), 1)
  solo.run(400)
  // still asked
  assert.is(answer(solo, solo.take(), by(BOB, HERE)), 1)
  solo.run(5000)
  assert.is(answer(solo, solo.take(), by(BOB, HERE)), 0)
})

for (const sealing of ['random', 'counter'] as const) {
  test(`a nonce counts as used only under the key that it came with (${sealing})`, () => {
    const solo = server(sealing)
    const datagram = solo.seal(control(What.PING, 7))
    for (const peer of [by(BOB, THERE), by(ALICE, HERE), by(0, HERE)]) {
      assert.is(solo.feedRaw(peer, datagram), 1)
      assert.is(solo.feedRaw(peer, datagram), 0)
    }
    assert.is(solo.endpoint.counter('drop_replay'), 3)
  })
}

test('a nonce of a LISTEN counts as used only under the key that it came with', () => {
  const solo = new Solo({ role: 'neither', sealing: 'random' })
  const listen = solo.seal(hello(What.LISTEN, LOCAL, ID))
  assert.is(solo.feedRaw(by(BOB, THERE), listen), 1)
  assert.is(solo.feedRaw(by(ALICE, HERE), listen), 1)
})

test('two peers with the same conv and first segment are served at once, and apart', () => {
  const solo = server()
  const [alice, bob] = [open(solo, by(ALICE, HERE), 5), open(solo, by(BOB, HERE), 5)]
  assert.equal([alice.dialled, bob.dialled], [true, true])
  solo.feedFrom(by(ALICE, HERE), push(5, 1, text('A'), { una: 1 }))
  solo.feedFrom(by(BOB, HERE), push(5, 1, text('B'), { una: 1 }))
  assert.equal([alice.data, bob.data], [utf8('aA'), utf8('aB')])
  assert.is(destination(solo, alice, 5), addressKey(by(ALICE, HERE)))
  assert.is(destination(solo, bob, 5), addressKey(by(BOB, HERE)))
})

test('the record of an ended session keeps only its own key from the conv', () => {
  const solo = server()
  const alice = open(solo, by(ALICE, HERE), 5)
  solo.endpoint.reset(alice.handle)
  solo.run(100)
  const bob = open(solo, by(BOB, HERE), 5)
  assert.equal(bob.data, utf8('a'))
})

test('nonces carry the tag of the key of their peer, and show it to an engine with this key', async () => {
  await sodium.ready
  const solo = server()
  const { core } = solo.endpoint
  for (let i = 0; i < 100; i++) for (const key of [0, ALICE, BOB]) solo.feedFrom(by(key, HERE), control(What.PING, i))
  const sent = solo.take()
  assert.is(sent.length, 300)
  const scratch = core.calls.io_ptr() >>> 0
  for (const { bytes, peer } of sent) {
    const key = peer[AddressRecord.key] ?? 0
    const nonce = bytes.slice(-24)
    const hash = sodium.crypto_shorthash(nonce.subarray(0, 16), TAGS[key] ?? new Uint8Array())
    assert.equal(nonce.slice(20), hash.slice(0, 4))
    core.refresh()
    core.u8.set(nonce, scratch)
    assert.is(core.calls.find_key(scratch), key)
    core.u8[scratch + 20] = (nonce[20] ?? 0) ^ 1
    assert.is(core.calls.find_key(scratch), -1)
  }
  core.u8.set(sent[1]?.bytes.slice(-24) ?? new Uint8Array(), scratch)
  assert.is(endKey(solo, ALICE), 0)
  assert.is(core.calls.find_key(scratch), -1)
})

test('without keys the end of a nonce is random', async () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const ends = new Set<string>()
  for (let i = 0; i < 100; i++) solo.feed(control(What.PING, i))
  for (const { bytes } of solo.take()) ends.add(bytes.slice(-4).join())
  assert.is(ends.size, 100)
})

test('a key has its sessions, and not more than its limit', () => {
  const solo = server('random', 3)
  for (let conv = 1; conv <= 3; conv++) open(solo, by(ALICE, HERE), conv)
  solo.feedFrom(by(ALICE, HERE), push(4, 0, concat(DIAL, text('a'))))
  assert.is(solo.endpoint.sessions, 3)
  assert.is(figure(solo, ALICE, 'refused'), 1)
  const bob = open(solo, by(BOB, HERE), 4)
  assert.equal([figure(solo, ALICE, 'sessions'), figure(solo, BOB, 'sessions')], [3, 1])
  assert.ok(bob.dialled)
  // a connection that both ends have closed does not count, although the session lingers
  const [first] = solo.streams.values()
  assert.ok(first)
  solo.feedFrom(by(ALICE, HERE), push(1, 1, EOF, { una: 1 }))
  solo.endpoint.shutdown(first.handle)
  solo.endpoint.drain()
  assert.is(figure(solo, ALICE, 'sessions'), 2)
  open(solo, by(ALICE, HERE), 7)
  assert.equal([figure(solo, ALICE, 'sessions'), figure(solo, ALICE, 'opened')], [3, 4])
})

test('first flights that nobody answers for do not lock out the user whose limit they fill', () => {
  const solo = server('random', 20)
  for (let i = 1; i <= 100; i++) {
    solo.feedFrom(by(ALICE, address4(100 + i, 1000)), push(1000 + i, 0, concat(DIAL, text('a'))))
    solo.run(100)
    solo.take()
  }
  assert.is(figure(solo, ALICE, 'sessions'), 20)
  assert.ok(open(solo, by(ALICE, HERE), 5).dialled)
  assert.is(figure(solo, ALICE, 'sessions'), 20)
})

test('sessions of a key that is full do not yield to those of another', () => {
  const solo = server('random', 4)
  for (let conv = 1; conv <= 4; conv++) solo.feedFrom(by(ALICE, HERE), push(conv, 0, concat(DIAL, text('a'))))
  solo.run(2000)
  for (let conv = 1; conv <= 5; conv++) solo.feedFrom(by(BOB, THERE), push(conv, 0, concat(DIAL, text('a'))))
  assert.equal([figure(solo, ALICE, 'sessions'), figure(solo, BOB, 'sessions')], [4, 4])
})

test('the end of a key resets its sessions and no others, however many there are', () => {
  const solo = server()
  const bob = open(solo, by(BOB, HERE), 1)
  const alices: SoloStream[] = []
  for (let conv = 1; conv <= 300; conv++) alices.push(open(solo, by(ALICE, HERE), conv))
  const rounds: number[] = []
  let resets = 0
  do {
    rounds.push(endKey(solo, ALICE))
    solo.endpoint.drain()
    for (const { conv, plain, peer } of solo.take()) {
      if (conv !== 0 || plain[5] !== What.RESET) continue
      assert.is(addressKey(peer), addressKey(by(ALICE, HERE)))
      resets++
    }
  } while ((rounds.at(-1) ?? 0) > 0 && rounds.length < 10)
  assert.is(rounds.at(-1), 0)
  assert.is(resets, 300)
  for (const { ending, reason } of alices) assert.equal([ending, reason], ['aborted', AbortReason.KEY])
  assert.is(bob.ending, undefined)
  assert.is(figure(solo, ALICE, 'sessions'), 0)
  solo.feedFrom(by(BOB, HERE), push(1, 1, text('b'), { una: 1 }))
  assert.equal(bob.data, utf8('ab'))
  assert.is(destination(solo, bob, 1), addressKey(by(BOB, HERE)))
})

test('a client opens with its present key, keeps the others, and moves both', () => {
  const solo = new Solo({ role: 'client', sealing: 'random', peer: false })
  for (const key of [ALICE, BOB]) setKey(solo, key)
  solo.endpoint.setPeer(by(ALICE, HERE))
  const first = solo.open()
  solo.run(5)
  const [old] = solo.take().filter(({ conv }) => conv !== 0)
  solo.endpoint.setPeer(by(BOB, HERE))
  const second = solo.open()
  solo.run(5)
  const [fresh] = solo.take().filter(({ conv }) => conv !== 0 && conv !== old?.conv)
  assert.is(addressKey(old?.peer ?? HERE), addressKey(by(ALICE, HERE)))
  assert.is(addressKey(fresh?.peer ?? HERE), addressKey(by(BOB, HERE)))
  for (const sent of [old, fresh]) {
    assert.ok(sent)
    solo.feedFrom(
      sent.peer,
      segment({ conv: sent.conv, cmd: Cmd.WINS, una: 1 }),
      push(sent.conv, 0, text('s'), { una: 1 }),
    )
  }
  assert.equal([solo.stream(first).data, solo.stream(second).data], [utf8('s'), utf8('s')])
  solo.endpoint.setPeer(by(BOB, THERE))
  solo.run(5)
  solo.take()
  for (const handle of [first, second]) solo.write(handle, utf8('x'))
  solo.endpoint.drain()
  const to = solo.take().filter(({ conv }) => conv !== 0)
  assert.equal(
    [old, fresh].map((sent) => addressKey(to.find(({ conv }) => conv === sent?.conv)?.peer ?? HERE)),
    [addressKey(by(ALICE, THERE)), addressKey(by(BOB, THERE))],
  )
})

test('a number that no key has reaches no memory but that of keys', () => {
  const solo = server()
  const last = KEY_NUMBERS - 1
  solo.feedFrom(by(0xff, HERE), push(7, 0, DIAL))
  assert.is(figure(solo, last, 'received'), 1)
  assert.is(figure(solo, last, 'opened'), 1)
})

test.run()
