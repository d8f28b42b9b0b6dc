/** The configuration file as a target: bytes, through the JSON reader, the schema, the rules and the advice of `check`. */
import { isDeepStrictEqual } from 'node:util'
import type { Config } from '../../../host/config/config.ts'
import { keepFixed } from '../../../host/config/diff.ts'
import { readJson } from '../../../host/config/json.ts'
import { keyWarnings } from '../../../host/config/lint.ts'
import { parseConfig } from '../../../host/config/load.ts'
import { configWarnings } from '../../../host/config/rules.ts'
import { checkStart } from '../../../host/config/security.ts'
import { examine, KEYS } from '../../../host/config/unknown-keys.ts'
import { ConfigError } from '../../../host/errors.ts'
import { concat, utf8 } from '../../../testkit/sim/wire.ts'
import { fault } from '../pattern.ts'
import { hostCounters } from './coverage.ts'
import type { Target } from './loop.ts'

const METHODS = ['xchacha20poly1305_ietf']
const PSK = `${'A'.repeat(43)}=`
const SYNTAX = /^line \d+, column \d+: /

/** @throws whatever `call` throws, unless it is a ConfigError that names key and reason; that error */
function refusalOf(call: () => unknown): ConfigError | undefined {
  try {
    call()
    return undefined
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    if (error.reason === '' || !error.message.includes(error.reason))
      fault(`refused without a reason: ${error.message}`)
    if (error.key !== '' && !error.message.includes(error.key)) fault(`the key is missing: ${error.message}`)
    return error
  }
}

/** JSON.parse of bytes that are strict UTF-8; undefined if it refuses. `spaces`: other white space may stand in strings. */
function strictly(bytes: Uint8Array, spaces: boolean): { readonly value: unknown } | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return { value: JSON.parse(spaces ? text.replace(/[\t\n\r]/g, ' ') : text) }
  } catch {
    return undefined
  }
}

/** Reader and JSON.parse agree, but for what protocol.md 10.1 says about strings, nesting and the outermost value. */
function compare(bytes: Uint8Array): void {
  const refusal = refusalOf(() => readJson(bytes))
  const strict = strictly(bytes, refusal === undefined)
  const isAscii = bytes.every((byte) => byte === 9 || byte === 10 || byte === 13 || (byte >= 32 && byte < 127))
  if (refusal === undefined && isAscii && strict === undefined) fault('JSON.parse refuses what the reader accepts')
  if (refusal !== undefined && strict !== undefined && !/nested|key name/.test(refusal.reason))
    fault(`the reader refuses what JSON.parse accepts: ${refusal.message}`)
  if (refusal !== undefined && refusal.key === '' && !SYNTAX.test(refusal.reason) && !/BOM/.test(refusal.reason))
    fault(`a refused file without a place: ${refusal.message}`)
  if (refusal === undefined) keyWarnings(examine(readJson(bytes)))
}

function check(bytes: Uint8Array): void {
  compare(bytes)
  let config: Config | undefined
  refusalOf(() => {
    config = parseConfig(bytes)
  })
  if (config === undefined) return
  const { mode, ...keys } = config
  const again = parseConfig(utf8(JSON.stringify(keys)))
  if (again.mode !== mode || !isDeepStrictEqual(again, config))
    fault('a configuration reads differently when written again')
  if (keepFixed(config, again).kept.length > 0) fault('a reload of the same file would keep a key')
  const accepted = config
  refusalOf(() => configWarnings(accepted))
  const secret = accepted.psk ?? accepted.password ?? ''
  const refusal = refusalOf(() => checkStart(accepted, METHODS))
  if (secret.length > 8 && refusal?.key === 'psk' && refusal.message.includes(secret)) fault('a secret in a message')
}

const SEEDS: readonly string[] = [
  '{"listen":"127.0.0.1:80","kcp_connect":"a:1","method":"xchacha20poly1305_ietf","password":"x"}',
  `{"connect":"[::1]:80","kcp_bind":"*:1","psk":"${PSK}","kcp":{"mtu":1400,"nc":1},"tcp":{"nodelay":true},"udp":{"path":"fast"}}`,
  '{"rendezvous_server":"a:1","service_id":"s","connect":"a:2","obfs":"dpi/tcp","http_listen":":0","http_token":"12345678"}',
  '{"kcp_bind":":1","timeout":600,"workers":2,"replay":"strict","user":"nobody:","log":"x","unknown":[{"a":null}, 1.5e3]}',
  '{"kcp":{"mtu":300},"kcp":{},"listen":"\\u0041\\ud800:1","loglevel":0,"memory":64,"max_sessions":1}',
]
const WORDS =
  '" : , { } [ ] true false null \\ \\u \\u0000 \\ud83d\\ude00 0 1 -1 1.0 1e3 65535 65536 4294967296 // /* {} [] "" "\\"" 127.0.0.1:80 dpi/tcp auto strict fast portable xchacha20poly1305_ietf'

export const CONFIG_TARGET: Target = {
  name: 'config',
  seeds: SEEDS.map(utf8),
  dictionary: [
    ...WORDS.split(' ').map(utf8),
    ...KEYS.map((key) => utf8(`"${key.slice(key.lastIndexOf('.') + 1)}":`)),
    Uint8Array.of(0xef, 0xbb, 0xbf),
    Uint8Array.of(0xc3, 0x28),
    utf8('['.repeat(257)),
    concat(utf8('{"x":'), utf8('[]}')),
  ],
  bytesMax: 1500,
  inputsEach: 1,
  make: () => ({ counters: hostCounters, run: check }),
}
