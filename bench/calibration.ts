/** Measures what the ciphers of both sides of a comparison cost on this machine. */

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { loadavg } from 'node:os'
import { openAead } from '../host/crypto/open.ts'
import { messageOf } from '../host/errors.ts'
import { type AeadCost, buildOf, type Calibration, type Measured, sodiumOf } from '../testkit/calibration.ts'
import { runtimeCrypto } from '../testkit/crypto-variants.ts'
import { commandOf, libevPath } from '../testkit/process.ts'
import { bestOf, costOf } from './aead-cost.ts'

const PLAIN_BYTES = 1400
const AD = new TextEncoder().encode('kcptun-libev\0')
const KEY_BYTES = 32
const TAG_BYTES = 16

/** The load average: above about 0.3 for each core figures are unreliable. */
export function loadNow(): string {
  const load = loadavg().map((value) => value.toFixed(2))
  return `load average: ${load.join(', ')}`
}

const readIf = (path: string): string | undefined => (existsSync(path) ? readFileSync(path, 'utf8') : undefined)

/** Runs this program again on a runtime, as `calibrate`. */
function measureOn(runtime: 'node' | 'bun', args: readonly string[]): Measured {
  const [command] = commandOf(runtime)
  const program = process.argv[1] ?? ''
  const { stdout, stderr, status, error } = spawnSync(command, [program, 'calibrate', ...args], { encoding: 'utf8' })
  if (error !== undefined) return { unknown: messageOf(error) }
  if (status !== 0) return { unknown: stderr.trim().split('\n').at(-1) ?? `status ${status}` }
  return JSON.parse(stdout)
}

/** Measures the ciphers of both sides, one after the other. */
export function calibrate(method: string): Calibration {
  const aead: Record<string, Measured> = {}
  for (const runtime of ['node', 'bun'] as const) aead[runtime] = measureOn(runtime, [method])
  if (libevPath !== undefined) {
    const library = sodiumOf(spawnSync('ldd', [libevPath], { encoding: 'utf8' }).stdout ?? '')
    const none = { unknown: 'the program contains its libsodium, or ldd does not read it' }
    aead['libsodium'] = library === undefined ? none : measureOn('bun', [method, library])
  }
  const peerBuild = libevPath === undefined ? 'no kcptun-libev' : buildOf(libevPath, process.env, readIf)
  return { method, plainBytes: PLAIN_BYTES, peerBuild, aead }
}

/** The part `calibrate`: prints the cost of our cipher, or of that of a library, as JSON. */
export async function runCalibration(args: readonly string[]): Promise<void> {
  const [method = '', library] = args
  if (library !== undefined) {
    console.log(JSON.stringify(sodiumCost(library, method)))
    return
  }
  const aead = await openAead(method, new Uint8Array(KEY_BYTES).fill(7), runtimeCrypto)
  const { seal, open } = costOf(aead, PLAIN_BYTES)
  console.log(JSON.stringify({ seal, open, provider: aead.provider }))
  aead.wipe()
}

/** Calls libsodium directly, on Bun: the calls of kcptun-libev. */
function sodiumCost(library: string, method: string): AeadCost & { provider: string } {
  const { dlopen, ptr }: typeof import('bun:ffi') = createRequire(import.meta.url)('bun:ffi')
  const sealed = new Uint8Array(PLAIN_BYTES + TAG_BYTES)
  const plain = new Uint8Array(PLAIN_BYTES + TAG_BYTES)
  const [nonce, key] = [new Uint8Array(24), new Uint8Array(KEY_BYTES).fill(7)]
  const [c, m, n, k, ad] = [ptr(sealed), ptr(plain), ptr(nonce), ptr(key), ptr(AD)]
  const common = dlopen(library, {
    sodium_init: { args: [], returns: 'i32' },
    sodium_version_string: { args: [], returns: 'cstring' },
    sodium_library_version_major: { args: [], returns: 'i32' },
  }).symbols
  common.sodium_init()
  const call = bestOf(() => common.sodium_library_version_major())
  const provider = `libsodium ${String(common.sodium_version_string())} by bun:ffi, of which ${call.toFixed(0)} for each call`
  const check = (result: number): void => {
    if (result !== 0) throw new Error(`${method}: libsodium returned ${result}`)
  }
  if (method === 'xsalsa20poly1305') {
    const args = ['ptr', 'ptr', 'u64', 'ptr', 'ptr'] as const
    const box = dlopen(library, {
      crypto_secretbox_easy: { args, returns: 'i32' },
      crypto_secretbox_open_easy: { args, returns: 'i32' },
    }).symbols
    const seal = bestOf(() => check(box.crypto_secretbox_easy(c, m, PLAIN_BYTES, n, k)))
    const open = bestOf(() => check(box.crypto_secretbox_open_easy(m, c, PLAIN_BYTES + TAG_BYTES, n, k)))
    return { seal, open, provider }
  }
  const name = `crypto_aead_${method}`
  const args = ['ptr', 'ptr', 'ptr', 'u64', 'ptr', 'u64', 'ptr', 'ptr', 'ptr'] as const
  const symbols = dlopen(library, {
    [`${name}_encrypt`]: { args, returns: 'i32' },
    [`${name}_decrypt`]: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'u64', 'ptr', 'u64', 'ptr', 'ptr'], returns: 'i32' },
  }).symbols as Readonly<Record<string, (...args: unknown[]) => number>>
  const [encrypt, decrypt] = [symbols[`${name}_encrypt`], symbols[`${name}_decrypt`]]
  if (encrypt === undefined || decrypt === undefined) throw new Error(`${method}: not in ${library}`)
  const seal = bestOf(() => check(encrypt(c, null, m, PLAIN_BYTES, ad, AD.length, null, n, k)))
  const open = bestOf(() => check(decrypt(m, null, null, c, PLAIN_BYTES + TAG_BYTES, ad, AD.length, n, k)))
  return { seal, open, provider }
}
