/**
 * Cross-field rules (protocol.md 10.3, 1-5), mode names, and warnings about valid settings. Single keys are checked by
 * the schema, method and keys by `security.ts`.
 */

import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { isLoopbackHost, type PortRange, parseHostPort } from '../net/address.ts'
import { isAbstract, isUnix, parseMode, parseUnix } from '../net/unix-path.ts'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'
import { checkKeys, expiredKeys } from './keys.ts'
import { trustedSources } from './proxy-protocol.ts'
import { checkProxy, isProxy, PROXIES } from './proxy-rules.ts'

/** Maximum length of service_id, in bytes of UTF-8. */
const SERVICE_ID_MAX_BYTES = 256
/** With a longer keepalive a NAT mapping may expire between two rendezvous messages, in seconds. */
const RENDEZVOUS_KEEPALIVE_S = 25
/** Smaller socket buffers, except 0, cause a warning, in bytes. */
const SOCKET_BUFFER_SMALL_BYTES = 4096

/** Permission bit by which others connect to a Unix socket. */
const OTHERS_WRITE = 0o002

/** Lowest rate limit, Mbit/s. */
const RATE_MIN_MBIT = 0.008

/** Syntax of a bearer token (RFC 6750 2.1), with a minimum length against guessing. */
const HTTP_TOKEN = /^(?=.{8,256}$)[\w.~+/-]+=*$/

/** About a wildcard `kcp_bind` of a UDP socket that cannot choose its source address. */
export const SOURCE_SELECTED =
  'on the portable UDP path answers leave from the address that the system selects, so clients that use another address of this host get none; if it has several addresses, bind to the one that clients use'

/** `server`, `client` or `rendezvous server` (protocol.md 10.3). */
export function modeName(mode: number): string {
  if ((mode & MODE_SERVER) !== 0) {
    return 'server'
  }
  if ((mode & MODE_CLIENT) !== 0) {
    return 'client'
  }
  return 'rendezvous server'
}

/**
 * Checks the cross-field rules 1-5 in order, then the rules for the additional keys of this program.
 * @throws ConfigError
 */
export function checkRules(config: Config): void {
  const serviceBytes = new TextEncoder().encode(config.service_id).length
  if (serviceBytes > SERVICE_ID_MAX_BYTES) {
    const reason = `must be at most ${SERVICE_ID_MAX_BYTES} bytes long, is ${serviceBytes} bytes`
    throw new ConfigError('service_id', quote(config.service_id), reason)
  }
  const server = (config.mode & MODE_SERVER) !== 0
  const client = (config.mode & MODE_CLIENT) !== 0
  const rendezvous = (config.mode & MODE_RENDEZVOUS) !== 0
  if (client && config.udp_connect !== undefined) {
    const reason = 'is the target of a server; what an old kcptun-libev calls udp_connect is kcp_connect'
    throw new ConfigError('udp_connect', quote(config.udp_connect), reason)
  }
  if (server && client) {
    const key = config.listen === undefined ? 'udp_listen' : 'listen'
    throw new ConfigError(
      key,
      quote(config[key] ?? ''),
      `conflicts with connect: ${key} selects client mode, connect server mode`,
    )
  }
  checkDatagrams(config)
  if (rendezvous && config.keepalive === 0) {
    throw new ConfigError('keepalive', '0', 'must not be 0 with rendezvous_server')
  }
  if (server && !rendezvous && config.kcp_bind === undefined) {
    throw new ConfigError('kcp_bind', '', 'missing: required by a server (connect, udp_connect)')
  }
  if (client && !rendezvous && config.kcp_connect === undefined) {
    throw new ConfigError('kcp_connect', '', 'missing: required by a client (listen, udp_listen)')
  }
  if (!server && !client && config.kcp_bind === undefined) {
    throw new ConfigError('kcp_bind', '', 'missing: required without listen, connect, udp_listen and udp_connect')
  }
  if (config.psk !== undefined && config.password !== undefined) {
    throw new ConfigError('psk', HIDDEN, 'conflicts with password')
  }
  checkKeys(config)
  if (config.http_token !== undefined && !HTTP_TOKEN.test(config.http_token)) {
    const reason = 'must be 8 to 256 letters, digits and characters of -._~+/, with = only at the end'
    throw new ConfigError('http_token', HIDDEN, reason)
  }
  parseMode('listen_mode', config.listen_mode)
  checkProxy(config.proxy_rules, config.proxy_users)
  trustedSources(config.proxy_protocol_from)
  checkHeader(config)
  checkServers(config)
  checkRanges(config)
  checkWorkers(config)
  checkRates(config)
}

/** The range of ports of an address, if it has one; a malformed address is reported elsewhere. */
export function rangeOf(key: 'kcp_bind' | 'kcp_connect', text: string | undefined): PortRange | undefined {
  try {
    return text === undefined ? undefined : parseHostPort(key, text, key === 'kcp_bind' ? 'bind' : 'connect').range
  } catch {
    return undefined
  }
}

/** Rules for ranges of ports: a client hops by opening sockets, a server has a socket for each. */
function checkRanges(config: Config): void {
  const { mode, kcp_bind, kcp_connect, servers, obfs, workers } = config
  const isClient = (mode & MODE_CLIENT) !== 0
  const hops = [...servers, kcp_connect].find((server) => rangeOf('kcp_connect', server) !== undefined)
  if (isClient && (mode & MODE_RENDEZVOUS) === 0 && hops !== undefined) {
    if (obfs !== undefined) throw new ConfigError('kcp_connect', quote(hops), 'a range of ports conflicts with obfs')
    if (kcp_bind !== undefined && parseHostPort('kcp_bind', kcp_bind, 'bind').port !== 0) {
      const reason = 'conflicts with a range of ports in kcp_connect: each hop has a new local port; set the port to 0'
      throw new ConfigError('kcp_bind', quote(kcp_bind), reason)
    }
  }
  if (kcp_bind === undefined || rangeOf('kcp_bind', kcp_bind) === undefined) return
  const refuse = (reason: string): never => {
    throw new ConfigError('kcp_bind', quote(kcp_bind), `a range of ports ${reason}`)
  }
  if ((mode & MODE_SERVER) === 0 || (mode & MODE_RENDEZVOUS) !== 0)
    refuse('is for a server (connect) without rendezvous_server')
  if (obfs !== undefined) refuse('conflicts with obfs')
  if (workers > 1) refuse('conflicts with workers: bind one port and redirect the others to it (--hop-firewall)')
}

/** Rules for several servers: each has a socket of its own, and is known to answer by its pings. */
function checkServers({ servers, mode, kcp_bind, keepalive }: Config): void {
  const twice = servers.find((server, index) => servers.indexOf(server) !== index)
  if (twice !== undefined) throw new ConfigError('kcp_connect', quote(twice), 'is in the list twice')
  if (servers.length < 2 || (mode & MODE_CLIENT) === 0 || (mode & MODE_RENDEZVOUS) !== 0) return
  if (keepalive === 0)
    throw new ConfigError('keepalive', '0', 'must not be 0 with several servers: pings show which of them answer')
  if (kcp_bind === undefined || parseHostPort('kcp_bind', kcp_bind, 'bind').port === 0) return
  const reason = 'each of several servers requires its own UDP port: set the port to 0, as in "0.0.0.0:0"'
  throw new ConfigError('kcp_bind', quote(kcp_bind), reason)
}

/**
 * Checks the syntax of `listen` or `connect`: an address of TCP, or a Unix socket.
 * @throws ConfigError
 */
export function checkPlace(key: 'listen' | 'connect', text: string): void {
  if (isUnix(text)) return void parseUnix(key, text)
  if (key === 'connect' && isProxy(text)) return
  if (key === 'connect' && text !== '' && !text.includes(':')) {
    throw new ConfigError(key, quote(text), `must be host:port, unix:/path, ${PROXIES.join(' or ')}`)
  }
  parseHostPort(key, text, key === 'listen' ? 'bind' : 'connect')
}

/** Warning about a file mode by which every local user gets into the tunnel. */
function openSocket({ listen, listen_mode }: Config): string[] {
  if (listen === undefined || !isUnix(listen) || isAbstract(parseUnix('listen', listen))) return []
  const isOpen = (parseMode('listen_mode', listen_mode) & OTHERS_WRITE) !== 0
  return isOpen ? [`config key listen_mode = ${quote(listen_mode)}: every local user can use the tunnel`] : []
}

/** On the wire nothing distinguishes streams of datagrams from others, so a tunnel has one kind. */
function checkDatagrams({ listen, connect, udp_listen, udp_connect }: Config): void {
  const why = 'on the wire nothing distinguishes the two: datagrams need a tunnel, and a kcp_bind, of their own'
  if (listen !== undefined && udp_listen !== undefined)
    throw new ConfigError('udp_listen', quote(udp_listen), `conflicts with listen: ${why}`)
  if (connect !== undefined && udp_connect !== undefined)
    throw new ConfigError('udp_connect', quote(udp_connect), `conflicts with connect: ${why}`)
}

/** A PROXY header is for a target that was chosen with it in mind. */
function checkHeader({ proxy_protocol, connect, udp_listen, udp_connect }: Config): void {
  if (proxy_protocol === undefined) return
  const other = isProxy(connect) ? `connect ${quote(connect)}: its targets expect no header` : undefined
  const reason = other ?? ((udp_listen ?? udp_connect) === undefined ? undefined : 'UDP, which has no such header')
  if (reason !== undefined) throw new ConfigError('proxy_protocol', String(proxy_protocol), `conflicts with ${reason}`)
}

/** Rules for several workers: each peer must stay with one process, which requires plain UDP sockets. */
function checkWorkers({ workers, mode, obfs, kcp_bind, when_down }: Config): void {
  if (workers === 1) return
  const refuse = (reason: string): never => {
    throw new ConfigError('workers', String(workers), reason)
  }
  if ((mode & MODE_RENDEZVOUS) !== 0) refuse('conflicts with rendezvous_server, which requires a single process')
  if ((mode & (MODE_SERVER | MODE_CLIENT)) === 0) refuse('requires a server (connect) or a client (listen)')
  if (obfs !== undefined) refuse('conflicts with obfs, which requires a single process')
  const client = (mode & MODE_CLIENT) !== 0
  if (client && when_down === 'close') refuse('conflicts with when_down "close": the workers share one port')
  if (client && kcp_bind !== undefined && parseHostPort('kcp_bind', kcp_bind, 'bind').port !== 0) {
    refuse('each worker of a client requires its own UDP port: set the port of kcp_bind to 0, as in "0.0.0.0:0"')
  }
}

/** A rate below the lowest one would stall rather than limit. */
function checkRates({ rate }: Config): void {
  for (const [name, value] of Object.entries(rate) as [string, number][]) {
    if (value === 0 || value >= RATE_MIN_MBIT) continue
    throw new ConfigError(`rate.${name}`, String(value), `must be 0 (unlimited) or at least ${RATE_MIN_MBIT} Mbit/s`)
  }
}

/** Warning about a proxy that everybody can use. */
function openProxy({ connect, method, proxy_users }: Config): string[] {
  if (!isProxy(connect) || method !== undefined || Object.keys(proxy_users).length > 0) return []
  return [`config key connect = ${quote(connect)}: everybody who reaches the UDP port can use this proxy: set method`]
}

function smallBuffer(key: string, bytes: number): string[] {
  const small = bytes > 0 && bytes < SOCKET_BUFFER_SMALL_BYTES
  return small ? [`config key ${key} = ${bytes}: below ${SOCKET_BUFFER_SMALL_BYTES} bytes, reduces throughput`] : []
}

/** Warning about a monitoring server without token on a public address. @throws ConfigError for a malformed address */
export function monitoringWarnings({ http_listen, http_token }: Config): string[] {
  if (http_listen === undefined || http_token !== undefined) return []
  if (isLoopbackHost(parseHostPort('http_listen', http_listen, 'bind').host)) return []
  return [`config key http_listen = ${quote(http_listen)}: not a loopback address, set http_token to restrict access`]
}

/** Warning about an obfuscated server on `[::]`. @throws ConfigError for a malformed address */
function onlyIpv6({ obfs, mode, kcp_bind }: Config): string[] {
  if (obfs === undefined || (mode & MODE_SERVER) === 0 || kcp_bind === undefined) return []
  if (parseHostPort('kcp_bind', kcp_bind, 'bind').host !== '::') return []
  return [`config key kcp_bind = ${quote(kcp_bind)}: with obfs it serves IPv6 only; bind to 0.0.0.0 for IPv4`]
}

/** Warning about a rendezvous server that announces loopback addresses. @throws ConfigError for a malformed address */
function localRendezvous({ rendezvous_server, kcp_bind }: Config): string[] {
  if (rendezvous_server === undefined) return []
  // another source address is announced instead
  const bound = kcp_bind === undefined ? '' : parseHostPort('kcp_bind', kcp_bind, 'bind').host
  if (!['', '0.0.0.0', '::'].includes(bound)) return []
  if (!isLoopbackHost(parseHostPort('rendezvous_server', rendezvous_server, 'connect').host)) return []
  return [
    `config key rendezvous_server = ${quote(rendezvous_server)}: it announces loopback addresses, which no peer tries; ` +
      'use an address of this machine in its network',
  ]
}

/** Warnings about settings that are valid but probably unintended (protocol.md 3.7, 10.2, 10.3). */
export function configWarnings(config: Config): string[] {
  const warnings: string[] = []
  if (config.method === undefined) {
    warnings.push('packets will not be encrypted: no method is set')
  }
  if ((config.mode & MODE_RENDEZVOUS) !== 0 && config.keepalive > RENDEZVOUS_KEEPALIVE_S) {
    warnings.push(
      `config key keepalive = ${config.keepalive}: above ${RENDEZVOUS_KEEPALIVE_S} s, NAT mappings may expire`,
    )
  }
  if ((config.mode & MODE_RENDEZVOUS) !== 0 && config.kcp_connect !== undefined) {
    const shown = config.servers.length > 0 ? '[...]' : quote(config.kcp_connect)
    warnings.push(`config key kcp_connect = ${shown}: ignored with rendezvous_server`)
  }
  return warnings.concat(
    expiredKeys(config),
    monitoringWarnings(config),
    openSocket(config),
    openProxy(config),
    onlyIpv6(config),
    localRendezvous(config),
    smallBuffer('tcp.sndbuf', config.tcp.sndbuf),
    smallBuffer('tcp.rcvbuf', config.tcp.rcvbuf),
    smallBuffer('udp.sndbuf', config.udp.sndbuf),
    smallBuffer('udp.rcvbuf', config.udp.rcvbuf),
  )
}
