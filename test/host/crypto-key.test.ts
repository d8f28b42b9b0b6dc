/**
 * Keys: from passwords and fresh ones.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { methods, openAead } from '../../host/crypto/aead.ts'
import { generatePsk, passwordKey } from '../../host/crypto/key.ts'
import { type Capture, readVectors, toHex } from '../vectors/captures.ts'
import { runtimeCrypto } from './backends.ts'

interface PasswordKeys {
  readonly keys: readonly { readonly password: string; readonly derivedKeyHex: string }[]
}

const test = suite('keys')
const FRESH_KEYS = 200

test('MUST 4: every recorded password gives the recorded key', async () => {
  const { keys } = readVectors<PasswordKeys>('password_keys.json')
  assert.is(keys.length, 9)
  for (const { password, derivedKeyHex } of keys) {
    assert.is(toHex(await passwordKey(password)), derivedKeyHex, JSON.stringify(password))
  }
})

test('MUST 4: the password of a recorded session gives the key of its packets', async () => {
  const { password = '', derivedKeyHex } = readVectors<Capture>('password_xchacha20poly1305_ietf.json')
  assert.is(toHex(await passwordKey(password)), derivedKeyHex)
})

test('passwords derived at the same time do not disturb each other', async () => {
  const { keys } = readVectors<PasswordKeys>('password_keys.json')
  const derived = await Promise.all(keys.map(({ password }) => passwordKey(password)))
  assert.equal(
    derived.map(toHex),
    keys.map(({ derivedKeyHex }) => derivedKeyHex),
  )
})

test('a password in another Unicode form is another password', async () => {
  const composed = 'p\u00e4ssw\u00f6rd'
  assert.is.not(toHex(await passwordKey(composed)), toHex(await passwordKey(composed.normalize('NFD'))))
})

test('a fresh psk is canonical Base64 of 32 bytes and never the same', () => {
  const fresh = Array.from({ length: FRESH_KEYS }, generatePsk)
  for (const psk of fresh) {
    assert.match(psk, /^[A-Za-z0-9+/]{43}=$/)
    const key = Buffer.from(psk, 'base64')
    assert.is(key.length, 32)
    assert.is(key.toString('base64'), psk, 'not canonical')
  }
  assert.is(new Set(fresh).size, FRESH_KEYS)
})

test('a key of the wrong length and an unknown method are refused by name', async () => {
  for (const method of methods) {
    for (const length of [0, 16, 31, 33, 64]) {
      await rejects(openAead(method, new Uint8Array(length), runtimeCrypto), `key: ${length} bytes, must be 32`)
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
