/** Keys: derived from passwords, generated, and wiped after use. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { examine } from '../../host/cli/doctor/run.ts'
import type { Config } from '../../host/config/config.ts'
import { parseConfig } from '../../host/config/load.ts'
import { assertStartable } from '../../host/config/security.ts'
import { generatePsk, passwordKey } from '../../host/crypto/key.ts'
import { KEY_BYTES, methods } from '../../host/crypto/methods.ts'
import { openAead, type RuntimeCrypto } from '../../host/crypto/open.ts'
import { startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Log } from '../../host/log/log.ts'
import { runtimeCrypto } from '../../testkit/crypto-variants.ts'
import { type Capture, readVectors, toHex } from '../vectors/captures.ts'
import { MemoryNetwork } from './memory-runtime.ts'

interface PasswordKeys {
  readonly keys: readonly { readonly password: string; readonly derivedKeyHex: string }[]
}

const test = suite('keys')
const FRESH_KEYS = 200
const SERVER = { kcp_bind: '127.0.0.1:5000', connect: '127.0.0.1:9000' }

const configOf = (config: object): Config => parseConfig(new TextEncoder().encode(JSON.stringify(config)))

test('MUST 4: every recorded password yields the recorded key', async () => {
  const { keys } = readVectors<PasswordKeys>('password_keys.json')
  assert.is(keys.length, 9)
  for (const { password, derivedKeyHex } of keys) {
    assert.is(toHex(await passwordKey(password)), derivedKeyHex, JSON.stringify(password))
  }
})

test('MUST 4: the password of a recorded session yields the key of its packets', async () => {
  const { password = '', derivedKeyHex } = readVectors<Capture>('password_xchacha20poly1305_ietf.json')
  assert.is(toHex(await passwordKey(password)), derivedKeyHex)
})

/** Runs `body` and returns every array of key length that was allocated meanwhile. */
async function decoded(body: () => unknown): Promise<Uint8Array[]> {
  const kept: Uint8Array[] = []
  const Buffers = ArrayBuffer
  globalThis.ArrayBuffer = new Proxy(Buffers, {
    construct(target, args: [number]) {
      const buffer = new target(...args)
      if (buffer.byteLength === KEY_BYTES) kept.push(new Uint8Array(buffer))
      return buffer
    },
  })
  try {
    await body()
  } finally {
    globalThis.ArrayBuffer = Buffers
  }
  return kept
}

const isWiped = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

const SECRETS = [{ psk: Buffer.alloc(KEY_BYTES, 0xa7).toString('base64') }, { password: 'correct horse' }]

test('a decoded key is overwritten after a successful and a failed start', async () => {
  for (const secret of SECRETS) {
    for (const method of methods) {
      const config = { ...SERVER, method, ...secret }
      const start = (crypto: RuntimeCrypto) =>
        startEndpoint(new MemoryNetwork().runtime(), configOf(config), new Log(() => {}), crypto)
      const kept = await decoded(async () => (await start(runtimeCrypto)).close())
      assert.ok(kept.length > 0)
      assert.ok(kept.every(isWiped), `${method}: after a start and its end`)
      const broken = {
        aesGcm: {
          provider: '',
          open: () => {
            throw new Error('broken')
          },
        },
        nativeSodium: () => {
          throw new Error('broken')
        },
      }
      const failed = await decoded(() =>
        start(broken).then(
          () => assert.unreachable(),
          (error) => assert.is(error.message, 'broken'),
        ),
      )
      assert.ok(failed.length > 0)
      assert.ok(failed.every(isWiped), `${method}: after a start that failed`)
    }
  }
})

test('the doctor overwrites the keys that it uses', async () => {
  const [psk] = SECRETS
  const config = configOf({ ...SERVER, method: 'aes256gcm', ...psk })
  const kept = await decoded(async () => {
    const runtime = new MemoryNetwork().runtime()
    await examine({ runtime, config, crypto: runtimeCrypto, seconds: 1, progress() {} })
  })
  assert.ok(kept.length > 0)
  assert.ok(kept.every(isWiped))
})

test('checking a configuration decodes no key', async () => {
  const [psk] = SECRETS
  const config = configOf({ ...SERVER, method: 'aes256gcm', ...psk })
  assert.equal(await decoded(() => assertStartable(config, methods)), [])
})

test('passwords derived concurrently do not affect each other', async () => {
  const { keys } = readVectors<PasswordKeys>('password_keys.json')
  const derived = await Promise.all(keys.map(({ password }) => passwordKey(password)))
  assert.equal(
    derived.map(toHex),
    keys.map(({ derivedKeyHex }) => derivedKeyHex),
  )
})

test('a password in another Unicode normalization form is a different password', async () => {
  const composed = 'p\u00e4ssw\u00f6rd'
  assert.is.not(toHex(await passwordKey(composed)), toHex(await passwordKey(composed.normalize('NFD'))))
})

test('a generated psk is canonical Base64 of 32 bytes and never repeats', () => {
  const fresh = Array.from({ length: FRESH_KEYS }, generatePsk)
  for (const psk of fresh) {
    assert.match(psk, /^[A-Za-z0-9+/]{43}=$/)
    const key = Buffer.from(psk, 'base64')
    assert.is(key.length, 32)
    assert.is(key.toString('base64'), psk, 'not canonical')
  }
  assert.is(new Set(fresh).size, FRESH_KEYS)
})

test('a key of the wrong length and an unknown method are rejected by name', async () => {
  for (const method of methods) {
    for (const length of [0, 16, 31, 33, 64]) {
      await rejects(openAead(method, new Uint8Array(length), runtimeCrypto), `key: must be 32 bytes long, is ${length}`)
    }
  }
  for (const method of ['', 'none', 'AES256GCM', 'toString', '__proto__', 'xchacha20poly1305_ietf ']) {
    await rejects(openAead(method, new Uint8Array(32), runtimeCrypto), `method: unknown name ${JSON.stringify(method)}`)
  }
})

async function rejects(promise: Promise<unknown>, start: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof RangeError)) throw new Error(`no RangeError, wanted: ${start}`)
  assert.is(error.message.slice(0, start.length), start)
}

test.run()
