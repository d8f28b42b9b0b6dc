/** The type of a validated configuration. `load.ts` creates it; all other code treats it as read-only. */

import type { UdpMode } from '../runtime.ts'
import type schema from './schema.json'

/** Mode bits, as in the config block of the engine (abi.md). */
export const MODE_SERVER = 1
export const MODE_CLIENT = 2
export const MODE_RENDEZVOUS = 4

/** The keys below `kcp` that choose what is automatic otherwise, taken from the schema. */
export type KcpKey = Exclude<keyof typeof schema.properties.kcp.properties, 'mtu' | 'redundancy'>

/** KCP parameters in the units of the schema. undefined = not set: automatic. */
export type KcpConfig = Readonly<Record<KcpKey, number | undefined>> & {
  /** bytes of the whole IP packet; undefined: what the path takes (mtu.ts) */
  readonly mtu: number | undefined
  /** segments may be sent twice before they count as lost */
  readonly redundancy: boolean
}

export interface TcpConfig {
  readonly reuseport: boolean
  readonly keepalive: boolean
  readonly nodelay: boolean
  /** bytes, 0 = leave alone */
  readonly sndbuf: number
  /** bytes, 0 = leave alone */
  readonly rcvbuf: number
}

export interface UdpConfig {
  readonly reuseport: boolean
  /** bytes, 0 = leave alone */
  readonly sndbuf: number
  /** bytes, 0 = leave alone */
  readonly rcvbuf: number
  readonly path: UdpMode
  readonly gso: Offload
  readonly gro: Offload
}

/** Limits of payload in Mbit/s, 0 = unlimited. */
export interface RateConfig {
  readonly up: number
  readonly down: number
  readonly session_up: number
  readonly session_down: number
}

/** Whether datagrams are merged: where it works, or never. */
export type Offload = 'auto' | 'off'

/** Which first flights a server confirms: possible replays only, or all. */
export type ReplayPolicy = 'auto' | 'strict'

export const STRATEGIES = ['failover', 'least_rtt', 'round_robin'] as const
/** Which server gets a new session. */
export type Strategy = (typeof STRATEGIES)[number]

/** Hold connections in sessions, hold them briefly and reset them, or do not listen. */
export type WhenDown = 'hold' | 'reset' | 'close'

/** An entry of `keys`: the key of a user or device. */
export interface KeyConfig {
  readonly name: string
  /** One of these. */
  readonly psk: string | undefined
  readonly password: string | undefined
  /** As in the file; `expiryOf` in keys.ts has the time. */
  readonly not_after: string | undefined
  /** Server: limit of its sessions. */
  readonly max_sessions: number
}

/** A validated configuration. Names are the keys of the file; an absent key without default is undefined. */
export interface Config {
  /** MODE_* bits */
  readonly mode: number
  /** Only of an entry of `tunnels`. */
  readonly name?: string
  readonly listen: string | undefined
  /** Permission bits of the file of a Unix socket, in octal. */
  readonly listen_mode: string
  readonly connect: string | undefined
  /** Client: in place of listen, for datagrams. */
  readonly udp_listen: string | undefined
  /** Server: in place of connect, for datagrams. */
  readonly udp_connect: string | undefined
  /** s */
  readonly udp_timeout: number
  /** Version of the PROXY header that is written to the peer (client) or the target (server). */
  readonly proxy_protocol: 1 | 2 | undefined
  /** Client: whose connections begin with such a header. */
  readonly proxy_protocol_from: readonly string[]
  /** Of a server that is a proxy: rules about targets, passwords by user name. */
  readonly proxy_rules: readonly string[]
  readonly proxy_users: Readonly<Record<string, string>>
  readonly kcp_bind: string | undefined
  /** The only server, or the first of several. */
  readonly kcp_connect: string | undefined
  /** The servers of an array, in the order of preference; empty where `kcp_connect` is a string. */
  readonly servers: readonly string[]
  readonly strategy: Strategy
  /** s between hops to other ports of a range */
  readonly hop_interval: number
  readonly rendezvous_server: string | undefined
  readonly service_id: string
  readonly http_listen: string | undefined
  readonly http_token: string | undefined
  readonly netdev: string | undefined
  /** SO_MARK, 0 = none */
  readonly fwmark: number
  /** 0 = best effort */
  readonly dscp: number
  readonly method: string | undefined
  readonly psk: string | undefined
  readonly password: string | undefined
  /** In place of psk and password; empty where one of those is set. */
  readonly keys: readonly KeyConfig[]
  readonly obfs: string | undefined
  readonly kcp: KcpConfig
  readonly tcp: TcpConfig
  readonly udp: UdpConfig
  readonly rate: RateConfig
  /** s */
  readonly timeout: number
  /** s */
  readonly linger: number
  /** s, 0 = off */
  readonly keepalive: number
  /** s */
  readonly time_wait: number
  readonly loglevel: number
  readonly log: string | undefined
  readonly user: string | undefined
  /** MiB */
  readonly memory: number
  readonly max_sessions: number
  readonly replay: ReplayPolicy
  /** Whether native code may be loaded. */
  readonly native: boolean
  /** Client: what happens to new connections while the peer is silent. */
  readonly when_down: WhenDown
  /** Number of worker processes. */
  readonly workers: number
}

/** A validated file. */
export interface ConfigFile {
  /** With `tunnels`: the keys beside it, of which those of the process count. */
  readonly config: Config
  /** The entries of `tunnels`, each with its name and with what it takes from the keys beside it. */
  readonly tunnels: readonly Config[] | undefined
}
