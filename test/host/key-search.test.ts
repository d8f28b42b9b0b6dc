/** How a server with several keys finds the one of a datagram, and what strangers can do about it. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Aead } from '../../host/crypto/aead.ts'
import { openAead } from '../../host/crypto/open.ts'
import { KeyRing, type NewKey } from '../../host/driver/key-ring.ts'
import { KnownKeys } from '../../host/driver/known-keys.ts'
import { SearchBudget } from '../../host/driver/search-budget.ts'
import { AddressRecord, Core, Key, Rx } from '../../host/engine/core.ts'
import { freshEngine } from '../../testkit/checked-core.ts'
import { runtimeCrypto } from '../../testkit/crypto-variants.ts'
import { type Address, address4, address6 } from '../../testkit/sim/address.ts'
import { defaultConfig } from '../../testkit/sim/endpoint.ts'
import { Random } from '../../testkit/sim/random.ts'
import { sealingConfig } from '../../testkit/sim/sealing.ts'
import { concat, DIAL, MessageType, message, push, utf8 } from '../../testkit/sim/wire.ts'

const random = new Random(5)
const METHODS = ['xchacha20poly1305_ietf', 'chacha20poly1305_ietf'] as const

/** An address of one of 2^28 hosts. */
function stranger(): Address {
  const record = address4(0, 1024 + Math.floor(random.unit() * 60_000))
  record.set(random.bytes(4), AddressRecord.ip)
  return record
}

/** A datagram of an original: its nonce names no key. */
function sealed(aead: Aead, plain: Uint8Array): Uint8Array {
  const out = new Uint8Array(plain.length + aead.tagBytes + aead.nonceBytes)
  aead.seal(plain, 0, plain.length, random.bytes(aead.nonceBytes), 0, out, 0)
  return out
}

const firstFlight = (conv: number): Uint8Array =>
  push(conv, 0, concat(DIAL, message(MessageType.PUSH, utf8('GET / HTTP/1.1'))))

/** A server with three keys. */
class Server {
  readonly core: Core
  readonly ring: KeyRing
  /** Ciphers of the users. */
  readonly users: readonly Aead[]
  /** ms */
  time = 1000

  private constructor(core: Core, ring: KeyRing, users: readonly Aead[]) {
    this.core = core
    this.ring = ring
    this.users = users
  }

  static async open(method: (typeof METHODS)[number]): Promise<Server> {
    const core = new Core(freshEngine())
    core.fillEntropy()
    const sealing = sealingConfig(method === 'xchacha20poly1305_ietf' ? 'random' : 'counter')
    core.configure({ ...defaultConfig('server'), ...sealing }, 0)
    const keys: NewKey[] = []
    const users: Aead[] = []
    for (const name of ['alice', 'bob', 'carol']) {
      const bytes = random.bytes(32)
      const aead = await openAead(method, bytes, runtimeCrypto)
      keys.push({ name, maxSessions: 0, notAfter: undefined, aead })
      users.push(await openAead(method, bytes, runtimeCrypto))
    }
    const [first, ...others] = keys
    if (first === undefined) throw new Error('no key')
    const server: Server = new Server(core, new KeyRing([first, ...others], () => server.time), users)
    for (const { number, tag } of server.ring.keys) {
      core.u8.set(tag, core.keysPtr + number * Key.BYTES + Key.tag)
      assert.is(core.calls.set_key(number, 0), 0)
    }
    return server
  }

  /** @returns whether a key was found */
  receive(from: Address, data: Uint8Array): boolean {
    const { core } = this
    core.refresh()
    const at = core.rxWord
    core.u8.set(from, (at + Rx.address) * 4)
    const isOpen = this.ring.openInto(data, core, at)
    core.u32[at + Rx.length] = data.length
    core.u32[at + Rx.flags] = isOpen ? Rx.OPENED : 0
    core.calls.handle_datagrams(1, (this.time * 8) >>> 0)
    core.refresh()
    this.ring.handled(core)
    while (core.calls.poll_transmit(core.txSlots, (this.time * 8) >>> 0) > 0);
    while (core.calls.poll_events() > 0);
    core.fillEntropy()
    return isOpen
  }

  /** Garbage from forged addresses, each only once. */
  flood(datagrams: number, perMs: number): void {
    for (let i = 0; i < datagrams; i++) {
      this.time += 1 / perMs
      this.receive(stranger(), random.bytes(200))
    }
  }
}

const test = suite('key search')

for (const method of METHODS) {
  test(`each user of kcptun-libev is found, at any address: ${method}`, async () => {
    const server = await Server.open(method)
    for (const [index, aead] of server.users.entries()) {
      for (const from of [address4(index + 1, 4000), address6(index + 1, 4000, 7)]) {
        assert.ok(server.receive(from, sealed(aead, firstFlight(index + 1))))
        const record = server.core.u8.slice((server.core.rxWord + Rx.address) * 4).subarray(0, AddressRecord.BYTES)
        assert.is(record[AddressRecord.key], index)
      }
    }
    const nobody = await openAead(method, random.bytes(32), runtimeCrypto)
    assert.not(server.receive(address4(9, 9), sealed(nobody, firstFlight(1))))
    server.ring.wipe()
  })

  test(`replays from forged addresses do not displace a peer that is known: ${method}`, async () => {
    const server = await Server.open(method)
    const [, bob] = server.users
    assert.ok(bob)
    const home = address4(1, 4000)
    assert.ok(server.receive(home, sealed(bob, firstFlight(1))))
    const recorded = sealed(bob, push(1, 1, utf8('x'), { una: 0 }))
    assert.ok(server.receive(home, recorded))
    for (let i = 0; i < 10_000; i++) {
      server.time += 200
      server.receive(stranger(), recorded)
    }
    // nothing is searched any more
    for (let i = 0; i < 200; i++) server.receive(home, random.bytes(100))
    assert.ok(server.receive(home, sealed(bob, push(1, 2, utf8('x'), { una: 0 }))))
    server.ring.wipe()
  })
}

test('a source of garbage uses up what it has alone', () => {
  const budget = new SearchBudget()
  const words = (address: Address): Uint32Array => new Uint32Array(address.buffer)
  const flooder = words(address4(1, 4000))
  let searches = 0
  for (let at = 0; at < 10_000; at += 1) {
    if (!budget.take(flooder, 0, at)) continue
    searches++
    budget.spend(0.1)
  }
  assert.ok(searches < 200, String(searches))
  assert.ok(budget.take(words(address4(2, 4000)), 0, 10_000))
})

test('garbage of any number of sources takes a tenth of the time, and a client that repeats itself is searched', () => {
  const budget = new SearchBudget()
  const client = new Uint32Array(address4(1, 4000).buffer)
  const SECONDS = 10
  let spent = 0
  let served = 0
  for (let i = 0; i < SECONDS * 100_000; i++) {
    const now = i / 100
    if (budget.take(new Uint32Array(stranger().buffer), 0, now)) {
      budget.spend(0.03)
      spent += 0.03
    }
    // the first second, and the retransmissions of kcptun-libev after it
    if (i % 25_000 === 0 && budget.take(client, 0, now)) {
      budget.spend(0.03)
      served++
    }
  }
  assert.ok(spent < SECONDS * 1000 * 0.11 + 50, `${spent} ms`)
  assert.ok(served >= 10, `${served} of ${SECONDS * 4}`)
})

test('the address that was used least gives way', () => {
  const known = new KnownKeys()
  const home = new Uint32Array(address4(1, 4000).buffer)
  home[1] = 3 << 24
  known.add(home, 0)
  for (let i = 0; i < 50_000; i++) {
    const other = new Uint32Array(stranger().buffer)
    other[1] = 4 << 24
    known.add(other, 0)
    if (i % 100 === 0) assert.is(known.find(home, 0), 3)
  }
  known.forget(3)
  assert.is(known.find(home, 0), -1)
})

test.run()
