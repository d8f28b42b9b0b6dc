/** Headers of the PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): the address of a visitor before its bytes. */

import {
  ADDRESS_RECORD_BYTES,
  canonicalIp,
  ipFamily,
  readRecord,
  type SocketAddress,
  writeRecord,
} from '../net/address.ts'
import { unmapped } from '../net/native-address.ts'

/** Longest header of version 1. */
const TEXT_MAX_BYTES = 107
/** Longest header of version 2 that is accepted, with its additional fields. */
const HEADER_MAX_BYTES = 4096
const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a)
const PREFIX = new TextEncoder().encode('PROXY ')
/** Up to the addresses. */
const FIXED_BYTES = 16
const VERSION = 0x20
const LOCAL = 0
const PROXY = 1
const TCP4 = 0x11
const TCP6 = 0x21
const LF = 0x0a
const RECORD_IP_OFFSET = 8

/** Both ends of a visitor's connection; undefined: unknown. */
export interface Visit {
  readonly source: SocketAddress
  readonly destination: SocketAddress
}

/** What the bytes so far are. */
export type Parsed =
  | { readonly kind: 'more' }
  | { readonly kind: 'bad'; readonly text: string }
  | { readonly kind: 'header'; readonly bytes: number; readonly visit: Visit | undefined }

const bad = (text: string): Parsed => ({ kind: 'bad', text })
const MORE: Parsed = { kind: 'more' }

function ipOf({ address, family }: SocketAddress): Uint8Array {
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  writeRecord({ address, family, port: 0, scope: 0 }, record, 0)
  return record.slice(RECORD_IP_OFFSET, RECORD_IP_OFFSET + (family === 4 ? 4 : 16))
}

/** The end that a connection reached, in the family of its source; port alone where they differ. */
function destinationFor(source: SocketAddress, destination: SocketAddress | undefined): SocketAddress {
  const plain = destination && unmapped(destination)
  if (plain?.family === source.family) return plain
  return { ...source, address: source.family === 4 ? '0.0.0.0' : '::', port: plain?.port ?? 0 }
}

/**
 * Makes a header. Mapped addresses are written as IPv4.
 * @param source of the visitor; undefined: unknown, as of a Unix socket
 */
export function encodeHeader(version: 1 | 2, source?: SocketAddress, destination?: SocketAddress): Uint8Array {
  if (source === undefined) {
    if (version === 1) return new TextEncoder().encode('PROXY UNKNOWN\r\n')
    return Uint8Array.of(...SIGNATURE, VERSION | LOCAL, 0, 0, 0)
  }
  const from = unmapped(source)
  const to = destinationFor(from, destination)
  if (version === 1) {
    const text = ({ address }: SocketAddress): string => canonicalIp(address) ?? address
    return new TextEncoder().encode(`PROXY TCP${from.family} ${text(from)} ${text(to)} ${from.port} ${to.port}\r\n`)
  }
  const ports = [from.port >> 8, from.port & 255, to.port >> 8, to.port & 255]
  const addresses = [...ipOf(from), ...ipOf(to), ...ports]
  const family = from.family === 4 ? TCP4 : TCP6
  return Uint8Array.of(...SIGNATURE, VERSION | PROXY, family, 0, addresses.length, ...addresses)
}

const beginsWith = (bytes: Uint8Array, wanted: Uint8Array): boolean =>
  wanted.subarray(0, bytes.length).every((byte, index) => byte === bytes[index])

/** Reads a header at the start of what arrived. */
export function parseHeader(bytes: Uint8Array): Parsed {
  if (beginsWith(bytes, SIGNATURE)) return bytes.length < FIXED_BYTES ? MORE : parseBinary(bytes)
  return beginsWith(bytes, PREFIX) ? parseText(bytes) : bad('it does not begin with a header')
}

function parseText(bytes: Uint8Array): Parsed {
  const end = bytes.indexOf(LF)
  if (end < 0) return bytes.length < TEXT_MAX_BYTES ? MORE : bad(`no line end within ${TEXT_MAX_BYTES} bytes`)
  const line = String.fromCharCode(...bytes.subarray(0, end + 1))
  if (end >= TEXT_MAX_BYTES || !line.endsWith('\r\n')) return bad('the line is too long, or does not end with CR LF')
  if (/^PROXY UNKNOWN( .*)?\r\n$/.test(line)) return { kind: 'header', bytes: end + 1, visit: undefined }
  const [, digit, from = '', to = '', fromPort = '', toPort = ''] =
    /^PROXY TCP([46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n$/.exec(line) ?? []
  const family = digit === '4' ? 4 : 6
  const [port, otherPort] = [Number(fromPort), Number(toPort)]
  if (digit === undefined || ipFamily(from) !== family || ipFamily(to) !== family || Math.max(port, otherPort) > 65535)
    return bad('the line is malformed')
  const address = (text: string): string => canonicalIp(text) ?? text
  return {
    kind: 'header',
    bytes: end + 1,
    visit: {
      source: { family, address: address(from), port, scope: 0 },
      destination: { family, address: address(to), port: otherPort, scope: 0 },
    },
  }
}

function parseBinary(bytes: Uint8Array): Parsed {
  const [command = 0, family = 0, high = 0, low = 0] = bytes.subarray(SIGNATURE.length)
  const length = FIXED_BYTES + ((high << 8) | low)
  const isProxied = command === (VERSION | PROXY)
  if (!isProxied && command !== (VERSION | LOCAL)) return bad(`version and command 0x${command.toString(16)}`)
  if (length > HEADER_MAX_BYTES) return bad(`it has more than ${HEADER_MAX_BYTES} bytes`)
  const size = family === TCP4 ? 4 : family === TCP6 ? 16 : 0
  if (isProxied && length < FIXED_BYTES + (size === 0 ? 0 : 2 * size + 4)) return bad('its addresses are incomplete')
  if (bytes.length < length) return MORE
  // other families and transports are none of this program
  if (!isProxied || size === 0) return { kind: 'header', bytes: length, visit: undefined }
  const ports = FIXED_BYTES + 2 * size
  const source = addressAt(bytes, FIXED_BYTES, size, ports)
  const destination = addressAt(bytes, FIXED_BYTES + size, size, ports + 2)
  return { kind: 'header', bytes: length, visit: source && destination && { source, destination } }
}

function addressAt(bytes: Uint8Array, at: number, size: number, port: number): SocketAddress | undefined {
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  record.set([size === 4 ? 4 : 6, 0, bytes[port + 1] ?? 0, bytes[port] ?? 0])
  record.set(bytes.subarray(at, at + size), RECORD_IP_OFFSET)
  return readRecord(record, 0)
}
