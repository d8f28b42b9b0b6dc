/**
 * Nonces (docs/validation.md): the engine recognises and drops reflected datagrams of its own endpoint.
 */
import sodium from 'libsodium-wrappers'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Random } from '../../testkit/sim/random.ts'
import { Solo, TESTER } from '../../testkit/sim/solo.ts'
import { concat, control, DIAL, MessageType, message, push, utf8, What } from '../../testkit/sim/wire.ts'

/** Key, base and slot in the layout of `secret_ptr`. */
function secretOf(key: Uint8Array, base: Uint8Array, slot: number): Uint8Array {
  return concat(key, base, new Uint8Array([slot & 255, slot >> 8, 0, 0]))
}

/** A little-endian number. */
function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
}

const random = new Random(4711)
const KEY = random.bytes(16)
const BASE = random.bytes(12)

const test = suite('core/nonce')

test('a random nonce contains the SipHash-2-4 of its first 16 bytes, as computed by libsodium', async () => {
  await sodium.ready
  const solo = new Solo({ role: 'server', sealing: 'random', secret: secretOf(KEY, BASE, 0) })
  for (let i = 0; i < 200; i++) solo.feed(control(What.PING, i))
  const sent = solo.take()
  assert.is(sent.length, 200)
  for (const { bytes } of sent) {
    const nonce = bytes.subarray(-24)
    const hash = sodium.crypto_shorthash(nonce.subarray(0, 16), KEY)
    assert.equal(nonce.slice(16, 20), hash.slice(0, 4))
  }
})

for (const sealing of ['random', 'counter'] as const) {
  test(`a reflected datagram opens no session and is not delivered, acknowledged or answered (${sealing})`, () => {
    const solo = new Solo({ role: 'client', sealing })
    solo.run(10)
    const handle = solo.open()
    solo.write(handle, utf8('hello'))
    solo.endpoint.drain()
    solo.run(10)
    const [...ours] = solo.take()
    assert.ok(ours.some(({ conv }) => conv !== 0))
    const age = solo.endpoint.counter('last_received_age')
    for (const { bytes } of ours) assert.is(solo.feedRaw(TESTER, bytes), 0)
    assert.is(solo.endpoint.counter('drop_reflected'), ours.length)
    assert.is(solo.stream(handle).data.length, 0)
    assert.is(solo.stream(handle).ending, undefined)
    // it counts as received neither for /ready nor for the keepalive
    assert.is(solo.endpoint.counter('last_received_age'), age)
    assert.is(solo.take().length, 0)
  })

  test(`a datagram of another engine of the same endpoint is recognised, a peer's is not (${sealing})`, () => {
    const make = (key: Uint8Array, base: Uint8Array, slot: number): Solo =>
      new Solo({ role: 'server', sealing, seed: 100 + slot, secret: secretOf(key, base, slot) })
    const one = make(KEY, BASE, 1)
    one.feed(control(What.PING, 1))
    const [pong] = one.take()
    assert.ok(pong)
    for (const slot of [0, 1, 2, 65535]) {
      const other = make(KEY, BASE, slot)
      assert.is(other.feedRaw(TESTER, pong.bytes), 0, `slot ${slot}`)
      assert.is(other.endpoint.counter('drop_reflected'), 1)
    }
    const otherEndpoint = make(random.bytes(16), random.bytes(12), 1)
    assert.is(otherEndpoint.feedRaw(TESTER, pong.bytes), 1)
  })
}

test('a new engine does not repeat the ping values of its predecessor, which recorded PONGs would answer', () => {
  const values = (seed: number): number[] => {
    const solo = new Solo({ role: 'client', sealing: 'random', seed, secret: secretOf(KEY, BASE, seed) })
    const drawn: number[] = []
    for (let i = 0; i < 20; i++) {
      solo.endpoint.core.calls.ping_peer(solo.endpoint.now)
      solo.endpoint.dirty = true
      solo.endpoint.drain()
      for (const { conv, plain } of solo.take()) {
        if (conv === 0 && plain[5] === What.PING) drawn.push(new DataView(plain.buffer, plain.byteOffset).getUint32(6))
      }
    }
    return drawn
  }
  const [first, second] = [values(1), values(2)]
  assert.ok(first.length >= 20 && second.length >= 20, `${first.length} and ${second.length}`)
  assert.equal(
    second.filter((value) => first.includes(value)),
    [],
  )
})

test('slots of one base do not overlap: their first nonces are 2^48 apart', () => {
  const first = (slot: number, base = BASE): bigint => {
    const solo = new Solo({ role: 'server', sealing: 'counter', secret: secretOf(KEY, base, slot) })
    solo.feed(control(What.PING, 1))
    return littleEndian(solo.take()[0]?.bytes.subarray(-12) ?? new Uint8Array(12))
  }
  for (const base of [BASE, new Uint8Array(12).fill(255), concat(new Uint8Array(8).fill(255), new Uint8Array(4))]) {
    const start = littleEndian(base)
    for (const slot of [0, 1, 7, 65535]) {
      assert.is(first(slot, base), (start + (BigInt(slot) << 48n) + 1n) % (1n << 96n))
    }
  }
})

test('datagrams sent before the base was renewed are still recognised', () => {
  const solo = new Solo({ role: 'server', sealing: 'counter' })
  const sent: Uint8Array[] = []
  for (let i = 0; i < 6; i++) {
    solo.feed(control(What.PING, i))
    for (const { bytes } of solo.take()) sent.push(bytes)
    assert.is(solo.endpoint.core.calls.renew_nonce(), 0)
  }
  for (const bytes of sent) assert.is(solo.feedRaw(TESTER, bytes), 0)
  assert.is(solo.endpoint.counter('drop_reflected'), sent.length)
})

test('an engine without a counter has nothing to renew, and says so by success', () => {
  for (const sealing of ['random', 'none'] as const) {
    const solo = new Solo({ role: 'server', sealing })
    assert.is(solo.endpoint.core.calls.renew_nonce(), 0, sealing)
    solo.feed(control(What.PING, 1))
    assert.is(solo.take().length, 1, sealing)
  }
})

test('the host may supply renewed bases: a later engine given all of them recognises the datagrams of each', () => {
  const engine = (): Solo => new Solo({ role: 'server', sealing: 'counter', secret: secretOf(KEY, BASE, 0) })
  const renew = ({ endpoint: { core } }: Solo, base: Uint8Array, slot: number): void => {
    core.u8.set(secretOf(new Uint8Array(16), base, slot), core.calls.secret_ptr() >>> 0)
    assert.is(core.calls.renew_nonce(), 0)
    assert.equal(core.u8.slice(core.calls.secret_ptr(), core.calls.secret_ptr() + 32), new Uint8Array(32))
  }
  const other = random.bytes(12)
  const first = engine()
  const sent: Uint8Array[] = []
  const ping = (solo: Solo, value: number): Uint8Array => {
    solo.feed(control(What.PING, value))
    const bytes = solo.take()[0]?.bytes ?? new Uint8Array()
    sent.push(bytes)
    return bytes
  }
  ping(first, 1)
  renew(first, other, 3)
  assert.is(littleEndian(ping(first, 2).subarray(-12)), (littleEndian(other) + (3n << 48n) + 1n) % (1n << 96n))
  const second = engine()
  renew(second, other, 4)
  assert.is(littleEndian(ping(second, 3).subarray(-12)), (littleEndian(other) + (4n << 48n) + 1n) % (1n << 96n))
  const known = sent.length
  for (const bytes of sent) assert.is(second.feedRaw(TESTER, bytes), 0)
  assert.is(second.endpoint.counter('drop_reflected'), known)
})

test('a first flight reflected from the server address does not end its session', () => {
  const solo = new Solo({ role: 'client', sealing: 'random' })
  const handle = solo.open()
  solo.write(handle, utf8('request'))
  solo.endpoint.drain()
  solo.run(300)
  for (const { bytes } of solo.take()) solo.feedRaw(TESTER, bytes)
  solo.run(5000)
  assert.is(solo.stream(handle).ending, undefined)
  // the same for a server with a dialled session
  const server = new Solo({ role: 'server', sealing: 'random' })
  server.feed(push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('x')))))
  server.confirm(5)
  server.write(server.only.handle, utf8('answer'))
  server.endpoint.drain()
  server.run(50)
  const data = server.only.data.length
  for (const { bytes } of server.take()) server.feedRaw(TESTER, bytes)
  assert.is(server.only.data.length, data)
  assert.is(server.endpoint.sessions, 1)
})

test.run()
