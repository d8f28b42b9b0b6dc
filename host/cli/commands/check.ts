/** `kcptun-wasm check`: validates a configuration, explains it, and lists warnings and notes. */

import { applyEdits, modify } from 'jsonc-parser'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from '../../config/config.ts'
import { type JsonNode, readJson } from '../../config/json.ts'
import { isExpired } from '../../config/keys.ts'
import { fileWarnings, keyWarnings, type LintResult, lint } from '../../config/lint.ts'
import { type Datagram, datagrams } from '../../config/mtu.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { modeName, monitoringWarnings } from '../../config/rules.ts'
import { SESSIONS_MAX } from '../../config/security.ts'
import { defaultsFor, entriesOf, PROCESS_KEYS } from '../../config/tunnels.ts'
import { examine, type Findings, isSecret, KEYS } from '../../config/unknown-keys.ts'
import { type ItemValues, readValues, type Value, validate } from '../../config/validate.ts'
import { ConfigError, HIDDEN, quote } from '../../errors.ts'
import { isLogFile, parseLogFile } from '../../log/file-name.ts'
import { isUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import type { Option } from '../options.ts'
import { type Command, configPath, readConfigFile } from './command.ts'
import { startableFile } from './startable.ts'

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

/** What is shown of one tunnel. */
interface TunnelReport extends LintResult {
  readonly config: Config
  readonly values: ReadonlyMap<string, Value>
  /** Keys that the entry sets. */
  readonly set: readonly string[]
  readonly datagrams: readonly Datagram[]
}

/** The result of checking a file. */
interface Report extends LintResult {
  /** Of a file with `tunnels`. */
  readonly tunnels: readonly TunnelReport[] | undefined
  /** The first is what a start reports. */
  readonly errors: readonly ConfigError[]
  readonly config: Config | undefined
  readonly values: ReadonlyMap<string, Value>
  readonly findings: Findings
  readonly datagrams: readonly Datagram[]
}

const NOTHING_FOUND: Findings = { set: [], unknown: [], duplicate: [], foreign: [], ours: [], entries: [] }

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
const keyOf = (path: string): string => path.replace(/(?<=kcp_connect|proxy_\w+)\[\d+\]$/, '')

/** A member of an entry of `keys`, which must be there and have a value of its own. */
const KEY_MEMBER = /^keys\[(\d+)\]\.(name|psk)$/

/** @param name of a key in its tunnel */
function standInFor(name: string): string | undefined {
  const [, index = '', member] = KEY_MEMBER.exec(name) ?? []
  if (member === undefined) return STAND_INS[name]
  return member === 'name' ? `replaced-${index}` : `${index.padEnd(43, 'A')}=`
}

/** A JSON text with another value of a key (dotted); undefined removes the key. */
const withValue = (text: string, key: string, value: string | undefined): string =>
  applyEdits(text, modify(text, pathOf(keyOf(key)), value, {}))

/** Members and indexes of a key such as `tunnels[1].kcp.mtu`. */
const pathOf = (key: string): (string | number)[] =>
  key
    .split(/[.[\]]+/)
    .filter((part) => part !== '')
    .map((part) => (/^\d+$/.test(part) ? Number(part) : part))

/** Divides a key into the path of its entry, empty outside of `tunnels`, and the key in it. */
function divide(key: string): readonly [path: string, name: string] {
  const [path = ''] = /^tunnels\[\d+\]\.?/.exec(key) ?? []
  return [path, key.slice(path.length)]
}

/**
 * All errors of a file: the value that the first one names is replaced or left out, and so on. What is missing after a
 * key was left out may be a consequence, and is not reported.
 */
function errorsOf(bytes: Uint8Array, { set: own, entries }: Findings): ConfigError[] {
  const set = own.concat(...entries.map((entry, index) => entry.set.map((key) => `tunnels[${index}].${key}`)))
  const errors: ConfigError[] = []
  const replaced = new Set<string>()
  let isCut = false
  let text = new TextDecoder().decode(bytes)
  for (;;) {
    try {
      startableFile(new TextEncoder().encode(text))
      return errors
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const { key, message } = error
      const [path, name] = divide(keyOf(key))
      const isSet = set.includes(path + name) || name.startsWith('keys[')
      const isInherited = !isSet && set.includes(name)
      const isConsequence = replaced.has(key) || (isCut && !isSet && !isInherited)
      // a key that is there twice may take two turns; what entries inherit is reported for the first of them
      const isSame = (known: ConfigError): boolean =>
        divide(keyOf(known.key))[1] === name && known.reason === error.reason
      const isKnown = errors.some((known) => known.message === message || (isInherited && isSame(known)))
      if (!isConsequence && !isKnown) errors.push(error)
      if (name === '') return errors
      const standIn = replaced.has(key) ? undefined : standInFor(name)
      let next = withValue(text, key, standIn)
      if (
        name === 'method' &&
        !['psk', 'password', 'keys'].some((each) => set.includes(each) || set.includes(path + each))
      )
        next = withValue(next, `${path}psk`, STAND_INS['psk'])
      if (next === text) return errors
      if (standIn === undefined) isCut = true
      else replaced.add(key)
      text = next
    }
  }
}

/** @param above keys that are set beside `tunnels` */
function inspectTunnel(
  config: Config,
  values: ReadonlyMap<string, Value>,
  set: readonly string[],
  above: readonly string[],
  hasFastUdp: boolean,
): TunnelReport {
  const own = { ...config, http_listen: undefined, loglevel: 0, log: undefined }
  const { warnings, notes } = lint(own, { ...NOTHING_FOUND, set: [...above, ...set] }, hasFastUdp)
  return { config, values, set, datagrams: datagrams(config), warnings, notes }
}

/** What a start will miss that does not concern the file alone. */
interface System {
  readonly hasFastUdp: boolean
  /** Why a log file cannot be opened. */
  logProblem(path: string): string | undefined
}

/** The output of the log, which is tried without creating a file. */
function logWarnings({ log }: Config, { logProblem }: System): string[] {
  const problem = log !== undefined && isLogFile(log) ? logProblem(parseLogFile(log)) : undefined
  const who = 'this user cannot open it'
  return problem === undefined ? [] : [`config key log = ${quote(log ?? '')}: ${who}: ${problem}`]
}

function inspect(path: string, bytes: Uint8Array, mode: number | undefined, system: System): Report {
  const { hasFastUdp } = system
  let findings = NOTHING_FOUND
  const isAnySecret = (): boolean => [findings, ...findings.entries].some(({ set }) => set.some(isSecret))
  const found = (): string[] => [...keyWarnings(findings), ...fileWarnings(path, mode, isAnySecret())]
  const empty = { tunnels: undefined, values: new Map<string, Value>(), datagrams: [], notes: [] }
  try {
    const document: JsonNode = readJson(bytes)
    findings = examine(document)
    const { config, tunnels } = startableFile(bytes)
    const base = { ...empty, errors: [], config, values: validate(document), findings }
    if (tunnels !== undefined) {
      const above = readValues(document)
      const reports = (entriesOf(document) ?? []).flatMap((entry, index) => {
        const tunnel = tunnels[index]
        if (tunnel === undefined) return []
        return inspectTunnel(
          tunnel,
          validate(entry, defaultsFor(entry, above)),
          [...readValues(entry).keys()],
          [...above.keys()],
          hasFastUdp,
        )
      })
      return {
        ...base,
        tunnels: reports,
        warnings: [...found(), ...monitoringWarnings(config), ...logWarnings(config, system)],
      }
    }
    const { warnings, notes } = lint(config, findings, hasFastUdp)
    return {
      ...base,
      datagrams: datagrams(config),
      warnings: [...found(), ...warnings, ...logWarnings(config, system)],
      notes,
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const errors = [error, ...errorsOf(bytes, findings).slice(1)]
    return { ...empty, errors, config: undefined, findings, warnings: found() }
  }
}

/** The secrets of an entry of `keys`. */
const hiddenIn = (item: ItemValues): ItemValues =>
  Object.fromEntries(['psk', 'password'].filter((name) => name in item).map((name) => [name, HIDDEN]))

const isItems = (value: Value): value is readonly ItemValues[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'object')

/** The value to show for a key; null = automatic or not set. */
function shownValue(values: ReadonlyMap<string, Value>, key: string): Value | null {
  const value = values.get(key)
  if (value === undefined) return null
  if (!isSecret(key)) return value
  if (isItems(value)) return value.map((item) => ({ ...item, ...hiddenIn(item) }))
  // passwords by name
  return typeof value === 'object' ? Object.fromEntries(Object.keys(value).map((name) => [name, HIDDEN])) : HIDDEN
}

const describe = ({ key, reason, message }: ConfigError): object => ({ key, reason, message })

/** Which key holds the key. */
const sourceOf = ({ psk, keys }: Config): string => (keys.length > 0 ? 'keys' : psk === undefined ? 'password' : 'psk')

const keySource = (config: Config): string | null => (config.method === undefined ? null : sourceOf(config))

const valuesJson = (values: ReadonlyMap<string, Value>, keys: readonly string[]): object =>
  Object.fromEntries(keys.map((name) => [name, shownValue(values, name)]))

/** Keys that an entry may have. */
const ENTRY_KEYS = KEYS.filter((key) => !PROCESS_KEYS.has(key))

function tunnelJson({ config, values, set, datagrams: sizes, warnings, notes }: TunnelReport): object {
  const { name, mode, method = null } = config
  const shown = valuesJson(values, ENTRY_KEYS)
  return {
    name,
    mode: modeName(mode),
    method,
    key: keySource(config),
    datagrams: sizes,
    values: shown,
    set,
    warnings,
    notes,
  }
}

function jsonReport(path: string, report: Report): string {
  const { errors, config, values, findings, tunnels } = report
  const [error] = errors
  const isOne = config !== undefined && tunnels === undefined
  const object = {
    file: path,
    valid: error === undefined,
    error: error === undefined ? null : describe(error),
    errors: errors.map(describe),
    mode: isOne ? modeName(config.mode) : null,
    method: (isOne && config.method) || null,
    key: isOne ? keySource(config) : null,
    datagrams: report.datagrams,
    values:
      config === undefined ? {} : valuesJson(values, isOne ? KEYS : KEYS.filter((name) => PROCESS_KEYS.has(name))),
    set: findings.set,
    warnings: report.warnings,
    notes: report.notes,
    tunnels: tunnels?.map(tunnelJson),
  }
  return `${JSON.stringify(object, null, 2)}\n`
}

const place = (text = ''): string =>
  isProxy(text) ? `${text} proxy in this process` : isUnix(text) ? text : `TCP ${text}`

/** The path of a connection through this endpoint. */
function route(config: Config): string {
  const { mode, kcp_bind, kcp_connect, servers, strategy, rendezvous_server, service_id } = config
  const [listen, connect] = [
    config.udp_listen === undefined ? place(config.listen) : `UDP ${config.udp_listen}`,
    config.udp_connect === undefined ? place(config.connect) : `UDP ${config.udp_connect}`,
  ]
  const carrier = config.obfs ?? 'UDP'
  const meeting = `rendezvous server ${rendezvous_server}, service ${JSON.stringify(service_id)}`
  if ((mode & MODE_CLIENT) !== 0) {
    const several = `${carrier} to one of ${servers.length} servers (${strategy}): ${servers.join(', ')}`
    const direct = servers.length > 1 ? several : `${carrier} ${kcp_connect} (server)`
    const server = (mode & MODE_RENDEZVOUS) === 0 ? direct : `server found by ${meeting}`
    return `applications -> ${listen} -> ${server} -> target`
  }
  if ((mode & MODE_SERVER) !== 0) {
    const source = (mode & MODE_RENDEZVOUS) === 0 ? `${carrier} ${kcp_bind}` : `clients found by ${meeting}`
    return `clients -> ${source} -> ${connect}${isProxy(config.connect) ? '' : ' (target)'}`
  }
  return `rendezvous server on UDP ${kcp_bind}`
}

function security(config: Config): string {
  const { method, keys } = config
  if (method === undefined) return 'not encrypted, not authenticated'
  if (keys.length === 0) return `${method}, key from ${sourceOf(config)}`
  const users = keys.map((key) => {
    const limit = key.max_sessions === SESSIONS_MAX ? '' : `, at most ${key.max_sessions} sessions`
    const end = key.not_after === undefined ? '' : `${isExpired(key) ? ', EXPIRED' : ', until'} ${key.not_after}`
    return `\n  ${key.name}${end}${limit}`
  })
  return `${method}, ${keys.length === 1 ? 'key of' : `${keys.length} keys, of`}${users.join('')}`
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

/** The members of a list, the names in a map or of the objects in a list. */
function wordsOf(value: Exclude<Value, string | number | boolean>): readonly string[] {
  if (isItems(value)) return value.map(({ name }) => String(name))
  return Array.isArray(value) ? value : Object.keys(value)
}

/** What a server that is a proxy does, in the order in which it decides. */
function proxyTable({ connect, proxy_rules, proxy_users }: Config): string {
  if (!isProxy(connect)) return ''
  const users = Object.keys(proxy_users)
  const rules = [...proxy_rules, ...BUILT_IN].map((rule, index) => `  ${String(index + 1).padStart(2)}. ${rule}\n`)
  return `
${connect} proxy for ${users.length === 0 ? 'every client' : `the users ${users.join(', ')}`}; the first rule that matches counts:
${rules.join('')}`
}

function valueLine(values: ReadonlyMap<string, Value>, key: string, mark: string): string {
  const value = shownValue(values, key)
  const automatic = key.startsWith('kcp.') ? 'automatic' : '-'
  return `${mark} ${key.padEnd(VALUE_COLUMN - 2)}${value === null ? automatic : valueText(value)}\n`
}

const valueTable = ({ values, findings }: Report): string =>
  KEYS.map((key) => valueLine(values, key, findings.set.includes(key) ? '*' : ' ')).join('')

function tunnelText(
  { config, values, set, datagrams: sizes, warnings, notes }: TunnelReport,
  { findings }: Report,
): string {
  const lines = ENTRY_KEYS.filter((key) => set.includes(key) || findings.set.includes(key))
  return `
tunnel ${config.name}: ${modeName(config.mode)}
${route(config)}
${security(config)}
full datagrams carry ${sizes.map(({ family, data, packet }) => `${data} of ${packet} bytes (IPv${family})`).join(', ')}
${lines.map((key) => valueLine(values, key, set.includes(key) ? '*' : ' ')).join('')}${proxyTable(config)}${list('warnings', warnings)}${list('notes', notes)}`
}

const list = (title: string, lines: readonly string[]): string =>
  lines.length === 0 ? '' : `\n${title}:\n${lines.map((line) => `- ${line}\n`).join('')}`

function textReport(path: string, report: Report): string {
  const { errors, config, findings } = report
  const doubts = list('warnings', report.warnings) + list('notes', report.notes)
  if (config === undefined) return `${path}: invalid\n${errors.map(({ message }) => `${message}\n`).join('')}${doubts}`
  const { tunnels } = report
  if (tunnels !== undefined) {
    const process = KEYS.filter((key) => PROCESS_KEYS.has(key)).map((key) =>
      valueLine(report.values, key, findings.set.includes(key) ? '*' : ' '),
    )
    const parts = tunnels.map((tunnel) => tunnelText(tunnel, report))
    return `${path}: valid, ${tunnels.length} tunnels

process (* = set in the file, below: in the entry):
${process.join('')}${doubts}${parts.join('')}`
  }
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
    const files = await runtime.logFiles?.()
    const report = inspect(path, bytes, runtime.commandConsole?.fileMode(path), {
      hasFastUdp: hasFastUdp(runtime),
      logProblem: (file) => files?.problem(file),
    })
    const text = given.flags.has(JSON_OUT.long) ? jsonReport(path, report) : textReport(path, report)
    runtime.print('stdout', text)
    return report.errors.length === 0 ? 0 : 1
  },
}
