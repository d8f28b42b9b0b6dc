/**
 * Two sessions of one conv with the same first flight (docs/validation.md, "First flights"): the target is dialled for two
 * clients, and once for one client, whatever somebody does who relays between it and the server.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EventType } from '../../host/engine/core.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { Random } from '../../testkit/sim/random.ts'
import { type Output, Solo, TESTER } from '../../testkit/sim/solo.ts'
import { ack, concat, control, DIAL, MessageType, message, push, utf8, What } from '../../testkit/sim/wire.ts'

const test = suite('twins')

const HERE = address4(21, 4001)
const THERE = address4(22, 4002)
const STEP_MS = 10

function dials(server: Solo): number {
  return server.events.filter(({ type }) => type === EventType.DIAL).length
}

function makeServer(): Solo {
  return new Solo({ role: 'server', sealing: 'random', seed: 5 })
}

/** Payload of a stream whose first flight has two datagrams. */
const REQUEST = new Uint8Array(2000).fill(7)

interface Client {
  readonly solo: Solo
  readonly handle: number
}

/** Two with one seed have the same conv. */
function makeClient(seed: number, request: Uint8Array = REQUEST): Client {
  const solo = new Solo({ role: 'client', sealing: 'random', seed })
  const handle = solo.open()
  solo.write(handle, request)
  solo.endpoint.drain()
  return { solo, handle }
}

/** What a target does when it is dialled. */
type Target = 'silent' | 'answers' | 'closes'

function serve(server: Solo, target: Target): void {
  for (const stream of server.streams.values()) {
    if (!stream.dialled || stream.ending !== undefined) continue
    stream.dialled = false
    if (target === 'answers') server.write(stream.handle, utf8('hello'))
    if (target === 'closes') server.endpoint.shutdown(stream.handle)
  }
  server.endpoint.drain()
}

/**
 * An attacker delivers each datagram of the client once at most, from an address of its choice. The second datagram of the
 * first flight opens a session THERE before the first one opens another HERE, and both are completed.
 */
function relay(seed: number, target: Target, isKnown: boolean): Solo {
  const random = new Random(seed)
  const server = makeServer()
  const { solo: client } = makeClient(seed)
  const first = client.take()
  if (isKnown) introduce(server, client)
  const flight = first.filter(({ conv }) => conv !== 0)
  assert.ok(flight.length >= 2)
  const conv = flight[0]?.conv ?? 0
  server.feedFrom(THERE, flight[1]?.plain ?? new Uint8Array())
  server.feedFrom(HERE, flight[0]?.plain ?? new Uint8Array())
  // what each side sent, and where it was delivered already
  const isFirst = ({ segments }: Output): boolean => segments.some(({ cmd, sn }) => cmd === 'PUSH' && sn === 0)
  let isComplete = false
  const down: Output[] = []
  const up: Output[] = []
  for (let ms = 0; ms < 25_000; ms += STEP_MS) {
    up.push(...client.take())
    for (const output of up.splice(0)) {
      if (output.conv === conv && isFirst(output)) {
        server.feedFrom(isComplete && random.unit() < 0.5 ? HERE : THERE, output.plain)
        isComplete = true
      } else if (isComplete && random.unit() < 0.9) server.feedFrom(random.unit() < 0.5 ? HERE : THERE, output.plain)
    }
    serve(server, target)
    down.push(...server.take())
    if (isComplete) {
      for (const output of down.splice(0)) {
        // one datagram of the client for each, so that its answers can be delivered apart
        client.feedFrom(TESTER, output.plain)
        for (const answer of client.take()) {
          if (random.unit() < 0.8) server.feedFrom(output.peer, answer.plain)
          else up.push(answer)
        }
      }
    }
    server.run(STEP_MS)
    client.run(STEP_MS)
  }
  return server
}

/** Another stream of the client makes its clock known at HERE: what follows is dialled at once. */
function introduce(server: Solo, client: Solo): void {
  const handle = client.open()
  client.write(handle, utf8('first'))
  client.endpoint.drain()
  const conv = client.endpoint.convOf(handle)
  const of = (output: Output): boolean => output.conv === conv || output.conv === 0
  for (let i = 0; i < 20; i++) {
    for (const output of client.take().filter(of)) server.feedFrom(HERE, output.plain)
    for (const output of server.take()) client.feedFrom(TESTER, output.plain)
    server.run(1)
    client.run(1)
  }
  assert.is(dials(server), 1)
  server.events.length = 0
}

for (const target of ['silent', 'answers', 'closes'] as const) {
  for (const isKnown of [false, true]) {
    test(`a relayed client has its target dialled once (target ${target}, clock ${isKnown ? 'known' : 'unknown'})`, () => {
      let dialled = 0
      for (let seed = 1; seed <= 60; seed++) {
        const n = dials(relay(seed, target, isKnown))
        assert.ok(n <= 1, `seed ${seed}: dialled ${n} times`)
        dialled += n
      }
      assert.ok(dialled > 30, `dialled in ${dialled} of 60 runs`)
    })
  }
}

/** Two clients with one conv and one first flight; each hears and is heard at its own address, and loses segments. */
function serveTwo(seed: number, target: Target, delayMs: number): { server: Solo; clients: Client[] } {
  const random = new Random(seed)
  // a lost PONG would look like a client that has moved
  const arrives = ({ conv }: Output): boolean => conv === 0 || random.unit() < 0.7
  const server = makeServer()
  const clients = [makeClient(9), makeClient(9)]
  const places: readonly Address[] = [HERE, THERE]
  for (let ms = 0; ms < 20_000; ms += STEP_MS) {
    clients.forEach(({ solo }, i) => {
      const place = places[i] ?? HERE
      if (ms >= i * delayMs) for (const output of solo.take()) if (arrives(output)) server.feedFrom(place, output.plain)
      solo.run(STEP_MS)
    })
    serve(server, target)
    for (const output of server.take()) {
      const client = clients[places.findIndex((place) => addressKey(place) === addressKey(output.peer))]
      if (arrives(output)) client?.solo.feedFrom(TESTER, output.plain)
    }
    server.run(STEP_MS)
  }
  return { server, clients }
}

for (const target of ['silent', 'answers'] as const) {
  test(`MUST 43: two clients with one conv and one first flight are both served (target ${target})`, () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { server, clients } = serveTwo(seed, target, seed % 2 ? 0 : 500)
      assert.is(dials(server), 2, `seed ${seed}`)
      for (const { data } of server.streams.values()) assert.equal(data, REQUEST, `seed ${seed}`)
      if (target === 'silent') continue
      for (const { solo, handle } of clients) assert.equal(solo.stream(handle).data, utf8('hello'), `seed ${seed}`)
    }
  })
}

for (const segments of [0, 5]) {
  test(`a copy of a session that has ended is not dialled (${segments} segments of the target)`, () => {
    const server = makeServer()
    const flight = push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('a'))))
    // the second segment opens the copy, and the first one, sent twice, both sessions
    server.feedFrom(THERE, push(5, 1, message(MessageType.PUSH, utf8('b'))))
    server.feedFrom(HERE, flight)
    server.feedFrom(THERE, flight)
    const challenges = server.takeSegments(5)
    const challenged = challenges.filter(({ cmd }) => cmd === 'PUSH')
    assert.is(challenged.length, 2)
    for (const { sn, ts } of challenged) server.feedFrom(HERE, ack(5, sn, ts, sn + 1))
    assert.is(dials(server), 1)
    for (let i = 0; i < segments; i++) {
      server.write(server.only.handle, utf8('answer'))
      server.endpoint.drain()
    }
    for (let turn = 0; turn < 20; turn++) {
      server.run(200)
      // the client has ended the conversation
      if (turn === 10) server.feedFrom(HERE, control(What.RESET, 5))
      for (const { conv, peer, segments: sent } of server.take()) {
        if (conv !== 5) continue
        if (addressKey(peer) === addressKey(THERE)) challenged.push(...sent.filter(({ cmd }) => cmd === 'PUSH'))
        else for (const { cmd, sn, ts } of sent) if (cmd === 'PUSH') server.feedFrom(HERE, ack(5, sn, ts, sn + 1))
      }
    }
    // what the attacker withheld is answered by the client, which has received all of the session
    for (const { sn, ts } of challenged) server.feedFrom(THERE, ack(5, sn, ts, 1 + segments))
    for (const { sn, ts } of challenged) server.feedFrom(THERE, ack(5, sn, ts, 1))
    server.run(5000)
    assert.is(dials(server), 1)
  })
}

test.run()
