/** Warnings and notes about valid configurations, for `check`. The warnings of every start are in `rules.ts`. */

import { HIDDEN, quote } from '../errors.ts'
import { isLogFile } from '../log/file-name.ts'
import { ipFamily, isWildcardHost, parseHostPort } from '../net/address.ts'
import { isUnix } from '../net/unix-path.ts'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'
import { adviceFor } from './foreign-keys.ts'
import { readJson } from './json.ts'
import { lintKeys } from './keys.ts'
import { isProxy } from './proxy-rules.ts'
import { configWarnings, rangeOf, SOURCE_SELECTED } from './rules.ts'
import { didYouMean, examine, type Findings } from './unknown-keys.ts'
import { KCP_KEYS, PROPERTIES } from './validate.ts'

/** Most NATs keep an idle mapping for at least this long, in seconds. */
const NAT_IDLE_S = 30
/** IP packets up to this size pass on nearly all paths, in bytes. */
const MTU_SAFE_BYTES = 1400
/** Receive buffers below this size lose bursts, in bytes. */
const RCVBUF_SMALL_BYTES = 1 << 20
/** Ports below require privileges. */
const PORT_UNPRIVILEGED = 1024
/** Permission bits of group and others. */
const OTHERS_READ = 0o044
const OTHERS_WRITE = 0o022
const GROUP_READ = 0o040

const RATE_KEYS = ['rate.up', 'rate.down', 'rate.session_up', 'rate.session_down']

export interface LintResult {
  readonly warnings: readonly string[]
  readonly notes: readonly string[]
}

/** A message about a key and its value, in the format of ConfigError. */
function about(key: string, value: string | number, text: string): string {
  return `config key ${key} = ${typeof value === 'string' ? quote(value) : value}: ${text}`
}

/** Warnings about unknown and duplicate keys. The configuration need not be valid. */
export function keyWarnings({ unknown, duplicate, foreign }: Findings): string[] {
  return [
    ...unknown.map((key) => {
      const advice = adviceFor(key.replace(/^tunnels\[\d+\]\./, ''))
      if (advice !== undefined) return `unknown key ${quote(key)} is ignored: ${advice}`
      const known = didYouMean(key)
      return `unknown key ${quote(key)} is ignored${known === undefined ? '' : `, did you mean ${known}?`}`
    }),
    ...foreign,
    ...duplicate.map((key) => `config key ${key} is set more than once, the last value is used`),
  ]
}

/** The warnings about the keys of a file, for its start and reload; none if it is not JSON, which is an error. */
export function startKeyWarnings(bytes: Uint8Array): string[] {
  try {
    return keyWarnings(examine(readJson(bytes)))
  } catch {
    return []
  }
}

/**
 * Warnings about the permissions of the file.
 * @param mode permission bits, undefined if the system has none
 * @param secret whether the file contains a key or password
 */
export function fileWarnings(path: string, mode: number | undefined, secret: boolean): string[] {
  if (mode === undefined || !secret) return []
  const whatOthersDo = [
    ...((mode & OTHERS_READ) === 0 ? [] : ['read']),
    ...((mode & OTHERS_WRITE) === 0 ? [] : ['change']),
  ]
  if (whatOthersDo.length === 0) return []
  const bits = mode.toString(8).padStart(4, '0')
  return [`other users can ${whatOthersDo.join(' and ')} the file with its key (mode ${bits}): chmod 600 ${path}`]
}

/**
 * Warnings about file permissions at startup. Read permission for the group is accepted: the service files in contrib/
 * require it.
 * @param mode permission bits, undefined if the system has none
 * @param configs all that the file contains
 */
export function startFileWarnings(path: string, mode: number | undefined, ...configs: readonly Config[]): string[] {
  const secret = configs.some(
    ({ psk, password, keys, http_token, proxy_users }) =>
      [psk, password, http_token].some((text) => text) || keys.length + Object.keys(proxy_users).length > 0,
  )
  const isForGroupAlone = mode !== undefined && (mode & (OTHERS_READ | OTHERS_WRITE)) === GROUP_READ
  return isForGroupAlone ? [] : fileWarnings(path, mode, secret)
}

function ignoredKeys(config: Config, findings: Findings): string[] {
  const { mode, method } = config
  const warnings: string[] = []
  const ignored = (key: string, why: string): void => {
    if (findings.set.includes(key)) warnings.push(`config key ${key} is ignored: ${why}`)
  }
  if ((mode & MODE_RENDEZVOUS) === 0) ignored('service_id', 'rendezvous_server is not set')
  if ((mode & MODE_CLIENT) === 0) {
    for (const key of ['kcp_connect', 'listen_mode', 'proxy_protocol_from'])
      ignored(key, 'it is only used by a client (listen)')
  } else if (!isUnix(config.listen ?? '')) ignored('listen_mode', 'listen is not a Unix socket')
  const peers = [...config.servers, config.kcp_connect ?? '']
  if (!peers.some((peer) => rangeOf('kcp_connect', peer) !== undefined))
    ignored('hop_interval', 'kcp_connect has no range of ports')
  if (config.servers.length < 2) ignored('strategy', 'kcp_connect names one server')
  if ((config.udp_listen ?? config.udp_connect) === undefined)
    ignored('udp_timeout', 'there is neither udp_listen nor udp_connect')
  if ((mode & (MODE_SERVER | MODE_CLIENT)) === 0)
    for (const key of RATE_KEYS) ignored(key, 'a rendezvous server carries no connections')
  if (config.obfs !== undefined) ignored('dscp', 'an obfuscator builds the IP headers itself')
  if (!isProxy(config.connect))
    for (const key of ['proxy_rules', 'proxy_users']) ignored(key, 'connect is neither socks5 nor http')
  if (method === undefined) for (const key of ['psk', 'password', 'keys']) ignored(key, 'method is not set')
  return warnings
}

/**
 * All warnings and notes about a valid configuration.
 * @param hasFastUdp whether the fast UDP path is available here
 * @throws ConfigError for a malformed address
 */
export function lint(config: Config, findings: Findings, hasFastUdp: boolean): LintResult {
  const { mode, kcp, udp, keepalive, http_listen, listen, udp_listen, kcp_bind, log } = config
  const ofKeys = lintKeys(config)
  const warnings = [...configWarnings(config), ...ignoredKeys(config, findings), ...ofKeys.warnings]
  const notes = ofKeys.notes
  if (config.password !== undefined) {
    const text = 'key stretching is minimal, a weak password can be guessed; prefer psk, generated with --genpsk'
    warnings.push(`config key password = ${HIDDEN}: ${text}`)
  }
  if ((mode & MODE_CLIENT) !== 0 && (mode & MODE_RENDEZVOUS) === 0) {
    if (keepalive === 0) {
      warnings.push(about('keepalive', 0, 'NAT mappings expire, and a silent server is not detected'))
    } else if (keepalive > NAT_IDLE_S) {
      warnings.push(
        about('keepalive', keepalive, `above ${NAT_IDLE_S} s, many NATs drop the mapping of an idle client`),
      )
    }
  }
  if (kcp.mtu !== undefined && kcp.mtu > MTU_SAFE_BYTES) {
    const text = `DSL, VPNs and mobile networks may drop packets larger than ${MTU_SAFE_BYTES} bytes`
    warnings.push(about('kcp.mtu', kcp.mtu, text))
  }
  if (udp.rcvbuf >= 4096 && udp.rcvbuf < RCVBUF_SMALL_BYTES) {
    warnings.push(about('udp.rcvbuf', udp.rcvbuf, 'too small for a burst of one window; the default is 4 MiB'))
  }
  const outputs = PROPERTIES['log']?.examples ?? []
  if (log !== undefined && !outputs.includes(log) && !isLogFile(log)) {
    warnings.push(about('log', log, `unknown output, must be one of ${outputs.join(', ')}`))
  }
  for (const [key, text] of [
    ['listen', listen],
    ['udp_listen', udp_listen],
  ] as const) {
    if (text !== undefined && !isUnix(text) && isWildcardHost(parseHostPort(key, text, 'bind').host))
      notes.push(about(key, text, 'any host that can reach this machine can use the tunnel'))
  }
  const isPortable = udp.path === 'portable' || (udp.path === 'auto' && !hasFastUdp)
  if (isPortable && udp_listen !== undefined && isWildcardHost(parseHostPort('udp_listen', udp_listen, 'bind').host)) {
    notes.push(about('udp_listen', udp_listen, SOURCE_SELECTED))
  }
  const isAsked = (mode & MODE_CLIENT) === 0 && config.obfs === undefined && kcp_bind !== undefined
  if (isPortable && isAsked && isWildcardHost(parseHostPort('kcp_bind', kcp_bind, 'bind').host)) {
    notes.push(about('kcp_bind', kcp_bind, SOURCE_SELECTED))
  }
  if (config.obfs !== undefined && kcp_bind !== undefined) {
    const { host } = parseHostPort('kcp_bind', kcp_bind, 'bind')
    if (ipFamily(host) === 0) notes.push(about('kcp_bind', kcp_bind, 'with obfs only one address of a name is used'))
  }
  for (const [key, text] of [
    ['listen', listen],
    ['udp_listen', udp_listen],
    ['kcp_bind', kcp_bind],
    ['http_listen', http_listen],
  ] as const) {
    if (text === undefined || isUnix(text)) continue
    const { port } = parseHostPort(key, text, 'bind')
    if (port > 0 && port < PORT_UNPRIVILEGED) {
      notes.push(about(key, text, `ports below ${PORT_UNPRIVILEGED} require root or CAP_NET_BIND_SERVICE`))
    }
  }
  const tuned = KCP_KEYS.filter((name) => kcp[name] !== undefined).map((name) => `kcp.${name}`)
  if (tuned.length > 0 && (mode & (MODE_CLIENT | MODE_SERVER)) !== 0) {
    const text = 'fixed values disable automatic tuning, which is usually faster'
    notes.push(`config ${tuned.length === 1 ? 'key' : 'keys'} ${tuned.join(', ')}: ${text}`)
  }
  if (findings.ours.length > 0) notes.push(`keys ignored by kcptun-libev: ${findings.ours.join(', ')}`)
  return { warnings, notes }
}
