/** Ranges of IP addresses in CIDR notation. An IPv4-mapped address is the IPv4 address that it leads to. */

import { ADDRESS_RECORD_BYTES, ipFamily, writeRecord } from './address.ts'

const RECORD_IP_OFFSET = 8
/** ::ffff:0:0/96 (RFC 4291, section 2.5.5.2) */
const MAPPED_BITS = 96

/** The bytes of an address: 4 of IPv4, also for a mapped one, or 16. */
export type IpBytes = Uint8Array

/** A block of addresses: those that begin with the first `bits` of `start`. */
export interface IpRange {
  readonly start: IpBytes
  readonly bits: number
}

const isMapped = (bytes: Uint8Array): boolean =>
  bytes.length === 16 && bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((byte) => byte === 0)

/** @returns undefined if `text` is not an IP literal */
export function ipBytes(text: string): IpBytes | undefined {
  const family = ipFamily(text)
  if (family === 0) return undefined
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  writeRecord({ family, address: text, port: 0, scope: 0 }, record, 0)
  const bytes = record.subarray(RECORD_IP_OFFSET, RECORD_IP_OFFSET + (family === 4 ? 4 : 16))
  return isMapped(bytes) ? bytes.subarray(12) : bytes
}

/**
 * Parses `10.0.0.0/8`, `2001:db8::/32` or a single address.
 * @returns undefined if `text` is none of these
 */
export function parseRange(text: string): IpRange | undefined {
  const [address = '', prefix, ...others] = text.split('/')
  const start = ipBytes(address)
  if (start === undefined || others.length > 0) return undefined
  const mapped = start.length === 4 && address.includes(':') ? MAPPED_BITS : 0
  const most = start.length * 8 + mapped
  if (prefix !== undefined && !/^\d{1,3}$/.test(prefix)) return undefined
  const bits = prefix === undefined ? most : Number(prefix)
  // part of the mapped block is no range of IPv4
  return bits > most || bits < mapped ? undefined : { start, bits: bits - mapped }
}

/** Whether a range contains an address of the same family. */
export function inRange(address: IpBytes, { start, bits }: IpRange): boolean {
  if (address.length !== start.length) return false
  const whole = bits >>> 3
  for (let i = 0; i < whole; i++) if (address[i] !== start[i]) return false
  const rest = bits & 7
  return rest === 0 || (((address[whole] ?? 0) ^ (start[whole] ?? 0)) & (0xff00 >>> rest) & 0xff) === 0
}
