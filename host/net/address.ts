/**
 * Addresses as text, as SocketAddress and as the engine's 24-byte record: parsing `host:port` (protocol.md 10.4),
 * printing (10.7), conversion (abi.md). Does not resolve names. A v4-mapped address on a dual-stack socket keeps
 * family 6.
 */

import { ConfigError, quote } from '../errors.ts'

/** A resolved IP socket address. `scope` is the numeric IPv6 scope id, 0 if none. */
export interface SocketAddress {
  readonly family: 4 | 6
  readonly address: string
  readonly port: number
  readonly scope: number
  /** Of a peer: its socket's number of the local address that the peer sent to (UdpOptions.replyFromAsked). */
  readonly local?: number
}

/** Size of the engine's address record in bytes. */
export const ADDRESS_RECORD_BYTES = 24
/** Offset of the number of the peer's key in the record: the top byte of the word with the scope id. */
export const ADDRESS_KEY_OFFSET = 7
/** Scope ids are interface indexes, which are small. */
const SCOPE_MASK = 0xffffff

/** Longest `host:port`, in bytes of UTF-8. */
const TEXT_MAX_BYTES = 261
const PORT_MAX = 65535
const IPV4_BYTES = 4
const IPV6_BYTES = 16
const IPV6_GROUPS = 8
/** Offset of the IP in the record, in bytes. */
const RECORD_IP_OFFSET = 8

/**
 * Service names accepted as a port. JavaScript runtimes have no portable getservbyname, so this short table of IANA
 * names replaces /etc/services. Names are lower case.
 */
const SERVICES: ReadonlyMap<string, number> = new Map([
  ['ftp', 21],
  ['ssh', 22],
  ['telnet', 23],
  ['smtp', 25],
  ['domain', 53],
  ['http', 80],
  ['pop3', 110],
  ['ntp', 123],
  ['imap2', 143],
  ['snmp', 161],
  ['ldap', 389],
  ['https', 443],
  ['submissions', 465],
  ['submission', 587],
  ['ldaps', 636],
  ['imaps', 993],
  ['pop3s', 995],
  ['socks', 1080],
  ['openvpn', 1194],
  ['mysql', 3306],
  ['postgresql', 5432],
  ['http-alt', 8080],
])

/** `bind` = a local address to listen on, `connect` = a remote one. */
export type AddressRole = 'bind' | 'connect'

/** A host (name or IP literal without brackets) and a port, not yet resolved. */
export interface HostPort {
  readonly host: string
  /** The first one of a range. */
  readonly port: number
  /** The ports, if there are several. */
  readonly range?: PortRange
}

/** Ports, both included; the last one is greater than the first. */
export interface PortRange {
  readonly first: number
  readonly last: number
}

/** Keys whose addresses may have a range of ports. */
const RANGE_KEYS: ReadonlySet<string> = new Set(['kcp_bind', 'kcp_connect', ''])
/** Most ports that an endpoint binds: each takes a socket. */
export const BIND_PORTS_MAX = 64

function parsePort(text: string): number | undefined {
  if (text === '') {
    return 0
  }
  const port = /^[0-9]+$/.test(text) ? Number(text) : SERVICES.get(text)
  return port !== undefined && port <= PORT_MAX ? port : undefined
}

/**
 * Parses `first-last`.
 * @returns the range, or why it is none; undefined if the text is not meant as one
 */
function parseRange(text: string, role: AddressRole): PortRange | string | undefined {
  if (!/^[^a-z]*-[^a-z]*$/i.test(text)) return undefined
  const [, from, to] = /^([0-9]+)-([0-9]+)$/.exec(text) ?? []
  const first = Number(from)
  const last = Number(to)
  if (from === undefined || first === 0 || last > PORT_MAX)
    return `a range of ports is two numbers from 1 to ${PORT_MAX}, as in 4000-4999`
  if (first >= last) return 'the last port of a range must be greater than the first'
  if (role === 'bind' && last - first >= BIND_PORTS_MAX)
    return `at most ${BIND_PORTS_MAX} ports are bound; for more, bind one and redirect the others to it (--hop-firewall)`
  return { first, last }
}

/**
 * Parses `host:port` (protocol.md 10.4), in kcp_bind and kcp_connect also `host:first-last`. An empty host or `*` is the IPv4 wildcard in a bind address and an error in a
 * connect address; an empty port is 0.
 * @param key config key of the text, for the message
 * @throws ConfigError
 */
export function parseHostPort(key: string, text: string, role: AddressRole): HostPort {
  const refuse = (reason: string): never => {
    throw new ConfigError(key, quote(text), reason)
  }
  if (new TextEncoder().encode(text).length > TEXT_MAX_BYTES) {
    refuse(`an address is at most ${TEXT_MAX_BYTES} bytes long`)
  }
  const colon = text.lastIndexOf(':')
  if (colon < 0) {
    refuse('an address must be host:port, there is no colon')
  }
  let host = text.slice(0, colon)
  if (host.startsWith('[') && host.endsWith(']')) {
    host = host.slice(1, -1)
  } else if (host.includes(':')) {
    refuse('an IPv6 address must be in brackets, as in [::1]:53')
  }
  if (/[[\]\s]/.test(host)) {
    refuse('the host contains a bracket or white space')
  }
  const range = parseRange(text.slice(colon + 1), role)
  if (range !== undefined && !RANGE_KEYS.has(key)) refuse('a range of ports is for kcp_connect and kcp_bind')
  if (typeof range === 'string') refuse(range)
  const port = typeof range === 'object' ? range.first : parsePort(text.slice(colon + 1))
  if (port === undefined) {
    return refuse(`the port must be a number from 0 to ${PORT_MAX} or a well-known service name such as http`)
  }
  if (host === '' || host === '*') {
    if (role === 'connect') refuse('the host is missing')
    host = '0.0.0.0'
  }
  return typeof range === 'object' ? { host, port, range } : { host, port }
}

const DOT = 0x2e
const COLON = 0x3a
const ZERO = 0x30

/** Value of a hex digit, or -1. */
function hexDigit(code: number): number {
  const letter = (code | 0x20) - 0x61
  return code >= ZERO && code <= 0x39 ? code - ZERO : letter >= 0 && letter < 6 ? letter + 10 : -1
}

/**
 * Parses the dotted quad at `text[from..]` into 4 bytes. Decimal without leading zeros.
 * @returns whether the text is valid
 */
function writeIPv4(text: string, from: number, bytes: Uint8Array, offset: number): boolean {
  let index = from
  for (let part = 0; part < IPV4_BYTES; part += 1) {
    if (part > 0 && text.charCodeAt(index++) !== DOT) {
      return false
    }
    const start = index
    let value = 0
    for (let digit = text.charCodeAt(index) - ZERO; digit >= 0 && digit <= 9; digit = text.charCodeAt(++index) - ZERO) {
      value = value * 10 + digit
    }
    const length = index - start
    if (length === 0 || length > 3 || value > 255 || (length > 1 && text.charCodeAt(start) === ZERO)) {
      return false
    }
    bytes[offset + part] = value
  }
  return index === text.length
}

/**
 * Parses IPv6 text (RFC 4291 2.2, without zone) into 16 bytes.
 * @returns whether the text is valid; if not, the bytes are undefined
 */
function writeIPv6(text: string, bytes: Uint8Array, offset: number): boolean {
  const end = offset + IPV6_BYTES
  let at = offset
  /** offset of `::` in `bytes` */
  let gap = -1
  let index = 0
  if (text.startsWith('::')) {
    gap = at
    index = 2
  }
  while (index < text.length) {
    const start = index
    let group = 0
    for (let digit = hexDigit(text.charCodeAt(index)); digit >= 0; digit = hexDigit(text.charCodeAt(++index))) {
      group = ((group << 4) | digit) & 0xfffff
    }
    if (text.charCodeAt(index) === DOT) {
      if (at + IPV4_BYTES > end || !writeIPv4(text, start, bytes, at)) {
        return false
      }
      at += IPV4_BYTES
      break
    }
    if (index === start || index - start > 4 || at + 2 > end) {
      return false
    }
    bytes[at++] = group >> 8
    bytes[at++] = group & 0xff
    if (index === text.length) {
      break
    }
    if (text.charCodeAt(index++) !== COLON) {
      return false
    }
    if (text.charCodeAt(index) === COLON) {
      if (gap >= 0) {
        return false
      }
      gap = at
      index += 1
    } else if (index === text.length) {
      return false
    }
  }
  if (gap < 0) {
    return at === end
  }
  // `::` replaces at least one zero group
  if (at > end - 2) {
    return false
  }
  bytes.copyWithin(end - (at - gap), gap, at)
  bytes.fill(0, gap, end - (at - gap))
  return true
}

/** 4 or 6 for an IP literal (IPv6 without zone), 0 for anything else. */
export function ipFamily(text: string): 0 | 4 | 6 {
  const bytes = new Uint8Array(IPV6_BYTES)
  return writeIPv4(text, 0, bytes, 0) ? 4 : writeIPv6(text, bytes, 0) ? 6 : 0
}

function ipv4Text(bytes: Uint8Array, offset: number): string {
  return bytes.subarray(offset, offset + IPV4_BYTES).join('.')
}

/**
 * Formats canonical text (RFC 5952): lower case, the longest run of zero groups shortened, v4-mapped addresses with a
 * dotted quad.
 */
function ipv6Text(bytes: Uint8Array, offset: number): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, IPV6_BYTES)
  const groups = Array.from({ length: IPV6_GROUPS }, (_, index) => view.getUint16(index * 2))
  if (groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0)) {
    return `::ffff:${ipv4Text(bytes, offset + IPV6_BYTES - IPV4_BYTES)}`
  }
  let best = 0
  let bestLength = 1
  for (let start = 0, index = 0; index < IPV6_GROUPS; index += 1) {
    if (groups[index] !== 0) {
      start = index + 1
    } else if (index + 1 - start > bestLength) {
      best = start
      bestLength = index + 1 - start
    }
  }
  const hex = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':')
  return bestLength === 1 ? hex(0, IPV6_GROUPS) : `${hex(0, best)}::${hex(best + bestLength, IPV6_GROUPS)}`
}

/**
 * Canonical form of an IP literal, as runtimes report addresses.
 * @returns undefined if `text` is not an IP literal
 */
export function canonicalIp(text: string): string | undefined {
  const bytes = new Uint8Array(IPV6_BYTES)
  if (writeIPv4(text, 0, bytes, 0)) {
    return text
  }
  return writeIPv6(text, bytes, 0) ? ipv6Text(bytes, 0) : undefined
}

/** Whether a host from `parseHostPort` is a loopback address. */
export const isLoopbackHost = (host: string): boolean => /^(127\..*|::1|localhost)$/.test(host)

/** Whether a host from `parseHostPort` is a wildcard address. */
export const isWildcardHost = (host: string): boolean => host === '0.0.0.0' || host === '::'

/** Formats `a.b.c.d:port` or `[text]:port`, with `%scope` before the bracket if non-zero (protocol.md 10.7). */
export function formatAddress(address: SocketAddress): string {
  if (address.family === 4) {
    return `${address.address}:${address.port}`
  }
  const zone = address.scope === 0 ? '' : `%${address.scope}`
  return `[${canonicalIp(address.address) ?? address.address}${zone}]:${address.port}`
}

/** Formats addresses; consecutive ports of one address are a range. */
export function formatAddresses(all: readonly SocketAddress[]): readonly string[] {
  const texts: string[] = []
  for (let i = 0; i < all.length; ) {
    const first = all[i] as SocketAddress
    let count = 1
    while (sameAddress({ ...first, port: first.port + count }, all[i + count] ?? first)) count++
    texts.push(count === 1 ? formatAddress(first) : `${formatAddress(first)}-${first.port + count - 1}`)
    i += count
  }
  return texts
}

/** Whether two addresses are equal. Both IPs must be in canonical form. Does not allocate. */
export function sameAddress(a: SocketAddress, b: SocketAddress): boolean {
  if (a.port !== b.port || a.address !== b.address || a.family !== b.family || a.scope !== b.scope) return false
  return (a.local ?? 0) === (b.local ?? 0)
}

/**
 * Writes the 24-byte address record of abi.md at `offset`, with key 0. Does not allocate, but parses text: cache the record of a
 * frequent address.
 * @throws RangeError if `address.address` is not an IP literal of its family, or the scope id has more than 24 bits
 */
export function writeRecord(address: SocketAddress, bytes: Uint8Array, offset: number): void {
  bytes.fill(0, offset, offset + ADDRESS_RECORD_BYTES)
  const ip = offset + RECORD_IP_OFFSET
  const valid = address.family === 4 ? writeIPv4(address.address, 0, bytes, ip) : writeIPv6(address.address, bytes, ip)
  if (!valid) {
    throw new RangeError(`not an IPv${address.family} address: ${address.address}`)
  }
  bytes[offset] = address.family
  bytes[offset + 1] = address.local ?? 0
  bytes[offset + 2] = address.port & 0xff
  bytes[offset + 3] = address.port >>> 8
  const scope = address.family === 6 ? address.scope : 0
  if (scope > SCOPE_MASK) throw new RangeError(`scope id ${scope}: at most ${SCOPE_MASK}`)
  bytes[offset + 4] = scope & 0xff
  bytes[offset + 5] = (scope >>> 8) & 0xff
  bytes[offset + 6] = (scope >>> 16) & 0xff
}

/**
 * Reads a 24-byte address record, whatever its key.
 * @returns undefined for a family other than 4 and 6 (no address)
 */
export function readRecord(bytes: Uint8Array, offset: number): SocketAddress | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, ADDRESS_RECORD_BYTES)
  const family = view.getUint8(0)
  if (family !== 4 && family !== 6) {
    return undefined
  }
  const ip = offset + RECORD_IP_OFFSET
  const address = family === 4 ? ipv4Text(bytes, ip) : ipv6Text(bytes, ip)
  const found = { family, address, port: view.getUint16(2, true), scope: view.getUint32(4, true) & SCOPE_MASK } as const
  const local = view.getUint8(1)
  return local === 0 ? found : { ...found, local }
}
