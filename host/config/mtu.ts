/** MTU arithmetic (protocol.md 4): the share of each layer in an IP packet. */

import { sealBytes } from '../crypto/methods.ts'
import { ConfigError, quote } from '../errors.ts'
import { canonicalIp, parseHostPort } from '../net/address.ts'
import { type Config, MODE_CLIENT, MODE_SERVER } from './config.ts'

/** `kcp.mtu` if it is not set, and the largest packet that is then tried: kcptun-libev accepts no larger ones. */
export const MTU_DEFAULT = 1400
export const MTU_TOP = 1500

/** IP + UDP headers, in bytes. */
const UDP_HEADERS_BYTES = { 4: 28, 6: 48 } as const
/** IP + TCP headers, in bytes. */
const TCP_HEADERS_BYTES = { 4: 40, 6: 60 } as const
/** Bytes of a KCP segment before its data (protocol.md 5.1). */
const SEGMENT_HEADER_BYTES = 24

/** The layers of a full datagram, in bytes. They add up to `packet`. */
export interface Datagram {
  readonly family: 4 | 6
  readonly packet: number
  /** IP and UDP, or IP and TCP with `obfs`. */
  readonly headers: number
  /** Nonce and tag. */
  readonly seal: number
  readonly segment: number
  /** Payload of TCP connections. */
  readonly data: number
}

/** Family of a configured address; undefined if it depends on name resolution. @throws ConfigError */
function familyOf(key: string, text: string | undefined, role: 'bind' | 'connect'): 4 | 6 | undefined {
  if (text === undefined) return undefined
  const { host } = parseHostPort(key, text, role)
  const ip = canonicalIp(host.replace(/%.*$/, ''))
  return ip === undefined ? undefined : ip.includes(':') ? 6 : 4
}

/** The possible address families of the packets, of any server. */
function families(config: Config): readonly (4 | 6)[] {
  const { servers } = config
  if (servers.length < 2) return familiesOf(config)
  const all = servers.flatMap((server) => familiesOf({ ...config, kcp_connect: server }))
  return ([4, 6] as const).filter((family) => all.includes(family))
}

/** By the rule of `packetFamily`. */
function familiesOf(config: Config): readonly (4 | 6)[] {
  const { mode, kcp_bind, kcp_connect, rendezvous_server } = config
  const bind = familyOf('kcp_bind', kcp_bind, 'bind')
  const ends = (mode & (MODE_CLIENT | MODE_SERVER)) !== 0
  const remote =
    (mode & MODE_CLIENT) !== 0 && rendezvous_server === undefined ? kcp_connect : ends ? rendezvous_server : undefined
  if (remote === undefined || (bind === 6 && rendezvous_server !== undefined))
    return bind === undefined ? [4, 6] : [bind]
  const family = familyOf('', remote, 'connect') ?? (bind === 4 ? bind : undefined)
  return family === undefined ? [4, 6] : [family]
}

/** Full datagrams of each possible family. The configuration must have passed checkStart. @throws ConfigError */
export function datagrams(config: Config): readonly Datagram[] {
  const { method, obfs } = config
  const packet = config.kcp.mtu ?? MTU_DEFAULT
  return families(config).map((family) => {
    const open = kcpMtu(packet, family, undefined, obfs)
    const sealed = kcpMtu(packet, family, method, obfs)
    return {
      family,
      packet,
      headers: packet - open,
      seal: open - sealed,
      segment: SEGMENT_HEADER_BYTES,
      data: sealed - SEGMENT_HEADER_BYTES,
    }
  })
}

/** LISTEN and CONNECT without addresses and service id (protocol.md 7.1), in bytes. */
const HELLO_BYTES = 8
/** An address in these messages, in bytes. */
const ADDRESS_BYTES = { 4: 7, 6: 19 } as const

/**
 * Checks that a LISTEN or CONNECT with the service id fits in one datagram.
 * @param family address family of the UDP address in use
 * @throws ConfigError naming both keys if it does not fit
 */
export function checkServiceId(config: Config, family: 4 | 6): void {
  if (config.rendezvous_server === undefined) return
  const { kcp, method, obfs, service_id } = config
  const most = kcpMtu(kcp.mtu, family, method, obfs) - HELLO_BYTES - ADDRESS_BYTES[family]
  const bytes = new TextEncoder().encode(service_id).length
  if (bytes <= most) return
  const reason = `must be at most ${Math.max(0, most)} bytes long to fit in a datagram with kcp.mtu = ${kcp.mtu ?? MTU_DEFAULT}, is ${bytes}`
  throw new ConfigError('service_id', quote(service_id), reason)
}

/**
 * Maximum plaintext bytes in one datagram (protocol.md 4).
 * @param mtu config.kcp.mtu, bytes of the whole IP packet; undefined: MTU_DEFAULT
 * @param family address family of the UDP address in use
 * @param method config.method, undefined for none
 * @param obfs config.obfs, undefined for UDP
 * @throws RangeError for an unknown method, which checkStart excludes
 */
export function kcpMtu(
  mtu: number | undefined,
  family: 4 | 6,
  method: string | undefined,
  obfs: string | undefined,
): number {
  const headers = obfs === undefined ? UDP_HEADERS_BYTES[family] : TCP_HEADERS_BYTES[family]
  return (mtu ?? MTU_DEFAULT) - headers - (method === undefined ? 0 : sealBytes(method))
}
