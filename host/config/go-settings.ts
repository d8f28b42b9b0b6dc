/** The settings of one end of a Go kcptun, read from its JSON file or its command line. They are mapped in `go-import.ts`. */

import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { decodeString, type JsonNode } from './json.ts'
import { splitCommands, type Word } from './shell-words.ts'

export type GoRole = 'client' | 'server'
type GoKind = 'text' | 'integer' | 'flag'

/** One end. Integers are kept as text. */
export interface GoEnd {
  readonly role: GoRole
  /** By the name of the long flag. */
  readonly settings: ReadonlyMap<string, string | boolean>
  /** Keys of the file that no version known here has. */
  readonly unknown: readonly string[]
}

/** All settings by the name of their long flag: those of version 20210922 and of later ones. */
const KINDS: ReadonlyMap<string, GoKind> = new Map(
  Object.entries({
    text: 'localaddr remoteaddr listen target key crypt mode log snmplog c',
    integer:
      'QPPCount conn autoexpire scavengettl mtu ratelimit sndwnd rcvwnd datashard parityshard dscp nodelay interval ' +
      'resend nc sockbuf smuxver smuxbuf framesize streambuf keepalive closewait snmpperiod',
    flag: 'QPP nocomp acknodelay quiet tcp pprof',
  }).flatMap(([kind, names]) => names.split(' ').map((name) => [name, kind as GoKind] as const)),
)

/** Settings that show which end it is. */
const ROLE_OF: ReadonlyMap<string, GoRole> = new Map([
  ['localaddr', 'client'],
  ['remoteaddr', 'client'],
  ['listen', 'server'],
  ['target', 'server'],
])

/** Short flags; `l` depends on the end. */
const SHORT: ReadonlyMap<string, string> = new Map([
  ['r', 'remoteaddr'],
  ['t', 'target'],
  ['ds', 'datashard'],
  ['ps', 'parityshard'],
])

/** Keys of files are read whatever their case is. */
const FILE_NAMES: ReadonlyMap<string, string> = new Map([
  ...[...KINDS.keys()].filter((name) => name !== 'c').map((name) => [name.toLowerCase(), name] as const),
  ['qpp-count', 'QPPCount'],
])

/** Keys of our own files that no file of the Go kcptun has. */
const OURS = ['connect', 'kcp_bind', 'kcp_connect', 'rendezvous_server', 'method', 'psk', 'password', 'kcp', 'udp']

const INTEGER = /^\d{1,15}$/
const YES = /^(1|t|true)$/i
const NO = /^(0|f|false)$/i

/** Whether a document is a configuration file of the Go kcptun. */
export function isGoDocument(document: JsonNode): boolean {
  if (document.kind !== 'object') return false
  const keys = document.members.map(({ key }) => key)
  return !keys.some((key) => OURS.includes(key)) && keys.some((key) => isForeign(key.toLowerCase()))
}

/** Names that our own files have too prove nothing. */
const isForeign = (name: string): boolean =>
  FILE_NAMES.has(name) && !['listen', 'log', 'keepalive', 'dscp', 'tcp'].includes(name)

const shown = (name: string, text: string): string => (name === 'key' ? HIDDEN : quote(text))

/** Checks a value as text. @throws ConfigError */
function readValue(name: string, text: string): string | boolean {
  const kind = KINDS.get(name)
  if (kind === 'integer' && !INTEGER.test(text)) {
    throw new ConfigError(name, quote(text), 'must be an integer in plain decimal digits')
  }
  if (kind !== 'flag') return text
  if (!YES.test(text) && !NO.test(text)) throw new ConfigError(name, quote(text), 'must be true or false')
  return YES.test(text)
}

/** @throws ConfigError if the settings are of no end, or of both */
function roleOf(names: Iterable<string>, preset?: GoRole): GoRole {
  const all = [...names]
  const roles = new Set(all.flatMap((name) => ROLE_OF.get(name) ?? []))
  const [role = preset] = roles
  if (roles.size > 1) {
    const mixed = all.filter((name) => ROLE_OF.has(name)).join(', ')
    throw new ConfigError('', '', `has settings of a client and of a server of the Go kcptun: ${mixed}`)
  }
  if (role !== undefined) return role
  const reason = 'is neither of a client (remoteaddr, localaddr) nor of a server (target, listen) of the Go kcptun'
  throw new ConfigError('', '', reason)
}

function readMember(name: string, node: JsonNode): string | boolean | undefined {
  const kind = KINDS.get(name)
  if (node.kind === 'null') return undefined
  if (kind === 'flag' && node.kind === 'boolean') return node.value
  if (kind === 'integer' && node.kind === 'number') return readValue(name, node.text)
  if (kind === 'text' && node.kind === 'string') {
    const decoded = decodeString(node.raw)
    if (decoded.ok) return decoded.text
    throw new ConfigError(name, '', decoded.reason)
  }
  const wanted = kind === 'flag' ? 'true or false' : kind === 'integer' ? 'an integer' : 'a string'
  throw new ConfigError(name, '', `must be ${wanted}`)
}

/** Reads a configuration file of the Go kcptun. @throws ConfigError */
export function readGoDocument(document: JsonNode): GoEnd {
  const settings = new Map<string, string | boolean>()
  const unknown: string[] = []
  for (const { key, node } of document.kind === 'object' ? document.members : []) {
    const name = FILE_NAMES.get(key.toLowerCase())
    if (name === undefined) unknown.push(key)
    else {
      const value = readMember(name, node)
      if (value !== undefined) settings.set(name, value)
    }
  }
  return { role: roleOf(settings.keys()), settings, unknown }
}

/** The words before the options: environment variables, and the program itself. */
function readProgram(words: readonly Word[]): { key: string | undefined; role: GoRole | undefined } {
  let key: string | undefined
  let role: GoRole | undefined
  for (const { text } of words) {
    if (text.startsWith('KCPTUN_KEY=')) key = text.slice('KCPTUN_KEY='.length)
    const [name = ''] = text.split('/').slice(-1)
    role ??= name.includes('client') ? 'client' : name.includes('server') ? 'server' : undefined
  }
  return { key, role }
}

/** The name of a flag with one dash or two, without the value behind `=`; '' for another word. */
const flagOf = (word: string): string => /^--?([^-=][^=]*)/.exec(word)?.[1] ?? ''

const kindOf = (flag: string): GoKind | undefined => KINDS.get(flag === 'l' ? 'listen' : (SHORT.get(flag) ?? flag))

/** Reads flags as Go does: one dash or two, the value behind `=` or as the next word. @throws ConfigError */
function readFlags(words: readonly Word[]): [flag: string, value: Word][] {
  const found: [string, Word][] = []
  let last = ''
  for (let at = 0; at < words.length; at += 1) {
    const { text = '', expands = false } = words[at] ?? {}
    const flag = flagOf(text)
    const equals = text.indexOf('=')
    if (flag === '') {
      // the word may be a part of the key
      const reason = `a word that belongs to no flag${last === '' ? '' : ` follows --${last}: quote values with blanks`}`
      throw new ConfigError('', '', reason)
    }
    last = flag
    const kind = kindOf(flag)
    if (kind === undefined) throw new ConfigError('', '', `--${flag} is no flag of the Go kcptun`)
    if (equals >= 0) found.push([flag, { text: text.slice(equals + 1), expands }])
    else if (kind === 'flag') found.push([flag, { text: 'true', expands: false }])
    else {
      const next = words[++at]
      if (next === undefined) throw new ConfigError('', '', `--${flag} has no value`)
      found.push([flag, next])
    }
  }
  return found
}

/**
 * Reads a command line of the Go kcptun: one command, with or without the words before it, such as in a script or the
 * `ExecStart=` of a unit.
 * @throws ConfigError that does not contain the key
 */
export function readGoCommand(text: string): GoEnd {
  const commands = splitCommands(text).filter((words) =>
    words.some(({ text: word }) => kindOf(flagOf(word)) !== undefined),
  )
  const [words = []] = commands
  if (commands.length !== 1) {
    const what =
      commands.length === 0
        ? 'no command line with flags of the Go kcptun'
        : 'several command lines: give one file for each end'
    throw new ConfigError('', '', what)
  }
  const first = words.findIndex((word) => word.text.startsWith('-'))
  const program = readProgram(words.slice(0, first))
  const flags = readFlags(words.slice(first))
  const names = flags.map(([flag]) => SHORT.get(flag) ?? flag)
  const settings = new Map<string, string | boolean>()
  if (program.key !== undefined) settings.set('key', program.key)
  const config = flags.find(([flag]) => flag === 'c')
  if (config !== undefined) throw new ConfigError('', '', `-c ${config[1].text}: import that file instead`)
  const role = roleOf(names, program.role)
  flags.forEach(([, value], index) => {
    const given = names[index] ?? ''
    const name = given === 'l' ? (role === 'client' ? 'localaddr' : 'listen') : given
    if (value.expands) {
      throw new ConfigError(name, shown(name, value.text), 'is replaced by a shell: write the value itself')
    }
    settings.set(name, readValue(name, value.text))
  })
  return { role, settings, unknown: [] }
}
