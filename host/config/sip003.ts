/**
 * SIP003: the environment in which shadowsocks starts a plugin, as the content of a configuration file. The addresses
 * are in SS_REMOTE_* and SS_LOCAL_*, the keys in SS_PLUGIN_OPTIONS. Reads no files.
 */

import { DEFAULT_METHOD } from '../crypto/methods.ts'
import { ConfigError, messageOf, quote, StartError } from '../errors.ts'
import { canonicalIp, parseHostPort } from '../net/address.ts'
import { encodeJson, type JsonNode, readJson } from './json.ts'
import { didYouMean, propertyOf } from './unknown-keys.ts'

const OPTIONS = 'SS_PLUGIN_OPTIONS'
const REMOTE = ['SS_REMOTE_HOST', 'SS_REMOTE_PORT'] as const
const LOCAL = ['SS_LOCAL_HOST', 'SS_LOCAL_PORT'] as const
const PORT_MAX = 65535

/** Of the configuration file, all that shadowsocks decides. */
const GIVEN = ['listen', 'connect', 'udp_listen', 'udp_connect'] as const

/** Options that ask for nothing that this plugin does. */
const IGNORED: ReadonlySet<string> = new Set(['fast-open', 'fastOpen'])

/** About `__android_vpn` and -V. */
export const ANDROID_VPN =
  'the VPN mode of shadowsocks-android is not supported: the UDP socket of the tunnel would be sent through the VPN; use its proxy-only mode'

/** An environment variable. */
type Env = (name: string) => string | undefined

/** One option: `name=value`, or a name alone. */
export interface PluginOption {
  readonly name: string
  readonly value: string | undefined
}

const refuse = (reason: string): never => {
  throw new StartError(`${OPTIONS}: ${reason}`)
}

/**
 * Splits options at `;` and each at its first `=`. A backslash before `;`, `=` or a backslash takes its meaning away;
 * before anything else it stands for itself, so that most paths of Windows need none of it.
 * @throws StartError
 */
export function parsePluginOptions(text: string): PluginOption[] {
  const options: PluginOption[] = []
  let name = ''
  let value: string | undefined
  const end = (): void => {
    if (name.trim() === '' && value !== undefined) refuse('an option has no name before its "="')
    if (name.trim() !== '') options.push({ name: name.trim(), value })
    name = ''
    value = undefined
  }
  for (let at = 0; at < text.length; at += 1) {
    let character = text[at] ?? ''
    const next = text[at + 1]
    if (character === '\\' && next === undefined) refuse('a backslash at the end escapes nothing; write \\\\ for one')
    if (character === ';') {
      end()
      continue
    }
    if (character === '=' && value === undefined) {
      value = ''
      continue
    }
    if (character === '\\' && next !== undefined && ';=\\'.includes(next)) {
      character = next
      at += 1
    }
    if (value === undefined) name += character
    else value += character
  }
  end()
  return options
}

/** What the environment says. */
export interface Plugin {
  readonly isServer: boolean
  /** A file with further keys. */
  readonly configPath: string | undefined
  /** Options that have no effect. */
  readonly ignored: readonly string[]
  readonly remote: { readonly hosts: readonly string[]; readonly port: string }
  readonly local: string
  /** Keys of the configuration, and their values. */
  readonly keys: ReadonlyMap<string, JsonNode>
}

function portOf(name: string, text: string): string {
  if (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= PORT_MAX) return text
  throw new StartError(`${name} = ${quote(text)}: must be a port from 1 to ${PORT_MAX}`)
}

const bare = (host: string): string => host.replace(/^\[(.*)\]$/, '$1')
const join = (host: string, port: string): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)

const text = (value: string): JsonNode => ({ kind: 'string', raw: new TextEncoder().encode(JSON.stringify(value)) })
const texts = (values: readonly string[]): JsonNode =>
  values.length === 1 ? text(values[0] ?? '') : { kind: 'array', items: values.map(text) }

/** The values of one key as in a file. What does not fit its type stays a string, for the checks of a file to refuse. */
function nodeOf(key: string, values: readonly (string | undefined)[]): JsonNode {
  const { type, items } = propertyOf(key) ?? refuse(`option ${key} is unknown`)
  const [first] = values
  if (type === 'object' || items?.type === 'object')
    return refuse(`option ${key} = ...: belongs in a file: config=FILE`)
  if (type === 'array') return { kind: 'array', items: values.map((value) => text(value ?? '')) }
  if (typeof type !== 'string') return texts(values.map((value) => value ?? ''))
  if (values.length > 1) refuse(`option ${key} is set more than once`)
  if (type === 'boolean' && [undefined, 'true', 'false'].includes(first))
    return { kind: 'boolean', value: first !== 'false' }
  if (first === undefined) return refuse(`option ${key}: the value is missing, write ${key}=VALUE`)
  const isNumber = (type === 'integer' && /^\d+$/.test(first)) || (type === 'number' && /^\d+(\.\d+)?$/.test(first))
  return isNumber ? { kind: 'number', text: first } : text(first)
}

/** The options with a meaning of their own. */
interface Special {
  isServer: boolean
  configPath: string | undefined
  port: string | undefined
}

/** @returns whether the option is one of them */
function readSpecial({ name, value }: PluginOption, special: Special): boolean {
  switch (name) {
    case 'server':
      if (value !== undefined && !['', 'true', '1', 'false', '0'].includes(value))
        refuse(`option server = ${quote(value)}: it has no value; the address is SS_REMOTE_HOST`)
      special.isServer = value !== 'false' && value !== '0'
      return true
    case 'config':
      special.configPath = value || refuse('option config: the path of a file is missing')
      return true
    case 'port':
      if (!/^\d+(-\d+)?$/.test(value ?? ''))
        refuse(`option port = ${quote(value ?? '')}: must be a port, or a range as 4000-4063`)
      special.port = value
      return true
    case '__android_vpn':
      return refuse(`option __android_vpn: ${ANDROID_VPN}`)
    default:
      return false
  }
}

/**
 * Reads the environment of a plugin.
 * @throws StartError that names the variable, and the option
 */
export function readPlugin(env: Env): Plugin {
  const wanted = [...REMOTE, ...LOCAL]
  const missing = wanted.filter((name) => !env(name))
  if (missing.length > 0)
    throw new StartError(`${missing.join(', ')}: missing, as a plugin of shadowsocks gets ${wanted.join(', ')}`)
  const special: Special = { isServer: false, configPath: undefined, port: undefined }
  const ignored: string[] = []
  const values = new Map<string, (string | undefined)[]>()
  for (const option of parsePluginOptions(env(OPTIONS) ?? '')) {
    const { name, value } = option
    if (readSpecial(option, special)) continue
    if (IGNORED.has(name)) {
      ignored.push(name)
      continue
    }
    if (name === 'tunnels') refuse('option tunnels: a plugin is one tunnel')
    if (GIVEN.some((key) => key === name))
      refuse(`option ${name}: shadowsocks gives this address, in SS_LOCAL_HOST and SS_LOCAL_PORT`)
    if (propertyOf(name) === undefined) {
      const meant = didYouMean(name)
      refuse(`option ${name} is unknown${meant === undefined ? '' : `, did you mean ${meant}?`}`)
    }
    values.set(name, [...(values.get(name) ?? []), value])
  }
  const [host, port] = REMOTE.map((name) => env(name) ?? '') as [string, string]
  const hosts = host.split('|').map(bare)
  if (hosts.some((one) => one.trim() === ''))
    throw new StartError(`SS_REMOTE_HOST = ${quote(host)}: must be a host, or several with | between them`)
  return {
    isServer: special.isServer,
    configPath: special.configPath,
    ignored,
    remote: { hosts, port: special.port ?? portOf(REMOTE[1], port) },
    local: join(bare(env(LOCAL[0]) ?? ''), portOf(LOCAL[1], env(LOCAL[1]) ?? '')),
    keys: new Map([...values].map(([key, several]) => [key, nodeOf(key, several)])),
  }
}

/** Addresses that a server binds: a wildcard makes the others of its family superfluous, `::` all of them. */
function bound(hosts: readonly string[]): readonly string[] {
  const known = [...new Set(hosts.map((host) => canonicalIp(host) ?? host))]
  if (known.includes('::')) return ['::']
  return known.includes('0.0.0.0') ? known.filter((host) => host === '0.0.0.0' || host.includes(':')) : known
}

type Members = Extract<JsonNode, { kind: 'object' }>['members']

/** Replaces or adds a key. */
function put(members: Members, key: string, node: JsonNode): void {
  const [outer = '', inner] = key.split('.')
  const old = members.findLast((member) => member.key === outer)?.node
  if (inner !== undefined) {
    // anything else than an object is for the checks of the file to refuse
    if (old === undefined || old.kind === 'object') put(old?.members ?? begin(members, outer), inner, node)
    return
  }
  const others = members.filter((member) => member.key !== outer)
  members.splice(0, members.length, ...others, { key, node })
}

function begin(members: Members, key: string): Members {
  const node: JsonNode = { kind: 'object', members: [] }
  members.push({ key, node })
  return node.members
}

/** The members of the file with further keys. @throws ConfigError, StartError */
function readFurther({ configPath, isServer }: Plugin, bytes: Uint8Array): Members {
  const file = readJson(bytes)
  if (file.kind !== 'object') throw new ConfigError('', '', 'must be a JSON object')
  const has = (...keys: readonly string[]): boolean => file.members.some(({ key }) => keys.includes(key))
  const of = `${OPTIONS}: option config = ${quote(configPath ?? '')}:`
  if (has('tunnels')) throw new StartError(`${of} has tunnels; a plugin is one tunnel`)
  if (has('udp_listen', 'udp_connect')) throw new StartError(`${of} forwards UDP; a plugin carries TCP`)
  if (isServer && has('listen')) throw new StartError(`${of} is for a client (listen), and the option server is set`)
  if (!isServer && has('connect'))
    throw new StartError(`${of} is for a server (connect), and the option server is not set`)
  return file.members
}

/** A configuration file in memory, and whose addresses it has. */
export interface PluginConfig {
  readonly bytes: Uint8Array
  /** Key of the remote address if SS_REMOTE_HOST is not used, because the key is set. */
  readonly overridden: string | undefined
}

/**
 * Makes the configuration: the keys of the file, replaced by those of the options, and the addresses of the environment.
 * @param file content of the file that the option config names
 * @throws ConfigError, StartError
 */
export function pluginConfig(plugin: Plugin, file: Uint8Array | undefined): PluginConfig {
  const { isServer, remote, local, keys } = plugin
  const members = file === undefined ? [] : readFurther(plugin, file)
  const has = (key: string): boolean => members.some((member) => member.key === key)
  for (const [key, node] of keys) put(members, key, node)
  put(members, isServer ? 'connect' : 'listen', text(local))
  // a key would otherwise be ignored
  if (['psk', 'password', 'keys'].some(has) && !has('method')) put(members, 'method', text(DEFAULT_METHOD))
  const addresses = isServer ? bound(remote.hosts) : [...new Set(remote.hosts)]
  const places = addresses.map((host) => join(host, remote.port))
  const key = isServer ? 'kcp_bind' : 'kcp_connect'
  parseHostPort(isServer ? 'connect' : 'listen', local, isServer ? 'connect' : 'bind')
  for (const place of places) parseHostPort(key, place, isServer ? 'bind' : 'connect')
  const overridden = has(key) ? key : has('rendezvous_server') ? 'rendezvous_server' : undefined
  if (overridden === undefined) {
    if (!isServer || places.length === 1) put(members, key, texts(places))
    else {
      const items = places.map((place): JsonNode => ({ kind: 'object', members: [{ key, node: text(place) }] }))
      put(members, 'tunnels', { kind: 'array', items })
    }
  }
  return { bytes: encodeJson({ kind: 'object', members }), overridden }
}

/** An error of the start in the terms of the environment. */
export function explainPlugin(plugin: Plugin, error: unknown): unknown {
  const message = messageOf(error)
  if (plugin.isServer && /(^|: )(udp|kcp_bind): cannot open .*EADDRINUSE/.test(message)) {
    return new StartError(
      `${message}: if ss-server has this UDP port itself, for its UDP relay, set "mode": "tcp_only" there, or give the tunnel another port by the plugin option port= at both ends`,
    )
  }
  if (!(error instanceof ConfigError) || error.key === '') return error
  const key = error.key.replace(/^tunnels\[\d+\]\./, '').replace(/\[\d+\]$/, '')
  const about = (what: string): StartError =>
    new StartError(`${what}${error.value === '' ? '' : ` = ${error.value}`}: ${error.reason}`)
  if (plugin.keys.has(key)) return about(`${OPTIONS}: option ${key}`)
  if (key === 'listen' || key === 'connect') return about(LOCAL.join(', '))
  return key === 'kcp_bind' || key === 'kcp_connect' ? about(REMOTE.join(', ')) : error
}
