/** The start of a datagram without authentication, and whether it looks like the protocol: how a key is chosen. */

import { randomFillSync } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { START_BYTES } from '../../host/crypto/aead.ts'
import { KEY_BYTES, MAX_SEALED, XCHACHA_METHOD } from '../../host/crypto/methods.ts'
import { openAead } from '../../host/crypto/open.ts'
import { isPlausible } from '../../host/crypto/plausible.ts'
import { missing, portableCrypto, runtimeCrypto, variants } from '../../testkit/crypto-variants.ts'
import { skip } from '../skip.ts'
import { fromHex, readRecorded, sealedCaptures, toHex } from '../vectors/captures.ts'

const test = suite('the start of a datagram')
const key = Uint8Array.from({ length: KEY_BYTES }, (_, i) => (i * 7 + 1) & 255)
const LENGTHS = [...Array.from({ length: 61 }, (_, i) => i), 1400]

const random = (length: number): Uint8Array => randomFillSync(new Uint8Array(length))
const startOf = (plain: Uint8Array): string => toHex(plain.subarray(0, START_BYTES))

/** A PUSH segment with `dataBytes` of random data (protocol.md 5.1). */
function push(dataBytes: number): Uint8Array {
  const plain = random(START_BYTES + dataBytes)
  plain.set([81, 0], 4)
  new DataView(plain.buffer).setUint32(20, dataBytes)
  return plain
}

for (const { method, name, crypto } of variants) {
  test(`${name}: the start is that of the plaintext at every length, in a larger buffer too`, async () => {
    const aead = await openAead(method, key, crypto)
    const overhead = aead.tagBytes + aead.nonceBytes
    for (const length of LENGTHS) {
      const plain = random(length)
      const datagram = new Uint8Array(length + overhead)
      aead.seal(plain, 0, length, random(aead.nonceBytes), 0, datagram, 0)
      const start = new Uint8Array(START_BYTES + 8).fill(0xee)
      const count = Math.min(length, START_BYTES)
      const buffer = new Uint8Array(MAX_SEALED).fill(0xaa)
      buffer.set(datagram)
      for (const sealed of [datagram, buffer]) {
        const before = toHex(sealed)
        assert.is(aead.peek(sealed, datagram.length, start), length === 0 ? -1 : length, `${length} bytes`)
        assert.is(toHex(start.subarray(0, count)), startOf(plain), `${length} bytes`)
        assert.is(toHex(start.subarray(START_BYTES)), 'eeeeeeeeeeeeeeee', 'wrote more than the start')
        assert.is(toHex(sealed), before, 'changed the datagram')
      }
      // a look changes nothing for what follows
      assert.is(aead.open(datagram, 0, datagram.length), length === 0 ? -1 : length)
      if (length > 0) assert.is(toHex(datagram.subarray(0, length)), toHex(plain))
      const [one, other] = [new Uint8Array(length + overhead), new Uint8Array(length + overhead)]
      const nonce = random(aead.nonceBytes)
      aead.seal(plain, 0, length, nonce, 0, one, 0)
      aead.peek(buffer, datagram.length, start)
      aead.seal(plain, 0, length, nonce, 0, other, 0)
      assert.is(toHex(one), toHex(other))
    }
  })

  test(`${name}: what is too short or too long for a datagram has no start, and after wipe() nothing has`, async () => {
    const aead = await openAead(method, key, crypto)
    const overhead = aead.tagBytes + aead.nonceBytes
    const buffer = random(4 * MAX_SEALED)
    const start = new Uint8Array(START_BYTES).fill(0xee)
    for (let length = 0; length <= overhead; length++) {
      assert.is(aead.peek(buffer, length, start), -1, `${length} bytes`)
      assert.is(aead.peek(buffer.subarray(0, length), length, start), -1, `${length} bytes`)
    }
    assert.is(aead.peek(buffer, MAX_SEALED + 1, start), -1)
    assert.is(aead.peek(buffer, buffer.length, start), -1)
    assert.is(aead.peek(buffer.subarray(0, 99), 100, start), -1, 'longer than its buffer')
    assert.ok(start.every((byte) => byte === 0xee))
    assert.is(aead.peek(buffer, MAX_SEALED, start), MAX_SEALED - overhead)
    aead.wipe()
    assert.throws(() => aead.peek(buffer, 100, start), /the key was wiped/)
  })

  test(`${name}: under another key no datagram looks like the protocol`, async () => {
    const aead = await openAead(method, key, crypto)
    const others = [random(KEY_BYTES), random(KEY_BYTES)]
    // one bit
    others.push(Uint8Array.from(key, (byte, i) => (i === 31 ? byte ^ 1 : byte)))
    const wrong = await Promise.all(others.map((other) => openAead(method, other, crypto)))
    const start = new Uint8Array(START_BYTES)
    for (let i = 0; i < 500; i++) {
      const plain = push((i * 37) % 1400)
      const datagram = new Uint8Array(plain.length + aead.tagBytes + aead.nonceBytes)
      aead.seal(plain, 0, plain.length, random(aead.nonceBytes), 0, datagram, 0)
      assert.ok(isPlausible(start, aead.peek(datagram, datagram.length, start)))
      for (const one of wrong) assert.not(isPlausible(start, one.peek(datagram, datagram.length, start)))
    }
  })
}

for (const [file, { method, derivedKeyHex, packets }] of sealedCaptures()) {
  for (const variant of variants.filter((one) => one.method === method)) {
    test(`${file}: ${variant.name}: the start of every recorded packet is that of its plaintext`, async () => {
      const aead = await openAead(method, fromHex(derivedKeyHex ?? ''), variant.crypto)
      const start = new Uint8Array(START_BYTES)
      for (const { sealed, plain } of packets) {
        if (typeof plain !== 'string' || plain.length === 0) continue
        const count = Math.min(plain.length / 2, START_BYTES)
        assert.is(aead.peek(fromHex(sealed), sealed.length / 2, start), plain.length / 2)
        assert.is(toHex(start.subarray(0, count)), plain.slice(0, 2 * count))
      }
    })
  }
}

for (const why of missing) skip(test, 'the start with every library', why)

const openssl = runtimeCrypto.openssl?.()
if (openssl?.hchacha20() === undefined) skip(test, 'the plain ChaCha20 of OpenSSL', 'OpenSSL or HChaCha20 is missing')
else {
  test('the plain ChaCha20 of OpenSSL is bound by the first look only, and may be missing', async () => {
    const starts = new Set<string>()
    const absent = (): number => {
      throw new Error('no such symbol')
    }
    for (const chacha20 of [openssl.chacha20, () => 0, absent]) {
      let bound = 0
      const counted = {
        ...openssl,
        chacha20: () => {
          bound++
          return chacha20()
        },
      }
      const aead = await openAead(XCHACHA_METHOD, key, { ...portableCrypto, openssl: () => counted })
      assert.match(aead.provider, /OpenSSL/)
      const datagram = Uint8Array.from({ length: 100 }, (_, i) => i)
      assert.is(aead.openInto(datagram, 100, new Uint8Array(100), 0), -1)
      assert.is(bound, 0)
      for (let i = 0; i < 3; i++) {
        const start = new Uint8Array(START_BYTES)
        aead.peek(datagram, 100, start)
        starts.add(toHex(start))
      }
      assert.is(bound, 1)
      aead.wipe()
    }
    assert.is(starts.size, 1)
  })
}

test('everything that kcptun-libev was recorded to send looks like the protocol', () => {
  const plains = readRecorded()
  assert.ok(plains.length > 1000, `${plains.length}`)
  const kinds = new Set(plains.map((plain) => (plain.startsWith('00000000') ? plain.slice(8, 12) : plain.slice(8, 10))))
  assert.equal([...kinds].sort(), ['0000', '0001', '0002', '0003', '0004', '0005', '51', '52', '53', '54'])
  for (const plain of plains) {
    const bytes = fromHex(plain)
    assert.ok(isPlausible(bytes.subarray(0, START_BYTES), bytes.length), plain)
  }
})

test('of random bytes less than one in 10^8 look like the protocol', () => {
  const bytes = new Uint8Array(START_BYTES * 4096)
  for (let round = 0; round < 100; round++) {
    randomFillSync(bytes)
    for (let at = 0; at < bytes.length; at += START_BYTES) {
      const start = bytes.subarray(at, at + START_BYTES)
      assert.not(isPlausible(start, 1 + (at % 1500)), toHex(start))
    }
  }
  // a random sample cannot show that rate; the factors can
  const passes = (change: (start: DataView) => void, length = 1460): boolean => {
    const start = push(100).subarray(0, START_BYTES)
    change(new DataView(start.buffer))
    return isPlausible(start, length)
  }
  const commands = Array.from({ length: 256 }, (_, cmd) => cmd).filter((cmd) =>
    passes((start) => start.setUint8(4, cmd)),
  )
  assert.equal(commands, [81, 82, 83, 84])
  for (const rest of [0, 1, 255, 256, 1436]) {
    const fits = (len: number): boolean => passes((start) => start.setUint32(20, len), START_BYTES + rest)
    assert.ok(fits(0) && fits(rest), `len up to ${rest}`)
    assert.not(fits(rest + 1), `len ${rest + 1} of ${rest}`)
    for (let bit = 11; bit < 32; bit++) assert.not(fits(2 ** bit), `len 2^${bit} of ${rest}`)
  }
})

test('a message of session 0 has a known kind and a body, a segment a whole header', () => {
  const control = (what: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, what >> 8, what & 255, 1, 2, 3, 4)
  for (let what = 0; what < 65536; what++) assert.is(isPlausible(control(what), 10), what <= 5, `kind ${what}`)
  const segment = push(0)
  // the array is reused: what an earlier datagram left in it does not count
  for (let length = -1; length < START_BYTES; length++) {
    assert.not(isPlausible(segment, length), `a segment of ${length} bytes`)
    assert.is(isPlausible(control(0), length), length >= 10, `a message of ${length} bytes`)
  }
  assert.ok(isPlausible(segment, START_BYTES))
})

test.run()
