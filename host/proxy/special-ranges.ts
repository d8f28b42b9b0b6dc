/**
 * Addresses that are no public unicast ones, from the special-purpose registries of IANA, and IPv4 addresses inside
 * IPv6 ones, to which translators and tunnels lead.
 */

import { type IpBytes, type IpRange, inRange, parseRange } from '../net/ip-range.ts'

const ranges = (texts: readonly string[]): readonly IpRange[] =>
  texts.map((text) => parseRange(text)).filter((range) => range !== undefined)

const SPECIAL_IPV4 = ranges([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10', // shared address space (CGNAT)
  '127.0.0.0/8',
  '168.63.129.16/32', // metadata of Azure
  '169.254.0.0/16', // link-local, metadata
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24', // documentation
  '192.88.99.0/24', // 6to4 relays
  '192.168.0.0/16',
  '198.18.0.0/15', // benchmarking
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, broadcast
])

/** Outside of these there is no global unicast address. */
const GLOBAL_IPV6 = ranges(['2000::/3', '64:ff9b::/96'])
const SPECIAL_IPV6 = ranges([
  '2001::/23', // protocols: Teredo, benchmarking, ORCHID
  '2001:db8::/32', // documentation
  '3fff::/20',
])

/** Whether an address is private, local, or otherwise no public unicast one. */
export function isSpecial(address: IpBytes): boolean {
  const isIn = (range: IpRange): boolean => inRange(address, range)
  if (address.length === 4) return SPECIAL_IPV4.some(isIn)
  return !GLOBAL_IPV6.some(isIn) || SPECIAL_IPV6.some(isIn)
}

const [COMPATIBLE, NAT64, LOCAL_NAT64, SIX_TO_FOUR, TEREDO] = ranges([
  '::/96',
  '64:ff9b::/96',
  '64:ff9b:1::/48',
  '2002::/16',
  '2001::/32',
]) as [IpRange, IpRange, IpRange, IpRange, IpRange]

/** The IPv4 addresses that an address contains. */
function embedded(address: IpBytes): IpBytes[] {
  if (address.length === 4) return []
  const part = (...at: readonly number[]): IpBytes => Uint8Array.from(at, (index) => address[index] ?? 0)
  const last = part(12, 13, 14, 15)
  const isIn = (range: IpRange): boolean => inRange(address, range)
  if (isIn(COMPATIBLE) || isIn(NAT64)) return [last]
  // RFC 6052, 2.2: the suffix after the address is zero, unless the prefix has 96 bits
  if (isIn(LOCAL_NAT64)) return [address.subarray(11).some((byte) => byte !== 0) ? last : part(6, 7, 9, 10)]
  if (isIn(SIX_TO_FOUR)) return [part(2, 3, 4, 5)]
  // server, and the inverted address of the client (RFC 4380, 4)
  if (isIn(TEREDO)) return [part(4, 5, 6, 7), last.map((byte) => byte ^ 0xff)]
  const isIsatap = (address[8] ?? 0) <= 2 && address[9] === 0 && address[10] === 0x5e && address[11] === 0xfe
  return isIsatap ? [last] : []
}

/** An address and those inside it: a connection is permitted if it is to all of them. */
export const viewsOf = (address: IpBytes): readonly IpBytes[] => [address, ...embedded(address)]
