/**
 * Resolves the addresses of a configuration (protocol.md 10.4). udp-options.ts derives the options of sockets from them,
 * resolve-loop.ts decides when they are resolved again; net/address.ts parses them.
 */

import { type Config, MODE_CLIENT, MODE_SERVER } from '../config/config.ts'
import { checkPlace } from '../config/rules.ts'
import { ConfigError, codeOf, isTemporary, messageOf, quote, StartError, toError } from '../errors.ts'
import { type AddressRole, formatAddress, parseHostPort, type SocketAddress, sameAddress } from '../net/address.ts'
import { isUnix } from '../net/unix-path.ts'
import type { Runtime, UdpHandlers } from '../runtime.ts'

/** Current addresses of the configuration's names; undefined if the mode does not use them. */
export interface ResolvedAddresses {
  readonly bind: SocketAddress | undefined
  /** All addresses of `kcp_bind`. An endpoint without a single peer is bound to all of them. */
  readonly binds: readonly SocketAddress[]
  /** Client without rendezvous server: the server. */
  readonly peer: SocketAddress | undefined
  /** All addresses of its name that the socket can reach, in the order of preference. */
  readonly peers: readonly SocketAddress[]
  readonly rendezvous: SocketAddress | undefined
  /** As `peers`, of the rendezvous server. */
  readonly rendezvousAddresses: readonly SocketAddress[]
}

export const NO_ADDRESSES: ResolvedAddresses = {
  bind: undefined,
  binds: [],
  peer: undefined,
  peers: [],
  rendezvous: undefined,
  rendezvousAddresses: [],
}

/** Most addresses and ports that an endpoint is bound to. */
const BINDS_MAX = 250

/** For sockets that are opened only to learn something. */
export const NO_HANDLERS: UdpHandlers = { onDatagram() {}, onBatchEnd() {}, onWritable() {}, onError() {} }

/** Whether the system has IPv6 sockets; a kernel started with `ipv6.disable=1` has none. */
async function hasIpv6(runtime: Runtime): Promise<boolean> {
  try {
    const probe = await runtime.openUdp({ bind: wildcard(6) }, NO_HANDLERS)
    probe.close()
    return true
  } catch (error) {
    return codeOf(error) !== 'EAFNOSUPPORT'
  }
}

/** Whether a bind address serves both families and the system has only IPv4. */
const lacksIpv6 = async (runtime: Runtime, host: string, role: AddressRole): Promise<boolean> =>
  role === 'bind' && host === '::' && !(await hasIpv6(runtime))

/** Warnings about bind addresses `[::]` that become 0.0.0.0 on a system without IPv6. */
export async function ipv6Warnings(runtime: Runtime, config: Config): Promise<string[]> {
  const warnings: string[] = []
  for (const key of ['listen', 'udp_listen', 'kcp_bind', 'http_listen'] as const) {
    const text = config[key]
    if (
      text === undefined ||
      isUnix(text) ||
      !(await lacksIpv6(runtime, parseHostPort(key, text, 'bind').host, 'bind'))
    )
      continue
    warnings.push(`config key ${key} = ${quote(text)}: this system has no IPv6, 0.0.0.0 is used`)
  }
  return warnings
}

/**
 * Resolves a `host:port` of the configuration to all its addresses, at least one, in getaddrinfo's order (protocol.md
 * 10.4). On a system without IPv6 the bind address `[::]` is 0.0.0.0, and names have only their IPv4 addresses.
 * @throws ConfigError for invalid syntax, a temporary StartError if the name has no address
 */
export async function resolveAll(
  runtime: Runtime,
  key: string,
  text: string,
  role: AddressRole,
): Promise<readonly [SocketAddress, ...SocketAddress[]]> {
  const { host, port, range } = parseHostPort(key, text, role)
  /** A socket is bound to each port of a range; of a remote one the first port stands for all. */
  const ports = (first: SocketAddress): SocketAddress[] =>
    range === undefined || role === 'connect'
      ? []
      : Array.from({ length: range.last - range.first }, (_, i) => ({ ...first, port: first.port + 1 + i }))
  if (await lacksIpv6(runtime, host, role)) {
    const any = { ...wildcard(4), port }
    return [any, ...ports(any)]
  }
  const found = await runtime.resolve(host).catch((error) => {
    throw new StartError(`${key}: cannot resolve ${host}: ${messageOf(error)}`, true)
  })
  const isMixed = found.some(({ family }) => family === 4) && found.some(({ family }) => family === 6)
  const usable = isMixed && !(await hasIpv6(runtime)) ? found.filter(({ family }) => family === 4) : found
  const [first, ...others] = usable.map(({ family, address, scope }) => ({ family, address, port, scope }))
  if (first === undefined) throw new StartError(`${key}: ${host} has no address`, true)
  const all = [first, ...others]
  // the number of a bound address is a byte
  if (all.length * (1 + ports(first).length) > BINDS_MAX)
    throw new ConfigError(key, quote(text), `more than ${BINDS_MAX} sockets: use fewer ports, or one of its addresses`)
  return [first, ...ports(first), ...others.flatMap((other) => [other, ...ports(other)])]
}

/**
 * Resolves a `host:port` of the configuration to its first address.
 * @param prefer preferred family, that of the socket that sends to the address
 * @throws as resolveAll
 */
export async function resolveKey(
  runtime: Runtime,
  key: string,
  text: string,
  role: AddressRole,
  prefer?: 4 | 6,
): Promise<SocketAddress> {
  const found = await resolveAll(runtime, key, text, role)
  return found.find(({ family }) => family === prefer) ?? found[0]
}

/** @returns a warning if `kcp_bind` is a name with several addresses: with `obfs` one of them is used */
export function unusedBinds(text: string, { bind, binds }: ResolvedAddresses): string[] {
  const others = binds.filter((address) => !sameMaybe(address, bind)).map(formatAddress)
  if (bind === undefined || others.length === 0) return []
  return [
    `config key kcp_bind = ${quote(text)}: with obfs only ${formatAddress(bind)} is used, not ${others.join(', ')}: ` +
      'write one of the addresses',
  ]
}

/** Addresses of an answer that a socket bound to one of `binds` reaches, those of the first one's family first. */
function reachable(found: readonly SocketAddress[], binds: readonly SocketAddress[]): readonly SocketAddress[] {
  const [first] = binds
  if (first === undefined) return found
  const own = found.filter((address) => address.family === first.family)
  const others = found.filter((address) => address.family !== first.family)
  // an IPv6 socket reaches IPv4, too
  const isReached = first.family === 6 || binds.some(({ family }) => family !== first.family)
  return own.length > 0 && !isReached ? own : [...own, ...others]
}

/**
 * Resolves every name of a configuration. A name that fails keeps its address from `before`, if any; and an address in
 * use is kept while its name has it, so that another order of an answer changes nothing.
 * @returns the addresses, the failures in the order of protocol.md 10.4, and what to log at the start
 */
export async function resolveAddresses(
  runtime: Runtime,
  config: Config,
  before: ResolvedAddresses,
): Promise<{
  readonly addresses: ResolvedAddresses
  readonly failures: readonly Error[]
  readonly warnings: readonly string[]
}> {
  const failures: Error[] = []
  const all = async (
    key: 'kcp_bind' | 'kcp_connect' | 'rendezvous_server',
    role: AddressRole,
    old: readonly SocketAddress[],
    from: readonly SocketAddress[] = [],
  ): Promise<readonly SocketAddress[]> => {
    const text = config[key]
    if (text === undefined) return []
    try {
      return reachable(await resolveAll(runtime, key, text, role), from)
    } catch (error) {
      failures.push(toError(error))
      return old
    }
  }
  const binds = inOrder(await all('kcp_bind', 'bind', before.binds), before.binds)
  const peers = hasPeer(config) ? await all('kcp_connect', 'connect', before.peers, binds) : []
  const rendezvousAddresses = announces(config)
    ? await all('rendezvous_server', 'connect', before.rendezvousAddresses, binds)
    : []
  const rendezvous = kept(rendezvousAddresses, before.rendezvous)
  const peer = kept(peers, before.peer)
  const bind = kept(binds, before.bind)
  const addresses = { bind, binds, peer, peers, rendezvous, rendezvousAddresses }
  return { addresses, failures, warnings: config.obfs ? unusedBinds(config.kcp_bind ?? '', addresses) : [] }
}

/** The addresses in use that are still among those found, in their order, then the new ones. */
function inOrder(found: readonly SocketAddress[], used: readonly SocketAddress[]): readonly SocketAddress[] {
  const isIn = (list: readonly SocketAddress[], address: SocketAddress): boolean =>
    list.some((other) => sameAddress(other, address))
  return [...used.filter((address) => isIn(found, address)), ...found.filter((address) => !isIn(used, address))]
}

/** The address in use if it is still among those found, else the first of them. */
const kept = (found: readonly SocketAddress[], used: SocketAddress | undefined): SocketAddress | undefined =>
  found.find((address) => sameMaybe(address, used)) ?? found[0]

/** Throws the first failure that no later lookup can heal, if there is one. */
export function throwFatal(failures: readonly Error[]): void {
  const fatal = failures.find((failure) => !isTemporary(failure))
  if (fatal !== undefined) throw fatal
}

/** Whether `kcp_connect` is used: a client with a rendezvous server ignores it (protocol.md 8). */
const hasPeer = (config: Config): boolean => (config.mode & MODE_CLIENT) !== 0 && config.rendezvous_server === undefined

/** Whether the endpoint announces itself to a rendezvous server; a rendezvous server ignores the key. */
const announces = (config: Config): boolean => (config.mode & (MODE_CLIENT | MODE_SERVER)) !== 0

/** Whether a socket can be opened: `kcp_bind`, or without it the remote address that decides the family, is known. */
export function isOpenable(config: Config, { bind, peer, rendezvous }: ResolvedAddresses): boolean {
  return config.kcp_bind === undefined ? (peer ?? rendezvous) !== undefined : bind !== undefined
}

/** Whether every name that the configuration uses has an address. */
export function isComplete(config: Config, addresses: ResolvedAddresses): boolean {
  const { peer, rendezvous } = addresses
  if (hasPeer(config) && peer === undefined) return false
  if (announces(config) && config.rendezvous_server !== undefined && rendezvous === undefined) return false
  return isOpenable(config, addresses)
}

/**
 * Checks the syntax of every address that a reload can change.
 * @throws ConfigError
 */
export function checkAddresses(config: Config): void {
  const { listen, udp_listen, connect, udp_connect, kcp_bind, kcp_connect, rendezvous_server } = config
  if (listen !== undefined) checkPlace('listen', listen)
  if (udp_listen !== undefined) parseHostPort('udp_listen', udp_listen, 'bind')
  if (connect !== undefined) checkPlace('connect', connect)
  if (udp_connect !== undefined) parseHostPort('udp_connect', udp_connect, 'connect')
  if (kcp_bind !== undefined) parseHostPort('kcp_bind', kcp_bind, 'bind')
  const servers = config.servers.length > 0 ? config.servers : [kcp_connect]
  for (const server of hasPeer(config) ? servers : [])
    if (server !== undefined) parseHostPort('kcp_connect', server, 'connect')
  if (rendezvous_server !== undefined && announces(config)) {
    parseHostPort('rendezvous_server', rendezvous_server, 'connect')
  }
}

/** The wildcard address of a family. */
export function wildcard(family: 4 | 6): SocketAddress {
  return { family, address: family === 4 ? '0.0.0.0' : '::', port: 0, scope: 0 }
}

export const isWildcard = (address: SocketAddress): boolean => address.address === '0.0.0.0' || address.address === '::'

/** The remote end of a socket: the peer, or the rendezvous server that knows it. */
export type Remote = Pick<ResolvedAddresses, 'peer' | 'rendezvous'>

/** The remote end in use, then the others of its name. */
export function remotesOf({
  peer,
  peers,
  rendezvous,
  rendezvousAddresses,
}: ResolvedAddresses): readonly [Remote, ...Remote[]] {
  return [
    { peer, rendezvous },
    ...peers.filter((other) => !sameMaybe(other, peer)).map((other) => ({ peer: other, rendezvous })),
    ...rendezvousAddresses
      .filter((other) => !sameMaybe(other, rendezvous))
      .map((other) => ({ peer, rendezvous: other })),
  ]
}

/** Whether two addresses are equal or both undefined. */
export const sameMaybe = (a: SocketAddress | undefined, b: SocketAddress | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && sameAddress(a, b))
