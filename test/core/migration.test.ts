/**
 * A session migrates when a NAT assigns its peer another port, and for no other sender (protocol.md 6.6, 13).
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreConfig, EventType } from '../../host/engine/core.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import type { Sealing } from '../../testkit/sim/sealing.ts'
import { type Output, Solo, TESTER } from '../../testkit/sim/solo.ts'
import { ack, concat, control, DIAL, EOF, MessageType, message, push, utf8, What } from '../../testkit/sim/wire.ts'

const MOVED = address4(9, 60001)
/** ms after which every address validation has ended */
const DECIDED_MS = 1500

function text(words: string): Uint8Array {
  return message(MessageType.PUSH, utf8(words))
}

/** A server with one session that has carried a few segments each way. */
function open(sealing: Sealing): Solo {
  const solo = new Solo({ role: 'server', sealing })
  solo.feed(push(5, 0, concat(DIAL, text('a'))))
  if (sealing !== 'none') solo.confirm(5)
  answerPings(solo, TESTER)
  solo.write(solo.only.handle, utf8('answer'))
  solo.endpoint.drain()
  for (const { cmd, sn, ts } of solo.takeSegments(5)) if (cmd === 'PUSH') solo.feed(ack(5, sn, ts, sn + 1))
  solo.feed(push(5, 1, text('b'), { una: 1 }))
  solo.run(50)
  solo.take()
  return solo
}

/** @returns the addresses pinged since the last `take` */
function pinged(solo: Solo): string[] {
  return pings(solo).map(({ peer }) => addressKey(peer))
}

function pings(solo: Solo): Output[] {
  return solo.take().filter(({ conv, plain }) => conv === 0 && plain[5] === What.PING)
}

/** Answers all PINGs sent to `peer` since the last `take`, from `from`. */
function answerPings(solo: Solo, peer: Address, from: Address = peer): void {
  for (const ping of pings(solo)) {
    if (addressKey(ping.peer) !== addressKey(peer)) continue
    const pong = ping.plain.slice()
    pong[5] = What.PONG
    solo.feedFrom(from, pong)
  }
}

function migrated(solo: Solo): number {
  return solo.events.filter(({ type }) => type === EventType.MIGRATED).length
}

/** @returns the address that the session sends to */
function destination(solo: Solo): string {
  solo.take()
  solo.write(solo.only.handle, utf8('x'))
  solo.endpoint.drain()
  solo.run(1)
  const sent = solo.take().find(({ conv }) => conv === 5)
  return addressKey(sent?.peer ?? new Uint8Array(24))
}

const test = suite('core/migration')

for (const sealing of ['random', 'counter'] as const) {
  test(`a session migrates when only the new address answers (${sealing})`, () => {
    const solo = open(sealing)
    solo.feedFrom(MOVED, push(5, 2, text('c'), { una: 1 }))
    // authentic data counts, whatever its source address
    assert.equal(solo.only.data, utf8('abc'))
    assert.is(migrated(solo), 0)
    solo.run(20)
    answerPings(solo, MOVED)
    solo.run(DECIDED_MS)
    assert.is(migrated(solo), 1)
    assert.is(destination(solo), addressKey(MOVED))
    // the session is found under its new address
    solo.feedFrom(MOVED, push(5, 3, text('d'), { una: 1 }))
    assert.equal(solo.only.data, utf8('abcd'))
    assert.is(solo.endpoint.sessions, 1)
  })
}

test('a datagram from another address causes PINGs to both addresses; without PONGs the old one is kept', () => {
  const solo = open('random')
  solo.run(5000)
  solo.take()
  solo.feedFrom(MOVED, push(5, 2, text('c'), { una: 1 }))
  assert.equal(pinged(solo).sort(), [addressKey(TESTER), addressKey(MOVED)].sort())
  assert.is(migrated(solo), 0)
  assert.is(destination(solo), addressKey(TESTER))
  // without any PONG the session keeps its address
  solo.run(60_000)
  assert.is(migrated(solo), 0)
})

test('an eavesdropper that relays the PING faster than the peer answers cannot move the session', () => {
  for (const late of [10, 150, 1000]) {
    const solo = open('random')
    solo.feedFrom(MOVED, push(5, 2, text('c'), { una: 1 }))
    const sent = pings(solo)
    const pongs = sent.map(({ peer, plain }) => {
      const pong = plain.slice()
      pong[5] = What.PONG
      return { peer, pong }
    })
    solo.run(1)
    for (const { peer, pong } of pongs) if (addressKey(peer) === addressKey(MOVED)) solo.feedFrom(MOVED, pong)
    solo.run(late)
    for (const { peer, pong } of pongs) if (addressKey(peer) === addressKey(TESTER)) solo.feedFrom(TESTER, pong)
    solo.run(DECIDED_MS)
    assert.is(destination(solo), addressKey(TESTER), `${late} ms`)
  }
})

test('a segment from the old address during validation keeps the session there', () => {
  const solo = open('random')
  solo.feedFrom(MOVED, push(5, 2, text('c'), { una: 1 }))
  solo.run(5)
  solo.feed(push(5, 3, text('d'), { una: 1 }))
  answerPings(solo, MOVED)
  solo.run(DECIDED_MS)
  assert.is(migrated(solo), 0)
  assert.is(destination(solo), addressKey(TESTER))
})

test('a PONG from another address, or for another PING, is ignored', () => {
  const solo = open('random')
  solo.feedFrom(MOVED, push(5, 2, text('c'), { una: 1 }))
  answerPings(solo, MOVED, address4(9, 60002))
  solo.feedFrom(MOVED, control(What.PONG, 0), control(What.PONG, 1))
  solo.run(DECIDED_MS)
  assert.is(migrated(solo), 0)
})

test('an address that has not answered is sent a few PINGs and nothing else', () => {
  const solo = open('random')
  for (let i = 0; i < 40; i++) {
    solo.feedFrom(MOVED, push(5, 2 + i, text('c'), { una: 1 }))
    solo.run(50)
  }
  const toNew = solo.take().filter(({ peer }) => addressKey(peer) === addressKey(MOVED))
  assert.ok(toNew.length > 0 && toNew.length <= 12, `${toNew.length}`)
  for (const { conv } of toNew) assert.is(conv, 0)
})

test('without a method a datagram from another address belongs to another session', () => {
  const solo = open('none')
  solo.feedFrom(MOVED, push(5, 2, text('c')))
  assert.equal(solo.only.data, utf8('ab'))
  assert.is(migrated(solo), 0)
})

test('MUST 43: a first flight from another address opens its own session', () => {
  const solo = open('random')
  solo.feedFrom(MOVED, push(5, 0, concat(DIAL, text('x'))))
  solo.confirm(5, MOVED)
  assert.is(migrated(solo), 0)
  assert.equal(
    [...solo.streams.values()].map(({ data }) => data),
    [utf8('ab'), utf8('x')],
  )
})

/** @returns a server that has dialled for a first flight, and whose client has received nothing yet */
function dialled(): Solo {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  solo.feed(push(5, 0, concat(DIAL, text('a'))))
  solo.run(20)
  solo.confirm(5)
  solo.take()
  assert.is(dials(solo), 1)
  return solo
}

const dials = (solo: Solo): number => solo.streams.size

test('a first flight retransmitted from the new address of its client opens no second session', () => {
  const solo = dialled()
  for (let turn = 0; turn < 5; turn++) {
    solo.feedFrom(MOVED, push(5, 0, concat(DIAL, text('a'))))
    answerPings(solo, MOVED)
    // once more before the old address has had the time to answer
    solo.feedFrom(MOVED, push(5, 0, concat(DIAL, text('a'))))
    solo.run(400)
  }
  assert.is(solo.endpoint.sessions, 1)
  assert.is(dials(solo), 1)
  assert.is(migrated(solo), 1)
  assert.equal(solo.only.data, utf8('a'))
})

test('a first flight repeated from another address is not answered there or at the old one before either has answered', () => {
  const solo = dialled()
  solo.feedFrom(MOVED, push(5, 0, concat(DIAL, text('a'))))
  solo.run(30)
  assert.equal(
    solo.take().filter(({ conv }) => conv === 5),
    [],
  )
})

test('a first flight without a payload, repeated from another address, opens no second session either', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const flight = push(5, 0, new Uint8Array())
  solo.feed(flight)
  solo.confirm(5)
  solo.feedFrom(MOVED, flight)
  assert.is(solo.endpoint.sessions, 1)
})

test('MUST 43: identical first flights of two responding clients open two sessions', () => {
  const solo = dialled()
  for (let turn = 0; turn < 5; turn++) {
    solo.feedFrom(MOVED, push(5, 0, concat(DIAL, text('a'))))
    const both = pings(solo)
    for (const { peer, plain } of both) {
      const pong = plain.slice()
      pong[5] = What.PONG
      solo.feedFrom(peer, pong)
    }
    solo.run(100)
  }
  // each acknowledges what is sent to it
  for (let turn = 0; turn < 5; turn++) {
    solo.run(1000)
    for (const { conv, peer, segments } of solo.take()) {
      if (conv !== 5) continue
      for (const { cmd, sn, ts } of segments) if (cmd === 'PUSH') solo.feedFrom(peer, ack(5, sn, ts, sn + 1))
    }
  }
  assert.is(dials(solo), 2)
  assert.is(migrated(solo), 0)
})

test('a replica of a session, opened by replays, does not take the place of the session when its peer moves', () => {
  const attacker = address4(77, 9)
  const solo = dialled()
  // first flights that were captured; the PINGs to the attacker are relayed to the client
  for (let turn = 0; turn < 5; turn++) {
    for (const conv of [5, 6]) solo.feedFrom(attacker, push(conv, 0, concat(DIAL, text('a'))))
    for (const { peer, plain } of pings(solo)) {
      const pong = plain.slice()
      pong[5] = What.PONG
      solo.feedFrom(peer, pong)
    }
    solo.run(200)
  }
  assert.is(solo.endpoint.sessions, 3)
  solo.run(5000)
  // the client moves, and continues both conversations
  for (let turn = 0; turn < 10; turn++) {
    solo.feedFrom(MOVED, push(turn < 5 ? 6 : 5, 1, text('b')))
    answerPings(solo, MOVED)
    solo.run(400)
  }
  for (let turn = 0; turn < 5; turn++) {
    solo.run(4000)
    solo.confirm(5, MOVED)
  }
  assert.is(solo.events.filter(({ type }) => type === EventType.DIAL).length, 1)
})

test('a session in CONNECT does not migrate, and a datagram from another address is not answered with RESET', () => {
  const solo = new Solo({ role: 'client', sealing: 'random' })
  const conv = solo.endpoint.convOf(solo.open())
  solo.take()
  solo.feedFrom(MOVED, ack(conv, 0, 0, 1))
  answerPings(solo, MOVED)
  solo.run(DECIDED_MS)
  assert.is(migrated(solo), 0)
  assert.not.ok(solo.take().some(({ peer }) => addressKey(peer) === addressKey(MOVED)))
})

test('sequence numbers far outside the windows cause neither PINGs nor migration', () => {
  for (const [sn, una] of [
    [2, 1000],
    [2, 0x80000000],
    [0x40000000, 1],
    [0x80000000, 1],
  ] as const) {
    const solo = open('random')
    solo.feedFrom(MOVED, push(5, sn, text('!'), { una }))
    assert.not.ok(pinged(solo).includes(addressKey(MOVED)))
    solo.run(DECIDED_MS)
    assert.is(migrated(solo), 0, `sn ${sn} una ${una}`)
    assert.equal(solo.only.data, utf8('ab'))
  }
  // a window is at most 65536 segments, and the peer has acknowledged two
  for (const [behind, wanted] of [
    [65536, true],
    [65537, false],
  ] as const) {
    const solo = open('random')
    solo.feedFrom(MOVED, push(5, 2, text('!'), { una: (2 - behind) >>> 0 }))
    assert.is(pinged(solo).includes(addressKey(MOVED)), wanted, `${behind} behind`)
  }
})

test('reflected datagrams from another address cause no migration and open no session', () => {
  for (const sealing of ['random', 'counter'] as const) {
    const solo = open(sealing)
    const { handle } = solo.only
    for (let i = 0; i < 5; i++) {
      solo.write(handle, utf8('ours'))
      solo.endpoint.drain()
      solo.run(5)
    }
    const ours = solo.take().map(({ bytes }) => bytes)
    assert.ok(ours.length > 0)
    for (const bytes of [...ours, ...solo.take().map((output) => output.bytes)]) solo.feedRaw(MOVED, bytes)
    assert.is(migrated(solo), 0, sealing)
    assert.is(solo.endpoint.sessions, 1)
    for (const { peer } of solo.take()) assert.is(addressKey(peer), addressKey(TESTER))
  }
})

test('replayed datagrams of the peer cause no migration', () => {
  const solo = open('random')
  const datagram = solo.seal(push(5, 2, text('c'), { una: 1 }))
  solo.feedRaw(TESTER, datagram)
  solo.feedRaw(MOVED, datagram)
  assert.is(pinged(solo).length, 0)
  assert.is(migrated(solo), 0)
})

for (const direction of ['up', 'down', 'both'] as const) {
  test(`a transfer continues when a NAT changes the client's port (${direction})`, () => {
    for (let seed = 1; seed <= 5; seed++) {
      const pair = new Pair({ seed, sealing: 'random', up: { loss: 0.02, delay: 20 }, down: { loss: 0.02, delay: 20 } })
      const connection = pair.connect({
        client: { bytes: direction === 'down' ? 200 : 600_000, stream: 1, writeRate: 200 },
        server: { bytes: direction === 'up' ? 200 : 600_000, stream: 2, writeRate: 200 },
      })
      for (let i = 0; i < 3; i++) {
        pair.run(700)
        pair.clientAddress = address4(1, 41000 + i)
      }
      assert.ok(pair.finish(120), `seed ${seed}: ${connection.describe()}`)
      assert.ok(connection.clean, `seed ${seed}: ${connection.describe()}`)
    }
  })
}

test('a client that has ended its direction and moves gets an answer that comes after the linger time', () => {
  for (const pause of [20_000, 45_000, 200_000]) {
    const pair = new Pair({ seed: 3, sealing: 'random' })
    const connection = pair.connect({
      client: { bytes: 200, stream: 1 },
      server: { bytes: 50_000, stream: 2, pause, fin: 'last' },
    })
    pair.run(3000)
    pair.clientAddress = address4(1, 46000)
    assert.ok(pair.finish(300), connection.describe())
    assert.ok(connection.clean, connection.describe())
  }
})

test('a client that has ended its direction and moves before the first byte of the answer gets it', () => {
  for (const pause of [0, 40, 20_000]) {
    const pair = new Pair({ seed: 3, sealing: 'random', up: { delay: 20 }, down: { delay: 20 } })
    // the server knows the clock of the client now, and sends no KEEPALIVE to confirm the second conversation
    const first = pair.connect({ client: { bytes: 200, stream: 1 }, server: { bytes: 5000, stream: 2 } })
    assert.ok(pair.finish(60), first.describe())
    const second = pair.connect({
      client: { bytes: 200, stream: 3 },
      server: { bytes: 50_000, stream: 4, pause, fin: 'last' },
    })
    pair.run(pause === 0 ? 30 : 45)
    pair.clientAddress = address4(1, 46000)
    assert.ok(pair.finish(300), second.describe())
    assert.ok(second.clean, `pause ${pause}: ${second.describe()}`)
  }
})

test('many sessions migrate together', () => {
  const pair = new Pair({ seed: 2, sealing: 'counter' })
  for (let i = 0; i < 30; i++) {
    pair.connect({
      client: { bytes: 40_000, stream: 2 * i + 1, writeRate: 20 },
      server: { bytes: 40_000, stream: 2 * i + 2, writeRate: 20 },
    })
  }
  pair.run(800)
  pair.clientAddress = address4(1, 45000)
  assert.ok(pair.finish(120))
  for (const connection of pair.connections) assert.ok(connection.clean, connection.describe())
})

test('a session whose client waits for an answer, and sends nothing, moves with the others', () => {
  const pair = new Pair({ seed: 2, sealing: 'random', up: { delay: 20 }, down: { delay: 20 } })
  const waiting = pair.connect({
    client: { bytes: 200, stream: 1, fin: 'last' },
    server: { bytes: 50_000, stream: 2, pause: 3000 },
  })
  const other = pair.connect({
    client: { bytes: 200_000, stream: 3, writeRate: 20 },
    server: { bytes: 200, stream: 4 },
  })
  pair.run(1500)
  pair.clientAddress = address4(1, 45000)
  assert.ok(pair.finish(20), `${waiting.describe()}; ${other.describe()}`)
  assert.ok(waiting.clean, waiting.describe())
})

/** The tester's clock for ts, in 1/8 ms as the engine's. */
const clock = (solo: Solo): number => Math.round(solo.ms * 8) + 123_456

/** A server that knows the clock of `address`, which has answered long ago. */
function known(address: Address, config: Partial<CoreConfig> = {}): Solo {
  const solo = new Solo({ role: 'server', sealing: 'random', config })
  solo.feedFrom(address, push(100, 0, concat(DIAL, text('hello')), { ts: clock(solo) }))
  solo.confirm(100, address)
  solo.feedFrom(address, push(100, 1, text('more'), { ts: clock(solo), una: 1 }))
  solo.run(30)
  solo.feedFrom(address, push(100, 2, EOF, { ts: clock(solo), una: 1 }))
  solo.endpoint.shutdown(solo.only.handle)
  solo.endpoint.drain()
  solo.confirm(100, address)
  solo.run(1_000_000)
  assert.is(solo.endpoint.sessions, 0)
  solo.take()
  return solo
}

/** Opens a session of `address` whose output is held, because the address has not answered yet. */
function openHeld(solo: Solo, conv: number, address: Address): void {
  solo.feedFrom(address, push(conv, 0, concat(DIAL, text('get')), { ts: clock(solo) }))
  solo.write([...solo.streams.keys()].at(-1) ?? 0, new Uint8Array(30_000))
  solo.endpoint.drain()
  // no PING of the validation is due any more
  solo.run(12_000)
  assert.ok(bytesOf(solo, conv, address) <= 4096)
}

/** Bytes of a conversation sent to an address since the last `take`. */
function bytesOf(solo: Solo, conv: number, address: Address): number {
  const sent = solo.take().filter((output) => output.conv === conv && addressKey(output.peer) === addressKey(address))
  return sent.reduce((sum, { bytes }) => sum + bytes.length, 0)
}

test('a session whose output is held continues at the address to which it moves', () => {
  const solo = known(TESTER)
  openHeld(solo, 101, TESTER)
  solo.feedFrom(MOVED, push(101, 1, text('more'), { ts: clock(solo), una: 0 }))
  solo.run(20)
  answerPings(solo, MOVED)
  solo.run(DECIDED_MS)
  assert.is(migrated(solo), 1)
  assert.ok(bytesOf(solo, 101, MOVED) > 4096)
})

test('a session that moves to an address validates it for the sessions there', () => {
  const solo = known(MOVED, { maxHalfOpen: 1 })
  solo.feed(push(5, 0, concat(DIAL, text('a')), { ts: clock(solo) }))
  solo.confirm(5)
  openHeld(solo, 101, MOVED)
  solo.feedFrom(MOVED, push(5, 1, text('b'), { ts: clock(solo), una: 1 }))
  solo.run(20)
  answerPings(solo, MOVED)
  solo.run(DECIDED_MS)
  assert.is(migrated(solo), 1)
  assert.ok(bytesOf(solo, 101, MOVED) > 4096, 'the output that was held')
  solo.feedFrom(MOVED, push(102, 0, concat(DIAL, text('c')), { ts: clock(solo) }))
  assert.is(solo.endpoint.counter('sessions_refused'), 0, 'no session is half-open any more')
})

test('a session that is not dialled yet migrates too: MIGRATED precedes DIAL', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  solo.feed(push(5, 0, concat(DIAL, text('a'))))
  solo.feedFrom(MOVED, push(5, 1, text('b')))
  solo.run(20)
  answerPings(solo, MOVED)
  solo.run(DECIDED_MS)
  const eventTypes = (): number[] => solo.events.map(({ type }) => type).filter((type) => type !== EventType.PONG)
  assert.equal(eventTypes(), [EventType.MIGRATED], 'the conversation is not confirmed yet')
  solo.confirm(5, MOVED)
  assert.equal(eventTypes(), [EventType.MIGRATED, EventType.DIAL, EventType.READABLE])
  assert.is(new Set(solo.events.map(({ handle }) => handle).filter((handle) => handle !== 0)).size, 1)
  assert.equal(solo.only.data, utf8('ab'))
})

test.run()
