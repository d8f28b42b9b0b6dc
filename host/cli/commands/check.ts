/** `kcptun-wasm check`: validates a configuration, explains it, and lists warnings and notes. */

import { applyEdits, modify } from 'jsonc-parser'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from '../../config/config.ts'
import { type JsonNode, readJson } from '../../config/json.ts'
import { fileWarnings, keyWarnings, type LintResult, lint } from '../../config/lint.ts'
import { type Datagram, datagrams } from '../../config/mtu.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { modeName } from '../../config/rules.ts'
import { examine, type Findings, isSecret, KEYS } from '../../config/unknown-keys.ts'
import { type Value, validate } from '../../config/validate.ts'
import { ConfigError, HIDDEN } from '../../errors.ts'
import { isUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import type { Option } from '../options.ts'
import { type Command, configPath, readConfigFile } from './command.ts'
import { startable } from './startable.ts'

/** Column at which values start. */
const VALUE_COLUMN = 23

const CONFIG: Option = {
  long: '--config',
  short: '-c',
  value: '<file>',
  help: 'JSON config file',
  offers: 'files',
}
const JSON_OUT: Option = { long: '--json', help: 'print the result as JSON' }

/** The rules of a proxy after those of the file. */
const BUILT_IN = [
  'deny private (loopback, private, link-local, multicast, metadata and other special-purpose addresses), whatever allows a name or *',
  'allow *',
]

/** The result of checking a file. */
interface Report extends LintResult {
  /** The first is what a start reports. */
  readonly errors: readonly ConfigError[]
  readonly config: Config | undefined
  readonly values: ReadonlyMap<string, Value>
  readonly findings: Findings
  readonly datagrams: readonly Datagram[]
}

const NOTHING_FOUND: Findings = { set: [], unknown: [], duplicate: [], foreign: [], ours: [] }

/** An address that every key for addresses accepts. */
const ADDRESS = '127.0.0.1:1'

/** Values in place of invalid or missing ones, so that the search goes on without errors that follow from them. */
const STAND_INS: Readonly<Record<string, string>> = {
  listen: ADDRESS,
  connect: ADDRESS,
  udp_listen: ADDRESS,
  udp_connect: ADDRESS,
  kcp_bind: ADDRESS,
  kcp_connect: ADDRESS,
  rendezvous_server: ADDRESS,
  http_listen: ADDRESS,
  method: 'aes256gcm',
  psk: `${'A'.repeat(43)}=`,
}

/** The key of an entry of a list. */
const keyOf = (path: string): string => path.replace(/\[\d+\]$/, '')

/** A JSON text with another value of a key (dotted); undefined removes the key. */
const withValue = (text: string, key: string, value: string | undefined): string =>
  applyEdits(text, modify(text, keyOf(key).split('.'), value, {}))

/**
 * All errors of a file: the value that the first one names is replaced or left out, and so on. What is missing after a
 * key was left out may be a consequence, and is not reported.
 */
function errorsOf(bytes: Uint8Array, { set }: Findings): ConfigError[] {
  const errors: ConfigError[] = []
  const replaced = new Set<string>()
  let isCut = false
  let text = new TextDecoder().decode(bytes)
  for (;;) {
    try {
      startable(new TextEncoder().encode(text))
      return errors
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const { key, message } = error
      const isConsequence = replaced.has(key) || (isCut && !set.includes(keyOf(key)))
      // a key that is there twice may take two turns
      const isKnown = errors.some((known) => known.message === message)
      if (!isConsequence && !isKnown) errors.push(error)
      if (key === '') return errors
      const standIn = replaced.has(key) ? undefined : STAND_INS[key]
      let next = withValue(text, key, standIn)
      if (key === 'method' && !set.includes('psk') && !set.includes('password'))
        next = withValue(next, 'psk', STAND_INS['psk'])
      if (next === text) return errors
      if (standIn === undefined) isCut = true
      else replaced.add(key)
      text = next
    }
  }
}

function inspect(path: string, bytes: Uint8Array, mode: number | undefined, hasFastUdp: boolean): Report {
  let findings = NOTHING_FOUND
  const found = (): string[] => [...keyWarnings(findings), ...fileWarnings(path, mode, findings.set.some(isSecret))]
  try {
    const document: JsonNode = readJson(bytes)
    findings = examine(document)
    const config = startable(bytes)
    const { warnings, notes } = lint(config, findings, hasFastUdp)
    const sizes = datagrams(config)
    return {
      errors: [],
      config,
      values: validate(document),
      findings,
      datagrams: sizes,
      warnings: [...found(), ...warnings],
      notes,
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const warnings = found()
    return {
      errors: [error, ...errorsOf(bytes, findings).slice(1)],
      config: undefined,
      values: new Map(),
      findings,
      datagrams: [],
      warnings,
      notes: [],
    }
  }
}

/** The value to show for a key; null = automatic or not set. */
function shownValue(values: ReadonlyMap<string, Value>, key: string): Value | null {
  const value = values.get(key)
  if (value === undefined) return null
  if (!isSecret(key)) return value
  // passwords by name
  return typeof value === 'object' ? Object.fromEntries(Object.keys(value).map((name) => [name, HIDDEN])) : HIDDEN
}

const describe = ({ key, reason, message }: ConfigError): object => ({ key, reason, message })

function jsonReport(path: string, report: Report): string {
  const { errors, config, values, findings } = report
  const [error] = errors
  const key = config?.method === undefined ? null : config.psk === undefined ? 'password' : 'psk'
  const object = {
    file: path,
    valid: error === undefined,
    error: error === undefined ? null : describe(error),
    errors: errors.map(describe),
    mode: config === undefined ? null : modeName(config.mode),
    method: config?.method ?? null,
    key,
    datagrams: report.datagrams,
    values: config === undefined ? {} : Object.fromEntries(KEYS.map((name) => [name, shownValue(values, name)])),
    set: findings.set,
    warnings: report.warnings,
    notes: report.notes,
  }
  return `${JSON.stringify(object, null, 2)}\n`
}

const place = (text = ''): string =>
  isProxy(text) ? `${text} proxy in this process` : isUnix(text) ? text : `TCP ${text}`

/** The path of a connection through this endpoint. */
function route(config: Config): string {
  const { mode, kcp_bind, kcp_connect, rendezvous_server, service_id } = config
  const [listen, connect] = [
    config.udp_listen === undefined ? place(config.listen) : `UDP ${config.udp_listen}`,
    config.udp_connect === undefined ? place(config.connect) : `UDP ${config.udp_connect}`,
  ]
  const carrier = config.obfs ?? 'UDP'
  const meeting = `rendezvous server ${rendezvous_server}, service ${JSON.stringify(service_id)}`
  if ((mode & MODE_CLIENT) !== 0) {
    const server = (mode & MODE_RENDEZVOUS) === 0 ? `${carrier} ${kcp_connect} (server)` : `server found by ${meeting}`
    return `applications -> ${listen} -> ${server} -> target`
  }
  if ((mode & MODE_SERVER) !== 0) {
    const source = (mode & MODE_RENDEZVOUS) === 0 ? `${carrier} ${kcp_bind}` : `clients found by ${meeting}`
    return `clients -> ${source} -> ${connect}${isProxy(config.connect) ? '' : ' (target)'}`
  }
  return `rendezvous server on UDP ${kcp_bind}`
}

function security({ method, psk }: Config): string {
  if (method === undefined) return 'not encrypted, not authenticated'
  return `${method}, key from ${psk === undefined ? 'password' : 'psk'}`
}

function datagramTable(config: Config, sizes: readonly Datagram[]): string {
  const transport = config.obfs === undefined ? 'UDP' : 'TCP'
  const rows: readonly (readonly [string, (size: Datagram) => string])[] = [
    ['', ({ family }) => `IPv${family}`],
    ['IP packet (kcp.mtu)', ({ packet }) => String(packet)],
    [`IP and ${transport} headers`, ({ headers }) => String(headers)],
    ['nonce and tag', ({ seal }) => String(seal)],
    ['KCP header', ({ segment }) => String(segment)],
    ['data', ({ data }) => String(data)],
    ['', ({ data, packet }) => `${((100 * data) / packet).toFixed(1)} %`],
  ]
  return rows
    .map(
      ([label, cell]) => `  ${label.padEnd(VALUE_COLUMN - 4)}${sizes.map((size) => cell(size).padStart(8)).join('')}\n`,
    )
    .join('')
}

function valueText(value: Value): string {
  if (typeof value === 'object') return Object.values(value).length === 0 ? '-' : wordsOf(value).join(', ')
  return value === '' ? '""' : String(value)
}

/** The members of a list, or the names in a map. */
const wordsOf = (value: Exclude<Value, string | number | boolean>): readonly string[] =>
  Array.isArray(value) ? value : Object.keys(value)

/** What a server that is a proxy does, in the order in which it decides. */
function proxyTable({ connect, proxy_rules, proxy_users }: Config): string {
  if (!isProxy(connect)) return ''
  const users = Object.keys(proxy_users)
  const rules = [...proxy_rules, ...BUILT_IN].map((rule, index) => `  ${String(index + 1).padStart(2)}. ${rule}\n`)
  return `
${connect} proxy for ${users.length === 0 ? 'every client' : `the users ${users.join(', ')}`}; the first rule that matches counts:
${rules.join('')}`
}

function valueTable({ values, findings }: Report): string {
  return KEYS.map((key) => {
    const value = shownValue(values, key)
    const automatic = key.startsWith('kcp.') ? 'automatic' : '-'
    const mark = findings.set.includes(key) ? '*' : ' '
    return `${mark} ${key.padEnd(VALUE_COLUMN - 2)}${value === null ? automatic : valueText(value)}\n`
  }).join('')
}

const list = (title: string, lines: readonly string[]): string =>
  lines.length === 0 ? '' : `\n${title}:\n${lines.map((line) => `- ${line}\n`).join('')}`

function textReport(path: string, report: Report): string {
  const { errors, config } = report
  const doubts = list('warnings', report.warnings) + list('notes', report.notes)
  if (config === undefined) return `${path}: invalid\n${errors.map(({ message }) => `${message}\n`).join('')}${doubts}`
  return `${path}: valid, ${modeName(config.mode)}
${route(config)}
${security(config)}

layout of a full datagram, in bytes:
${datagramTable(config, report.datagrams)}${proxyTable(config)}
values (* = set in the file):
${valueTable(report)}${doubts}`
}

function hasFastUdp({ os }: Runtime): boolean {
  try {
    return os?.libc() !== undefined
  } catch {
    return false
  }
}

export const command: Command = {
  options: [CONFIG, JSON_OUT],
  notes: 'exit status: 0 valid, with or without warnings; 1 invalid',
  async run({ runtime }, given) {
    const path = configPath(given)
    const bytes = await readConfigFile(runtime, path)
    const report = inspect(path, bytes, runtime.commandConsole?.fileMode(path), hasFastUdp(runtime))
    const text = given.flags.has(JSON_OUT.long) ? jsonReport(path, report) : textReport(path, report)
    runtime.print('stdout', text)
    return report.errors.length === 0 ? 0 : 1
  },
}
