/**
 * Parses the bytes of a configuration file into a typed, validated `Config` (protocol.md 10.1 to 10.3). Reads no files,
 * opens no sockets, resolves no names. The checks of method, keys and obfuscation, at startup only, are in
 * `security.ts`.
 */

import { ConfigError } from '../errors.ts'
import { isLogFile, parseLogFile } from '../log/file-name.ts'
import type { UdpMode } from '../runtime.ts'
import {
  type Config,
  type KcpConfig,
  type KcpKey,
  type KeyConfig,
  MODE_CLIENT,
  MODE_RENDEZVOUS,
  MODE_SERVER,
  type Offload,
  type ReplayPolicy,
  type Strategy,
  type WhenDown,
} from './config.ts'
import { readJson } from './json.ts'
import { checkRules } from './rules.ts'
import { type ItemValues, KCP_KEYS, type Value, validate } from './validate.ts'

/** Typed access to validated values. A mismatch between schema.json and Config is a bug and throws TypeError. */
class Reader {
  readonly #values: ReadonlyMap<string, Value>

  constructor(values: ReadonlyMap<string, Value>) {
    this.#values = values
  }

  text(key: string): string | undefined {
    const value = this.#values.get(key)
    return value === undefined || typeof value === 'string' ? value : this.#mismatch(key)
  }

  optionalInteger(key: string): number | undefined {
    const value = this.#values.get(key)
    return value === undefined || typeof value === 'number' ? value : this.#mismatch(key)
  }

  integer(key: string): number {
    return this.optionalInteger(key) ?? this.#mismatch(key)
  }

  number(key: string): number {
    const value = this.#values.get(key)
    return typeof value === 'number' ? value : this.#mismatch(key)
  }

  flag(key: string): boolean {
    const value = this.#values.get(key)
    return typeof value === 'boolean' ? value : this.#mismatch(key)
  }

  udpMode(key: string): UdpMode {
    const value = this.#values.get(key)
    return value === 'auto' || value === 'fast' || value === 'portable' ? value : this.#mismatch(key)
  }

  offload(key: string): Offload {
    const value = this.#values.get(key)
    return value === 'auto' || value === 'off' ? value : this.#mismatch(key)
  }

  replayPolicy(key: string): ReplayPolicy {
    const value = this.#values.get(key)
    return value === 'auto' || value === 'strict' ? value : this.#mismatch(key)
  }

  whenDown(key: string): WhenDown {
    const value = this.#values.get(key)
    return value === 'hold' || value === 'reset' || value === 'close' ? value : this.#mismatch(key)
  }

  headerVersion(key: string): 1 | 2 | undefined {
    const value = this.#values.get(key)
    return value === undefined || value === 1 || value === 2 ? value : this.#mismatch(key)
  }

  strategy(key: string): Strategy {
    const value = this.#values.get(key)
    return value === 'failover' || value === 'least_rtt' || value === 'round_robin' ? value : this.#mismatch(key)
  }

  /** A string is no list. */
  isList(key: string): boolean {
    return Array.isArray(this.#values.get(key))
  }

  list(key: string): readonly string[] {
    const value = this.#values.get(key)
    return value === undefined ? [] : Array.isArray(value) ? value : this.#mismatch(key)
  }

  map(key: string): Readonly<Record<string, string>> {
    const value = this.#values.get(key)
    if (value === undefined) return {}
    return typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, string>) : this.#mismatch(key)
  }

  keys(key: string): readonly KeyConfig[] {
    const items = this.#values.get(key) ?? []
    if (!Array.isArray(items)) return this.#mismatch(key)
    return items.map((item: ItemValues) => {
      const values = new Reader(new Map(Object.entries(item)))
      return {
        name: values.text('name') ?? '',
        psk: values.text('psk'),
        password: values.text('password'),
        not_after: values.text('not_after'),
        max_sessions: values.integer('max_sessions'),
      }
    })
  }

  #mismatch(key: string): never {
    throw new TypeError(`schema.json does not match the Config type: ${key}`)
  }
}

function kcpOf(values: Reader): KcpConfig {
  const entries = KCP_KEYS.map((key) => [key, values.optionalInteger(`kcp.${key}`)] as const)
  const kcp = Object.fromEntries(entries) as Record<KcpKey, number | undefined>
  return { ...kcp, mtu: values.optionalInteger('kcp.mtu'), redundancy: values.flag('kcp.redundancy') }
}

function serversOf(values: Reader): Pick<Config, 'kcp_connect' | 'servers'> {
  if (!values.isList('kcp_connect')) return { kcp_connect: values.text('kcp_connect'), servers: [] }
  const servers = values.list('kcp_connect')
  return { kcp_connect: servers[0], servers }
}

function modeOf(values: Reader): number {
  return (
    ((values.text('connect') ?? values.text('udp_connect')) === undefined ? 0 : MODE_SERVER) |
    ((values.text('listen') ?? values.text('udp_listen')) === undefined ? 0 : MODE_CLIENT) |
    (values.text('rendezvous_server') === undefined ? 0 : MODE_RENDEZVOUS)
  )
}

/** @throws ConfigError if it names a file without a path */
function logOf(values: Reader): string | undefined {
  const log = values.text('log')
  if (log !== undefined && isLogFile(log)) parseLogFile(log)
  return log
}

/** @throws TypeError if the schema does not match; ConfigError */
export function configOf(entries: ReadonlyMap<string, Value>): Config {
  const values = new Reader(entries)
  return {
    mode: modeOf(values),
    listen: values.text('listen'),
    listen_mode: values.text('listen_mode') ?? '',
    connect: values.text('connect'),
    udp_listen: values.text('udp_listen'),
    udp_connect: values.text('udp_connect'),
    udp_timeout: values.integer('udp_timeout'),
    proxy_protocol: values.headerVersion('proxy_protocol'),
    proxy_protocol_from: values.list('proxy_protocol_from'),
    proxy_rules: values.list('proxy_rules'),
    proxy_users: values.map('proxy_users'),
    kcp_bind: values.text('kcp_bind'),
    ...serversOf(values),
    strategy: values.strategy('strategy'),
    hop_interval: values.integer('hop_interval'),
    rendezvous_server: values.text('rendezvous_server'),
    service_id: values.text('service_id') ?? '',
    http_listen: values.text('http_listen'),
    http_token: values.text('http_token'),
    netdev: values.text('netdev'),
    fwmark: values.integer('fwmark'),
    dscp: values.integer('dscp'),
    method: values.text('method'),
    psk: values.text('psk'),
    password: values.text('password'),
    keys: values.keys('keys'),
    obfs: values.text('obfs'),
    kcp: kcpOf(values),
    tcp: {
      reuseport: values.flag('tcp.reuseport'),
      keepalive: values.flag('tcp.keepalive'),
      nodelay: values.flag('tcp.nodelay'),
      sndbuf: values.integer('tcp.sndbuf'),
      rcvbuf: values.integer('tcp.rcvbuf'),
    },
    udp: {
      reuseport: values.flag('udp.reuseport'),
      sndbuf: values.integer('udp.sndbuf'),
      rcvbuf: values.integer('udp.rcvbuf'),
      path: values.udpMode('udp.path'),
      gso: values.offload('udp.gso'),
      gro: values.offload('udp.gro'),
    },
    rate: {
      up: values.number('rate.up'),
      down: values.number('rate.down'),
      session_up: values.number('rate.session_up'),
      session_down: values.number('rate.session_down'),
    },
    timeout: values.integer('timeout'),
    linger: values.integer('linger'),
    keepalive: values.integer('keepalive'),
    time_wait: values.integer('time_wait'),
    loglevel: values.integer('loglevel'),
    log: logOf(values),
    user: values.text('user'),
    memory: values.integer('memory'),
    max_sessions: values.integer('max_sessions'),
    replay: values.replayPolicy('replay'),
    native: values.flag('native'),
    when_down: values.whenDown('when_down'),
    workers: values.integer('workers'),
  }
}

/**
 * Parses and validates a configuration file: syntax, types, ranges (protocol.md 10.1, 10.2), then the cross-field
 * rules 1-5 of 10.3. A reload makes no further checks (10.5).
 * @param bytes content of a file without `tunnels` (tunnels.ts has those with it)
 * @throws ConfigError with key, value and reason
 */
export function parseConfig(bytes: Uint8Array): Config {
  const document = readJson(bytes)
  if (document.kind === 'object' && document.members.some(({ key }) => key === 'tunnels')) {
    throw new ConfigError('tunnels', '', 'one tunnel is expected here')
  }
  const config = configOf(validate(document))
  checkRules(config)
  return config
}
