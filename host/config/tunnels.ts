/**
 * Files with `tunnels`: each entry is a configuration of its own, with the keys beside `tunnels` as defaults. A file
 * without it is a single configuration without a name.
 */

import { ConfigError, quote } from '../errors.ts'
import { canonicalIp, isWildcardHost, parseHostPort } from '../net/address.ts'
import { isUnix } from '../net/unix-path.ts'
import { type Config, type ConfigFile, MODE_CLIENT, MODE_SERVER } from './config.ts'
import { type JsonNode, readJson } from './json.ts'
import { configOf, parseConfig } from './load.ts'
import { checkRules } from './rules.ts'
import { PROPERTIES, readString, readValues, show, TUNNELS, type Value, validate } from './validate.ts'

const { name: NAME, ...REFUSED } = TUNNELS.items.properties
const NAME_PATTERN = new RegExp(NAME.pattern)

/** Keys of the process, which an entry cannot have. */
export const PROCESS_KEYS: ReadonlySet<string> = new Set(Object.keys(REFUSED))

/** The entries of `tunnels`; undefined without the key. @throws ConfigError */
export function entriesOf(document: JsonNode): readonly JsonNode[] | undefined {
  if (document.kind !== 'object') return undefined
  const node = document.members.findLast(({ key }) => key === 'tunnels')?.node
  if (node === undefined) return undefined
  const refuse = (reason: string): never => {
    throw new ConfigError('tunnels', show(node, { type: 'array', description: '' }), reason)
  }
  if (node.kind !== 'array') return refuse('must be an array of objects')
  const { minItems, maxItems } = TUNNELS
  const { length } = node.items
  return length < minItems || length > maxItems ? refuse(`must have ${minItems} to ${maxItems} entries`) : node.items
}

/**
 * Runs `action` for an entry: the keys that its errors name become paths in the file.
 * @param index of the entry; undefined: the file has no entries
 */
export function atEntry<Result>(index: number | undefined, action: () => Result): Result {
  try {
    return action()
  } catch (error) {
    if (index === undefined || !(error instanceof ConfigError) || PROCESS_KEYS.has(error.key)) throw error
    throw new ConfigError(pathIn(index, error.key), error.value, error.reason)
  }
}

/** @param key '': the entry itself */
export const pathIn = (index: number, key: string): string => `tunnels[${index}]${key && `.${key}`}`

/** Checks the keys that only an entry has. @returns its name; undefined: it has none @throws ConfigError */
function readName(node: JsonNode, index: number): string | undefined {
  let name: string | undefined
  for (const { key, node: value } of node.kind === 'object' ? node.members : []) {
    if (PROCESS_KEYS.has(key)) {
      const shown = show(value, PROPERTIES[key] ?? NAME)
      const reason =
        key === 'tunnels' ? 'an entry cannot have entries' : 'belongs to the process: set it beside tunnels'
      throw new ConfigError(pathIn(index, key), shown, reason)
    }
    if (key !== 'name') continue
    name = readString(pathIn(index, key), value, NAME)
    if (NAME_PATTERN.test(name)) continue
    const reason = 'must be 1 to 64 letters, digits and characters of ._-, the first a letter or digit'
    throw new ConfigError(pathIn(index, key), quote(name), reason)
  }
  return name
}

/** Role and port: what identifies a tunnel to people, and stays when entries before it come and go. */
function ownName({ mode, listen, udp_listen, kcp_bind }: Config): string {
  const role = (mode & MODE_SERVER) !== 0 ? 'server' : (mode & MODE_CLIENT) !== 0 ? 'client' : 'rendezvous'
  const port = /:([1-9]\d*)$/.exec((role === 'client' ? (listen ?? udp_listen) : kcp_bind) ?? '')?.[1]
  return port === undefined ? role : `${role}-${port}`
}

/** Gives every entry a name that no other has. @throws ConfigError for a name that is there twice */
function named(configs: readonly Config[], given: readonly (string | undefined)[]): Config[] {
  const taken = new Set<string>()
  for (const [index, name] of given.entries()) {
    if (name === undefined) continue
    if (taken.has(name)) {
      throw new ConfigError(pathIn(index, 'name'), quote(name), `is the name of ${pathIn(given.indexOf(name), '')} too`)
    }
    taken.add(name)
  }
  return configs.map((config, index) => {
    const own = ownName(config)
    let name = given[index] ?? own
    if (given[index] === undefined) for (let number = 2; taken.has(name); number++) name = `${own}-${number}`
    taken.add(name)
    return { ...config, name }
  })
}

/** In place of the port of a Unix socket. */
const UNIX = -1

/** Keys of which a configuration has one. */
const ALTERNATIVES = [
  ['psk', 'password', 'keys'],
  ['listen', 'udp_listen'],
  ['connect', 'udp_connect'],
] as const

/** What an entry takes from beside `tunnels`: not the alternative of a key that it has itself. */
export function defaultsFor(entry: JsonNode, above: ReadonlyMap<string, Value>): ReadonlyMap<string, Value> {
  const own = readValues(entry)
  const defaults = new Map(above)
  for (const group of ALTERNATIVES) if (group.some((key) => own.has(key))) for (const key of group) defaults.delete(key)
  return defaults
}

/** A local address that a tunnel or the process takes. */
interface Place {
  readonly path: string
  readonly text: string
  readonly host: string
  readonly port: number
  /** The last one of a range. */
  readonly last: number
  readonly isTcp: boolean
  /** Others may have it too. */
  readonly isShared: boolean
  readonly netdev: string
}

function placesOf(config: Config, index: number): Place[] {
  const { listen, udp_listen, kcp_bind, tcp, udp, obfs, mode } = config
  const netdev = config.netdev ?? ''
  const places: Place[] = []
  const add = (
    key: 'listen' | 'udp_listen' | 'kcp_bind',
    text: string | undefined,
    isTcp: boolean,
    isShared: boolean,
  ): void => {
    if (text === undefined) return
    const path = pathIn(index, key)
    const { host, port, range } = isUnix(text)
      ? { host: text, port: UNIX, range: undefined }
      : atEntry(index, () => parseHostPort(key, text, 'bind'))
    const last = range?.last ?? port
    if (port !== 0)
      places.push({ path, text, host, port, last, isTcp, isShared, netdev: key === 'kcp_bind' ? netdev : '' })
  }
  if ((mode & MODE_CLIENT) !== 0) add('listen', listen, true, tcp.reuseport)
  add('udp_listen', udp_listen, false, false)
  add('kcp_bind', kcp_bind, obfs !== undefined, udp.reuseport)
  return places
}

/** Hosts that stand for the same or for all addresses; names are compared as they are written. */
function overlap(a: string, b: string): boolean {
  const [first, second] = [a, b].map(
    (host) => canonicalIp(host) ?? host.toLowerCase().replace(/^localhost$/, '127.0.0.1'),
  )
  if (first === second || first === '::' || second === '::') return true
  const isIpv6 = [first, second].some((host) => host?.includes(':'))
  return !isIpv6 && (isWildcardHost(a) || isWildcardHost(b))
}

const collide = (a: Place, b: Place): boolean =>
  a.port <= b.last &&
  b.port <= a.last &&
  a.isTcp === b.isTcp &&
  !(a.isShared && b.isShared) &&
  !(a.netdev !== '' && b.netdev !== '' && a.netdev !== b.netdev) &&
  overlap(a.host, b.host)

/** Whether two tunnels cannot be open at the same time. */
export function shareAddress(a: Config, b: Config): boolean {
  const others = placesOf(b, 0)
  return placesOf(a, 0).some((place) => others.some((other) => collide(place, other)))
}

/** @throws ConfigError if two sockets are to have one address */
function checkPlaces({ http_listen }: Config, configs: readonly Config[]): void {
  const http = http_listen === undefined ? undefined : parseHostPort('http_listen', http_listen, 'bind')
  const places: Place[] = []
  if (http !== undefined && http.port !== 0) {
    places.push({
      ...http,
      path: 'http_listen',
      text: http_listen ?? '',
      last: http.port,
      isTcp: true,
      isShared: false,
      netdev: '',
    })
  }
  for (const [index, config] of configs.entries()) {
    for (const place of placesOf(config, index)) {
      const other = places.find((known) => collide(known, place))
      if (other !== undefined)
        throw new ConfigError(place.path, quote(place.text), `${other.path} has this address too`)
      places.push(place)
    }
  }
}

/**
 * Parses and validates a configuration file, with `tunnels` or without.
 * @throws ConfigError with key, value and reason; keys of an entry are paths as `tunnels[1].kcp.mtu`
 */
export function parseFile(bytes: Uint8Array): ConfigFile {
  const document = readJson(bytes)
  const entries = entriesOf(document)
  if (entries === undefined) return { config: parseConfig(bytes), tunnels: undefined }
  const above: ReadonlyMap<string, Value> = readValues(document)
  const given: (string | undefined)[] = []
  const configs = entries.map((node, index) => {
    given.push(readName(node, index))
    return atEntry(index, () => {
      const config = configOf(validate(node, defaultsFor(node, above)))
      checkRules(config)
      return config
    })
  })
  const config = configOf(validate(document))
  const tunnels = named(configs, given)
  checkPlaces(config, tunnels)
  return { config, tunnels }
}

/**
 * The configuration of one tunnel of a file.
 * @param name of an entry; undefined: the file has one tunnel
 * @throws ConfigError that lists the names
 */
export function tunnelOf({ config, tunnels }: ConfigFile, name: string | undefined): Config {
  const names = tunnels?.map((tunnel) => tunnel.name).join(', ')
  const found =
    name === undefined && tunnels?.length === 1 ? tunnels[0] : tunnels?.find((tunnel) => tunnel.name === name)
  if (found !== undefined) return found
  if (tunnels === undefined && name === undefined) return config
  if (tunnels === undefined) throw new ConfigError('', '', `has no tunnels, and so none named ${quote(name ?? '')}`)
  const what = name === undefined ? 'has several tunnels, choose one with --tunnel' : `has no tunnel ${quote(name)}`
  throw new ConfigError('', '', `${what}: ${names}`)
}
