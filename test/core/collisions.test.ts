/**
 * Chosen hash collisions: with the secret of an endpoint its tables can be made slow, but never incorrect; without it
 * collisions cannot be constructed.
 */

import sodium from 'libsodium-wrappers'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { address4, addressKey } from '../../testkit/sim/address.ts'
import { Random } from '../../testkit/sim/random.ts'
import { Solo, TESTER } from '../../testkit/sim/solo.ts'
import { ack, concat, control, DIAL, push, utf8, What } from '../../testkit/sim/wire.ts'

const random = new Random(99)
const KEY = random.bytes(16)
const OTHER_KEY = random.bytes(16)

const secretOf = (key: Uint8Array): Uint8Array => concat(key, new Uint8Array(16).fill(7))

/** SipHash-2-4 in 32-bit halves, fast enough to search for collisions. */
class Sip {
  /** v0 to v3, lower half first. */
  readonly #v = new Int32Array(8)
  readonly #start: Int32Array

  constructor(key: Uint8Array) {
    const view = new DataView(key.buffer, key.byteOffset)
    const k = [0, 4, 8, 12].map((at) => view.getInt32(at, true))
    const [a = 0, b = 0, c = 0, d = 0] = k
    this.#start = Int32Array.of(
      a ^ 0x70736575,
      b ^ 0x736f6d65,
      c ^ 0x6e646f6d,
      d ^ 0x646f7261,
      a ^ 0x6e657261,
      b ^ 0x6c796765,
      c ^ 0x79746573,
      d ^ 0x74656462,
    )
  }

  /** Hashes `bytes`, whose length is a multiple of 8. @returns the state, for `end` */
  begin(bytes: Uint8Array): Int32Array {
    this.#v.set(this.#start)
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    for (let at = 0; at < bytes.length; at += 8) this.#block(view.getInt32(at, true), view.getInt32(at + 4, true))
    return this.#v.slice()
  }

  /**
   * Continues from `begun` with the last block.
   * @returns both halves of the hash
   */
  end(begun: Int32Array, low: number, high: number): readonly [low: number, high: number] {
    const v = this.#v
    v.set(begun)
    this.#block(low, high)
    v[4] = (v[4] ?? 0) ^ 0xff
    this.#rounds(4)
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = v
    return [(a ^ c ^ e ^ g) >>> 0, (b ^ d ^ f ^ h) >>> 0]
  }

  #block(low: number, high: number): void {
    const v = this.#v
    v[6] = (v[6] ?? 0) ^ low
    v[7] = (v[7] ?? 0) ^ high
    this.#rounds(2)
    v[0] = (v[0] ?? 0) ^ low
    v[1] = (v[1] ?? 0) ^ high
  }

  #rounds(count: number): void {
    let [a = 0, A = 0, b = 0, B = 0, c = 0, C = 0, d = 0, D = 0] = this.#v
    let t = 0
    for (let i = 0; i < count; i++) {
      t = (a >>> 0) + (b >>> 0)
      A = (A + B + (t > 0xffffffff ? 1 : 0)) | 0
      a = t | 0
      t = (b << 13) | (B >>> 19)
      B = ((B << 13) | (b >>> 19)) ^ A
      b = t ^ a
      t = a
      a = A
      A = t
      t = (c >>> 0) + (d >>> 0)
      C = (C + D + (t > 0xffffffff ? 1 : 0)) | 0
      c = t | 0
      t = (d << 16) | (D >>> 16)
      D = ((D << 16) | (d >>> 16)) ^ C
      d = t ^ c
      t = (a >>> 0) + (d >>> 0)
      A = (A + D + (t > 0xffffffff ? 1 : 0)) | 0
      a = t | 0
      t = (d << 21) | (D >>> 11)
      D = ((D << 21) | (d >>> 11)) ^ A
      d = t ^ a
      t = (c >>> 0) + (b >>> 0)
      C = (C + B + (t > 0xffffffff ? 1 : 0)) | 0
      c = t | 0
      t = (b << 17) | (B >>> 15)
      B = ((B << 17) | (b >>> 15)) ^ C
      b = t ^ c
      t = c
      c = C
      C = t
    }
    this.#v.set([a, A, b, B, c, C, d, D])
  }
}

/** @returns `count` convs whose hashes agree in `bits` bits: they share a slot in session tables up to that size */
function collidingConvs(count: number, bits: number): number[] {
  const sip = new Sip(KEY)
  const begun = sip.begin(new Uint8Array(0))
  const mask = 2 ** bits - 1
  const found: number[] = []
  for (let conv = 1; found.length < count; conv++) {
    const [low] = sip.end(begun, conv, 4 << 24)
    if ((low & mask) === 5) found.push(conv)
  }
  return found
}

const test = suite('core/collisions')

test('the SipHash of this file matches libsodium', async () => {
  await sodium.ready
  for (let i = 0; i < 100; i++) {
    const bytes = random.bytes(28)
    const sip = new Sip(KEY)
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const [low, high] = sip.end(sip.begin(bytes.subarray(0, 24)), view.getInt32(24, true), 28 << 24)
    const expected = new DataView(sodium.crypto_shorthash(bytes, KEY).buffer)
    assert.equal([low, high], [expected.getUint32(0, true), expected.getUint32(4, true)])
  }
})

/** A server with a session for each conv. */
function serverWith(key: Uint8Array, convs: readonly number[]): Solo {
  const solo = new Solo({ role: 'server', secret: secretOf(key) })
  for (const conv of convs) solo.feed(push(conv, 0, DIAL))
  assert.is(solo.endpoint.sessions, convs.length)
  return solo
}

test('colliding sessions are all found, including after some are removed', () => {
  const convs = collidingConvs(150, 9)
  const solo = serverWith(KEY, convs)
  for (const [i, conv] of convs.entries()) if (i % 3 === 0) solo.feed(control(What.RESET, conv))
  solo.run(3000)
  const left = solo.endpoint.sessions
  for (const [i, conv] of convs.entries()) {
    if (i % 3 === 0) continue
    solo.take()
    solo.feed(push(conv, 1, utf8('\0\u0004\0\u0000').slice(0, 4)))
    // a session that is not found would be answered with RESET or opened again
    assert.ok(
      solo.takeSegments(conv).some(({ cmd, sn }) => cmd === 'ACK' && sn === 1),
      `conv ${conv}`,
    )
  }
  assert.is(solo.endpoint.sessions, left)
})

test('convs that collide under one secret are looked up at normal speed under another', () => {
  const chosen = collidingConvs(2000, 12)
  const any = Array.from({ length: chosen.length }, (_, i) => i + 1)
  const subjects = [
    { solo: serverWith(KEY, chosen), convs: chosen, best: Number.POSITIVE_INFINITY },
    { solo: serverWith(OTHER_KEY, chosen), convs: chosen, best: Number.POSITIVE_INFINITY },
    { solo: serverWith(OTHER_KEY, any), convs: any, best: Number.POSITIVE_INFINITY },
  ]
  for (let round = 0; round < 5; round++) {
    for (const subject of subjects) {
      const { solo, convs } = subject
      const datagrams = convs.map((conv) => ({ bytes: solo.seal(ack(conv, 0, 0, 0)), peer: TESTER }))
      const began = performance.now()
      for (let at = 0; at < datagrams.length; at += 32) solo.endpoint.receive(datagrams.slice(at, at + 32))
      subject.best = Math.min(subject.best, performance.now() - began)
      solo.endpoint.drain()
      solo.take()
    }
  }
  const [known = 0, unknown = 0, usual = 0] = subjects.map(({ best }) => best)
  const timings = `${known.toFixed(2)} ms known, ${unknown.toFixed(2)} ms unknown, ${usual.toFixed(2)} ms usual`
  // the slow case proves that the measurement detects collisions
  assert.ok(known > 1.5 * usual, timings)
  assert.ok(unknown < (known + usual) / 2, timings)
})

test('colliding nonces are each accepted once and then dropped as replays', () => {
  const capacity = 1 << 10
  const sip = new Sip(KEY)
  const nonces: Uint8Array[] = []
  while (nonces.length < 300) {
    const nonce = random.bytes(24)
    const begun = sip.begin(nonce.subarray(0, 16))
    // slot: lowest bits of the upper half; the last one, so that probing wraps around
    const [, high] = sip.end(begun, 0, 16 << 24)
    if ((high & 0xff) === 0xff) nonces.push(nonce)
  }
  const solo = new Solo({
    role: 'server',
    sealing: 'random',
    secret: secretOf(KEY),
    config: { replayCapacity: capacity },
  })
  const datagrams = nonces.map((nonce, i) => solo.seal(control(What.PING, i), nonce))
  for (const bytes of datagrams) assert.is(solo.feedRaw(TESTER, bytes), 1)
  for (const bytes of datagrams) assert.is(solo.feedRaw(TESTER, bytes), 0)
  assert.is(solo.endpoint.counter('drop_replay'), nonces.length)
})

test('services with colliding ids are all found', () => {
  const sip = new Sip(KEY)
  const ids: Uint8Array[] = []
  const begun = sip.begin(new Uint8Array(0))
  for (let n = 0; ids.length < 200; n++) {
    const id = new Uint8Array([n & 255, (n >> 8) & 255, (n >> 16) & 255, 7])
    // 4 bytes: the id, and its length in the top byte
    const [low] = sip.end(begun, new DataView(id.buffer).getInt32(0, true), 4 << 24)
    if ((low & 0x1ff) === 3) ids.push(id)
  }
  const solo = new Solo({ role: 'neither', secret: secretOf(KEY) })
  const hello = (what: number, id: Uint8Array): Uint8Array =>
    concat(new Uint8Array([0, 0, 0, 0, 0, what, 0, 10, 0, 0, 3, 0, 99, 0, id.length]), id)
  for (const [i, id] of ids.entries()) solo.feedFrom(address4(20, 2000 + i), hello(What.LISTEN, id))
  for (const [i, id] of ids.entries()) {
    solo.take()
    solo.feedFrom(address4(30, 3000), hello(What.CONNECT, id))
    const timings = solo.take().map(({ peer }) => addressKey(peer))
    assert.ok(timings.includes(addressKey(address4(20, 2000 + i))), `service ${i}`)
  }
})

test.run()
