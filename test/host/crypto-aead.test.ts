// time limit: 120 s
/**
 * The four methods: which packets they reject, their layout compared with direct library calls, and their memory use.
 */

import { createCipheriv } from 'node:crypto'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import sodium from 'libsodium-wrappers'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Aead, START_BYTES } from '../../host/crypto/aead.ts'
import { MAX_SEALED, methods } from '../../host/crypto/methods.ts'
import { listMethods, openAead } from '../../host/crypto/open.ts'
import { loadNativeSodium } from '../../host/crypto/providers/native-aead.ts'
import { rawSodium } from '../../host/crypto/providers/sodium.ts'
import { missing, portableCrypto, runtimeCrypto, type Variant, variants } from '../../testkit/crypto-variants.ts'
import { skip } from '../skip.ts'
import { fromHex, toHex } from '../vectors/captures.ts'

const test = suite('AEAD')
const key = Uint8Array.from({ length: 32 }, (_, i) => (i * 7 + 1) & 255)
const AD = fromHex('6b637074756e2d6c6962657600')
const BLOCK_BYTES = 1984

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * seed + (i >> 8)) & 255)
}

function nonceOf(aead: Aead, seed: number): Uint8Array {
  return pattern(aead.nonceBytes, seed)
}

function sealed(aead: Aead, plain: Uint8Array, nonce: Uint8Array): Uint8Array {
  const out = new Uint8Array(plain.length + aead.tagBytes + aead.nonceBytes)
  assert.is(aead.seal(plain, 0, plain.length, nonce, 0, out, 0), out.length)
  return out
}

function opens(aead: Aead, datagram: Uint8Array): boolean {
  const memory = new Uint8Array(Math.max(datagram.length, 64)).fill(0xee)
  const length = aead.openInto(datagram, datagram.length, memory, 0)
  if (length === -1 && !memory.every((byte) => byte === 0xee)) throw new Error('memory touched')
  const copy = datagram.slice()
  assert.is(aead.open(copy, 0, copy.length), length, 'open and openInto differ')
  if (length === -1) assert.is(toHex(copy), toHex(datagram), 'changed in place though not authentic')
  return length !== -1
}

/** The same packet from a direct library call: ciphertext, tag, nonce, with associated data `ad`. */
function byLibrary(method: string, plain: Uint8Array, nonce: Uint8Array, ad: Uint8Array): Uint8Array {
  switch (method) {
    case 'xchacha20poly1305_ietf':
      return join(sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, ad, null, nonce, key), nonce)
    case 'chacha20poly1305_ietf':
      return join(sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plain, ad, null, nonce, key), nonce)
    case 'xsalsa20poly1305': {
      const tagFirst = sodium.crypto_secretbox_easy(plain, nonce, key)
      return join(tagFirst.subarray(16), tagFirst.subarray(0, 16), nonce)
    }
    default: {
      const cipher = createCipheriv('aes-256-gcm', key, nonce)
      cipher.setAAD(ad)
      const ciphertext = join(cipher.update(plain), cipher.final())
      return join(ciphertext, cipher.getAuthTag(), nonce)
    }
  }
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** A function that forces a garbage collection, or null where the runtime offers none. */
function collector(): (() => void) | null {
  if (process.versions.bun !== undefined) return () => Bun.gc(true)
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  return typeof gc === 'function' ? () => void gc() : null
}

test.before(() => sodium.ready)

test('MUST 2: tag sizes, nonce sizes and nonce strategies are those of the protocol', async () => {
  assert.equal(methods, ['xchacha20poly1305_ietf', 'xsalsa20poly1305', 'chacha20poly1305_ietf', 'aes256gcm'])
  const shapes = []
  for (const { method, crypto, provider } of variants) {
    const aead = await openAead(method, key, crypto)
    assert.is(aead.method, method)
    assert.match(aead.provider, provider)
    shapes.push([method, aead.tagBytes, aead.nonceBytes, aead.nonceStrategy].join(' '))
  }
  assert.equal(
    [...new Set(shapes)],
    [
      'xchacha20poly1305_ietf 16 24 random',
      'xsalsa20poly1305 16 24 random',
      'chacha20poly1305_ietf 16 12 counter',
      'aes256gcm 16 12 counter',
    ],
  )
})

for (const { method, name, crypto } of variants) {
  test(`MUST 1: ${name}: the order is ciphertext, tag, nonce at every length`, async () => {
    const aead = await openAead(method, key, crypto)
    for (let length = 0; length + aead.tagBytes + aead.nonceBytes <= 1500; length += length < 100 ? 1 : 97) {
      const plain = pattern(length, 31)
      const nonce = nonceOf(aead, length + 3)
      const datagram = sealed(aead, plain, nonce)
      assert.is(toHex(datagram), toHex(byLibrary(method, plain, nonce, AD)), `length ${length}`)
      const memory = new Uint8Array(2048)
      assert.is(aead.openInto(datagram, datagram.length, memory, 16), length === 0 ? -1 : length)
      if (length > 0) assert.is(toHex(memory.subarray(16, 16 + length)), toHex(plain))
    }
  })

  test(`MUST 1: ${name}: a packet with tag, nonce and ciphertext in any other order is rejected`, async () => {
    const aead = await openAead(method, key, crypto)
    const datagram = sealed(aead, pattern(80, 5), nonceOf(aead, 9))
    const text = datagram.subarray(0, 80)
    const tag = datagram.subarray(80, 96)
    const nonce = datagram.subarray(96)
    assert.ok(opens(aead, join(text, tag, nonce)))
    for (const other of [
      [tag, text, nonce],
      [nonce, text, tag],
      [nonce, tag, text],
      [text, nonce, tag],
      [tag, nonce, text],
    ]) {
      assert.not(opens(aead, join(...other)))
    }
  })

  test(`MUST 3: ${name}: the associated data is ${method === 'xsalsa20poly1305' ? 'absent' : '13 bytes with the NUL'}`, async () => {
    const aead = await openAead(method, key, crypto)
    const plain = pattern(50, 3)
    const nonce = nonceOf(aead, 77)
    assert.ok(opens(aead, byLibrary(method, plain, nonce, AD)))
    const ignored = method === 'xsalsa20poly1305'
    const others = [AD.subarray(0, 12), new Uint8Array(0), join(AD, Uint8Array.of(0)), pattern(13, 1)]
    for (const ad of others) assert.is(opens(aead, byLibrary(method, plain, nonce, ad)), ignored, toHex(ad))
  })

  test(`MUST 7: ${name}: a packet with any single bit flipped is rejected`, async () => {
    const aead = await openAead(method, key, crypto)
    for (const length of [1, 34]) {
      const datagram = sealed(aead, pattern(length, 11), nonceOf(aead, 5))
      for (let bit = 0; bit < datagram.length * 8; bit++) {
        datagram[bit >> 3] = (datagram[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        assert.not(opens(aead, datagram), `${length} bytes, bit ${bit}`)
        datagram[bit >> 3] = (datagram[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      }
      assert.ok(opens(aead, datagram))
    }
    const long = sealed(aead, pattern(1500 - aead.tagBytes - aead.nonceBytes, 11), nonceOf(aead, 6))
    for (let i = 0; i < long.length; i++) {
      long[i] = (long[i] ?? 0) ^ (1 << (i & 7))
      assert.not(opens(aead, long), `1500 bytes, byte ${i}`)
      long[i] = (long[i] ?? 0) ^ (1 << (i & 7))
    }
    assert.ok(opens(aead, long))
  })

  test(`MUST 7: ${name}: a truncated, extended or shifted packet is rejected`, async () => {
    const aead = await openAead(method, key, crypto)
    const datagram = sealed(aead, pattern(120, 13), nonceOf(aead, 21))
    for (let length = 0; length < datagram.length; length++) {
      assert.not(opens(aead, datagram.slice(0, length)), `first ${length} bytes`)
      assert.not(opens(aead, datagram.slice(datagram.length - length)), `last ${length} bytes`)
    }
    for (const extra of [1, 12, 16, 24]) {
      assert.not(opens(aead, join(datagram, new Uint8Array(extra))), `${extra} bytes behind`)
      assert.not(opens(aead, join(new Uint8Array(extra), datagram)), `${extra} bytes in front`)
    }
    assert.ok(opens(aead, datagram))
  })

  test(`MUST 7: ${name}: packets no longer than tag and nonce are rejected, including a sealed empty plaintext`, async () => {
    const aead = await openAead(method, key, crypto)
    const overhead = aead.tagBytes + aead.nonceBytes
    for (let length = 0; length <= overhead; length++) assert.not(opens(aead, pattern(length, 17)), `${length} bytes`)
    const nonce = nonceOf(aead, 2)
    assert.not(opens(aead, byLibrary(method, new Uint8Array(0), nonce, AD)))
    assert.ok(opens(aead, byLibrary(method, new Uint8Array(1), nonce, AD)))
  })

  test(`MUST 7: ${name}: a packet sealed with another key is rejected`, async () => {
    const aead = await openAead(method, key, crypto)
    for (let bit = 0; bit < 256; bit++) {
      const otherKey = key.slice()
      otherKey[bit >> 3] = (otherKey[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const other = await openAead(method, otherKey, crypto)
      assert.not(opens(aead, sealed(other, pattern(40, 19), nonceOf(aead, 23))), `key bit ${bit}`)
      other.wipe()
    }
  })

  test(`${name}: the given length is used, not that of the receive buffer`, async () => {
    const aead = await openAead(method, key, crypto)
    const neighbour = await openAead(method, key, crypto)
    // the last byte is 0, so that a missing byte would look like a zero one
    const nonce = nonceOf(aead, 31)
    nonce[nonce.length - 1] = 0
    const datagram = sealed(aead, pattern(700, 29), nonce)
    for (const room of [datagram.length + 1, MAX_SEALED, MAX_SEALED + 1, 65536]) {
      const buffer = new Uint8Array(room).fill(0xaa)
      buffer.set(datagram)
      const memory = new Uint8Array(2048).fill(0xee)
      assert.is(aead.openInto(buffer, datagram.length, memory, 100), 700, `buffer of ${room} bytes`)
      assert.is(toHex(memory.subarray(100, 800)), toHex(pattern(700, 29)))
      assert.is(memory[100 + datagram.length], 0xee)
      assert.is(aead.openInto(buffer, datagram.length + 1, memory, 100), -1)
    }
    // the missing byte must not be taken from the previous packet
    assert.is(aead.openInto(datagram, datagram.length, new Uint8Array(2048), 0), 700)
    const cut = datagram.slice(0, -1)
    assert.is(aead.openInto(cut, datagram.length, new Uint8Array(2048), 0), -1, 'longer than its buffer')
    assert.is(aead.open(cut, 0, datagram.length), -1, 'longer than its buffer')
    assert.is(aead.open(datagram, 1, datagram.length), -1, 'longer than its buffer')
    const huge = new Uint8Array(65536).fill(0xaa)
    for (const length of [MAX_SEALED + 1, huge.length]) {
      assert.is(aead.openInto(huge, length, new Uint8Array(65536), 0), -1, 'longer than allowed')
      assert.is(aead.open(huge, 0, length), -1, 'longer than allowed')
    }
    assert.is(toHex(sealed(neighbour, pattern(700, 29), nonce)), toHex(datagram), 'overran its scratch area')
  })

  test(`${name}: packets in many blocks of a growing memory are sealed and opened correctly`, async () => {
    const aead = await openAead(method, key, crypto)
    const wasm = new WebAssembly.Memory({ initial: 16, maximum: 64 })
    const overhead = aead.tagBytes + aead.nonceBytes
    for (let round = 0; round < 3; round++) {
      const memory = new Uint8Array(wasm.buffer)
      for (let block = 0; block < 520; block++) {
        const at = block * BLOCK_BYTES
        // lengths, and in later rounds offsets, differ from the previous ones in the same block
        const srcAt = at + (round * 32 + (block & 3)) * (block & 1)
        const length = 1 + ((block * 37 + round * 501) % 1400)
        const plain = pattern(length, block + round)
        const nonce = nonceOf(aead, block)
        memory.set(plain, srcAt)
        const nonceAt = at + length + aead.tagBytes
        if (nonceAt < srcAt + length && nonceAt + aead.nonceBytes > srcAt) {
          // the nonce would overwrite plaintext, so it is kept elsewhere
          assert.is(aead.seal(memory, srcAt, length, nonce, 0, memory, at), length + overhead)
        } else {
          memory.set(nonce, nonceAt)
          assert.is(aead.seal(memory, srcAt, length, memory, nonceAt, memory, at), length + overhead)
        }
        const expected = toHex(byLibrary(method, plain, nonce, AD))
        assert.is(toHex(memory.subarray(at, at + length + overhead)), expected, `round ${round}, block ${block}`)
        assert.is(aead.open(memory, at, length + overhead), length)
        assert.is(toHex(memory.subarray(at, at + length)), toHex(plain))
      }
      wasm.grow(16)
    }
  })

  test(`${name}: buffers that end with the packet or are too small for it are not overrun`, async () => {
    const aead = await openAead(method, key, crypto)
    const nonce = nonceOf(aead, 3)
    const plain = pattern(10, 3)
    const big = new Uint8Array(MAX_SEALED * 2)
    assert.throws(() => aead.seal(plain, 1, 10, nonce, 0, big, 0), /plaintext beyond the end/)
    assert.throws(() => aead.seal(plain, 0, 10, nonce, 1, big, 0), /nonce beyond the end/)
    assert.throws(() => aead.seal(plain, 0, 10, nonce, 0, new Uint8Array(10 + 16 + nonce.length - 1), 0), RangeError)
    assert.throws(() => aead.seal(big, 0, MAX_SEALED, nonce, 0, big, 0), /cannot seal 2048 bytes/)
    assert.throws(() => aead.seal(big, 0, -1, nonce, 0, big, 0), /cannot seal -1 bytes/)
    assert.is(aead.seal(plain, 9, 1, nonce, 0, big, 0), 17 + nonce.length)
  })

  test(`${name}: the caller's key may be wiped immediately, and a wiped method throws`, async () => {
    const ownKey = key.slice()
    const aead = await openAead(method, ownKey, crypto)
    ownKey.fill(0)
    const nonce = nonceOf(aead, 41)
    const datagram = sealed(aead, pattern(60, 3), nonce)
    assert.is(toHex(datagram), toHex(byLibrary(method, pattern(60, 3), nonce, AD)))
    aead.wipe()
    aead.wipe()
    assert.throws(() => sealed(aead, pattern(60, 3), nonce), /the key was wiped/)
    assert.throws(() => aead.open(datagram, 0, datagram.length), /the key was wiped/)
    assert.throws(() => aead.openInto(datagram, datagram.length, new Uint8Array(200), 0), /the key was wiped/)
  })
}

test('the key is in the memory of libsodium while a method is open, and gone after wipe', async () => {
  const raw = rawSodium(sodium, [])
  const secret = Uint8Array.from({ length: 32 }, (_, i) => (i * 151 + 77) & 255)
  const found = () => Buffer.from(raw.HEAPU8.buffer).indexOf(secret) >= 0
  for (const { method, crypto } of variants.filter(({ name }) => name.endsWith('(libsodium-wrappers)'))) {
    const aead = await openAead(method, secret, crypto)
    assert.ok(found(), `${method}: the search finds nothing at all`)
    sealed(aead, pattern(100, 3), nonceOf(aead, 1))
    aead.wipe()
    assert.not(found(), `${method}: still there`)
  }
})

test('growth of the memory of libsodium between packets has no effect', async () => {
  const raw = rawSodium(sodium, [])
  const aead = await openAead('xchacha20poly1305_ietf', key, portableCrypto)
  const plain = pattern(333, 3)
  const before = toHex(sealed(aead, plain, nonceOf(aead, 8)))
  const heap = raw.HEAPU8
  const blocks: number[] = []
  for (let i = 0; i < 64 && raw.HEAPU8 === heap; i++) blocks.push(raw._malloc(1 << 20))
  assert.is.not(raw.HEAPU8, heap)
  assert.is(toHex(sealed(aead, plain, nonceOf(aead, 8))), before)
  assert.ok(opens(aead, fromHex(before)))
  for (const block of blocks) raw._free(block)
})

test('a missing libsodium function is named at start', () => {
  assert.throws(() => rawSodium(sodium, ['_crypto_no_such_call']), /libsodium: _crypto_no_such_call is missing/)
  assert.throws(() => rawSodium({}, []), /compiled module is not published/)
})

for (const why of missing) skip(test, 'the methods on every library', why)

test('a sodium-native that is incomplete, fails to load or does nothing is skipped', async () => {
  assert.is(
    loadNativeSodium(() => ({})),
    undefined,
  )
  assert.is(
    loadNativeSodium(() => {
      throw new Error('no prebuilt binary')
    }),
    undefined,
  )
  const idle = loadNativeSodium(
    () => new Proxy({ version: '1.2.3' }, { get: (about, name) => Reflect.get(about, name) ?? (() => 0) }),
  )
  assert.is(idle?.provider, 'sodium-native 1.2.3')
  for (const method of methods) {
    const aead = await openAead(method, key, { ...portableCrypto, nativeSodium: () => idle })
    assert.not.match(aead.provider, /sodium-native/)
  }
})

test('an HChaCha20 that the system lacks or that computes something else is not used', async () => {
  const openssl = runtimeCrypto.openssl?.()
  if (openssl === undefined) return
  for (const hchacha20 of [() => undefined, () => () => 0, () => () => -1]) {
    const crypto = { ...runtimeCrypto, openssl: () => ({ ...openssl, hchacha20 }) }
    const aead = await openAead('xchacha20poly1305_ietf', key, crypto)
    assert.not.match(aead.provider, /OpenSSL/)
    const nonce = nonceOf(aead, 5)
    const expected = byLibrary('xchacha20poly1305_ietf', pattern(90, 3), nonce, AD)
    assert.is(toHex(sealed(aead, pattern(90, 3), nonce)), toHex(expected))
  }
})

test('the functions of OpenSSL are bound once, however many keys there are', () => {
  assert.is(runtimeCrypto.openssl?.(), runtimeCrypto.openssl?.())
  assert.is(runtimeCrypto.openssl?.()?.hchacha20(), runtimeCrypto.openssl?.()?.hchacha20())
})

test('the list of methods names the library of each method', async () => {
  const listed = await listMethods(runtimeCrypto)
  assert.equal(
    listed.map(({ method }) => method),
    methods,
  )
  for (const { method, provider } of listed) {
    assert.ok(
      variants.some((variant) => variant.method === method && variant.provider.test(provider)),
      provider,
    )
  }
})

const HEAP_PACKETS = 200_000
/** Total growth allowed; 8 bytes per packet would be twice that. */
const HEAP_GROWTH_BYTES = 800_000
const gc = collector()

for (const variant of variants) {
  const name = `${variant.name}: ${HEAP_PACKETS} packets sealed, opened and peeked at leave nothing behind`
  if (gc === null) skip(test, name, 'this runtime offers no forced garbage collection')
  else {
    test(name, async () => {
      const run = await packetLoop(variant)
      run(2000)
      gc()
      const before = process.memoryUsage().heapUsed
      run(HEAP_PACKETS / 2)
      gc()
      const growth = process.memoryUsage().heapUsed - before
      assert.ok(growth < HEAP_GROWTH_BYTES, `the heap grew by ${growth} bytes`)
    })
  }
}

const GARBAGE_PACKETS = 20_000
const GARBAGE_ROUNDS = 7
/** Above what the runtime's compiler takes, below an object per packet; Deno makes objects of addresses for OpenSSL. */
const GARBAGE_BYTES_PER_PACKET = 'deno' in process.versions ? 40 : 12

for (const variant of variants.filter(({ name }) => !name.endsWith('(node:crypto)'))) {
  const name = `${variant.name}: sealing, opening and peeking make no garbage`
  if (gc === null || process.versions.bun !== undefined) {
    skip(test, name, 'this runtime counts its heap only when it collects')
  } else {
    test(name, async () => {
      const run = await packetLoop(variant)
      run(20_000)
      const rounds = Array.from({ length: GARBAGE_ROUNDS }, () => {
        gc()
        const before = process.memoryUsage().heapUsed
        run(GARBAGE_PACKETS / 2)
        return (process.memoryUsage().heapUsed - before) / GARBAGE_PACKETS
      }).sort((a, b) => a - b)
      // the median: a collection in the middle of a round distorts its figure
      const bytes = rounds[GARBAGE_ROUNDS >> 1] ?? Number.NaN
      assert.ok(bytes < GARBAGE_BYTES_PER_PACKET, `${bytes} bytes per packet, rounds ${rounds}`)
    })
  }
}

/** Seals, then opens `count` packets, after a look at the start of every second one, in 64 blocks of one memory. */
async function packetLoop({ method, crypto }: Variant): Promise<(count: number) => void> {
  const aead = await openAead(method, key, crypto)
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 4 }).buffer)
  const received = new Uint8Array(1500)
  const start = new Uint8Array(START_BYTES)
  const overhead = aead.tagBytes + aead.nonceBytes
  return (count) => {
    for (let i = 0; i < count; i++) {
      const at = (i & 63) * BLOCK_BYTES
      const length = 100 + (i & 31)
      memory[at + length + aead.tagBytes] = i & 255
      aead.seal(memory, at, length, memory, at + length + aead.tagBytes, memory, at)
      if ((i & 1) === 0) {
        if (aead.open(memory, at, length + overhead) !== length) throw new Error('not opened')
        continue
      }
      for (let j = 0; j < length + overhead; j++) received[j] = memory[at + j] ?? 0
      if (aead.peek(received, length + overhead, start) !== length) throw new Error('not decrypted')
      if (aead.openInto(received, length + overhead, memory, at) !== length) throw new Error('not opened')
    }
  }
}

test.run()
