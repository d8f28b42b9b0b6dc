/*
 * Peer addresses: 24-byte records that hosts fill from a sockaddr and that compare as plain bytes.
 *
 *   0      1     2      4          7     8                      24
 *   +------+-----+------+----------+-----+----------------------+
 *   |family|local| port | scope id | key | IP, network order    |   family 4: IP in the first 4 bytes, 12 zero bytes
 *   +------+-----+------+----------+-----+----------------------+
 *
 * `local` numbers the local address that the peer sent to. The engine returns it with everything that it sends to the
 * peer; a path has two ends, so a peer that sends to another local address is at another address here. `key` numbers
 * the key of the peer (packet/keys.ts): one that has another key is another peer, wherever it is.
 */

import {
  ADDRESS_BYTES,
  ADDRESS_FAMILY,
  ADDRESS_IP,
  ADDRESS_KEY,
  ADDRESS_LOCAL,
  ADDRESS_PORT,
  ADDRESS_SCOPE,
  KEY_NUMBERS,
} from '../abi'
import { sipHash } from '../siphash'
import { Conv } from '../units'

/** Offsets in a record; the IP's second half is at IP_LOW, an IPv4 address within a v4-mapped one at MAPPED_IPV4. */
const FAMILY: usize = ADDRESS_FAMILY
export const PORT: usize = ADDRESS_PORT
/** The scope id and, in the top byte, the key. */
export const SCOPE_ID: usize = ADDRESS_SCOPE
export const IP: usize = ADDRESS_IP
export const IP_LOW: usize = 16
const MAPPED_IPV4: usize = 20
/** All bits of the first 8 bytes of a record but those of `local`. */
const REMOTE_MASK: u64 = ~((<u64>0xff) << (ADDRESS_LOCAL * 8))
/** All bits of the first 8 bytes of a record but those of `key`. */
const PLACE_MASK: u64 = ~((<u64>0xff) << (ADDRESS_KEY * 8))
/** Values of FAMILY. */
export const IPV4: u32 = 4
export const IPV6: u32 = 6
/** Bytes 8 to 11 of ::ffff:a.b.c.d. */
const MAPPED_PREFIX: u32 = 0xffff0000

/** @returns true if two records are equal */
export function sameAddress(a: usize, b: usize): bool {
  return load<u64>(a) == load<u64>(b) && load<u64>(a, 8) == load<u64>(b, 8) && load<u64>(a, 16) == load<u64>(b, 16)
}

/** @returns true if two records are equal but for the local address */
export function sameRemote(a: usize, b: usize): bool {
  if ((load<u64>(a) ^ load<u64>(b)) & REMOTE_MASK) return false
  return load<u64>(a, 8) == load<u64>(b, 8) && load<u64>(a, 16) == load<u64>(b, 16)
}

/** @returns true if two records are equal but for the key */
export function samePlace(a: usize, b: usize): bool {
  if ((load<u64>(a) ^ load<u64>(b)) & PLACE_MASK) return false
  return load<u64>(a, 8) == load<u64>(b, 8) && load<u64>(a, 16) == load<u64>(b, 16)
}

/** @returns number of the key of a peer; within the tables, whatever the host wrote */
export function keyOf(record: usize): u32 {
  return load<u8>(record, ADDRESS_KEY) & (KEY_NUMBERS - 1)
}

/** @returns true if the peers at two addresses have the same key */
export function sameKey(a: usize, b: usize): bool {
  return keyOf(a) == keyOf(b)
}

/** Copies all of a record but the key. */
export function copyPlace(to: usize, from: usize): void {
  const key = <u8>keyOf(to)
  copyAddress(to, from)
  store<u8>(to, key, ADDRESS_KEY)
}

export function copyAddress(to: usize, from: usize): void {
  store<u64>(to, load<u64>(from))
  store<u64>(to, load<u64>(from, 8), 8)
  store<u64>(to, load<u64>(from, 16), 16)
}

/** @returns IPV4, IPV6, or 0 for an empty record */
export function familyOf(record: usize): u32 {
  return load<u8>(record, FAMILY)
}

/** @returns port of a record */
export function portOf(record: usize): u32 {
  return load<u16>(record, PORT)
}

/** @returns true if the IP of a record is unspecified (all zeros) */
export function isAnyIp(record: usize): bool {
  return (load<u64>(record, IP) | load<u64>(record, IP_LOW)) == 0
}

/** Turns an IPv4 record into a v4-mapped one. */
export function mapIpv4(record: usize): void {
  const ip = load<u32>(record, IP)
  store<u8>(record, IPV6, FAMILY)
  store<u64>(record, 0, IP)
  store<u32>(record, MAPPED_PREFIX, IP_LOW)
  store<u32>(record, ip, MAPPED_IPV4)
}

/** @returns false for an empty record (family 0) */
export function isAddress(record: usize): bool {
  return familyOf(record) != 0
}

/** @returns keyed hash of a conv; collisions cannot be constructed without the endpoint's secret */
export function hashConv(conv: Conv): u32 {
  return <u32>sipHash(0, 0, ((<u64>4) << 56) | <u64>conv)
}

/** @returns keyed hash of an address and a conv; collisions cannot be constructed without the endpoint's secret */
export function hashAddress(record: usize, conv: Conv): u32 {
  return <u32>sipHash(record, 3, ((<u64>(ADDRESS_BYTES + 4)) << 56) | <u64>conv)
}

const place: usize = memory.data(ADDRESS_BYTES, 8)

/** @returns keyed hash of an address without its key */
export function hashPlace(record: usize): u32 {
  store<u64>(place, load<u64>(record) & PLACE_MASK)
  store<u64>(place, load<u64>(record, 8), 8)
  store<u64>(place, load<u64>(record, 16), 16)
  return hashAddress(place, 0)
}

// ---- addresses inside messages (protocol.md 7.1): u8 type (0 IPv4, 1 IPv6), IP, u16 port, big-endian

const WIRE_IPV4: u32 = 0
const WIRE_IPV6: u32 = 1
const WIRE_IPV4_BYTES: u32 = 7
const WIRE_IPV6_BYTES: u32 = 19

/** @returns length of the address at `at` if it is valid and fits into `len` bytes, else 0 */
export function wireAddressBytes(at: usize, len: u32): u32 {
  if (len == 0) return 0
  const type = <u32>load<u8>(at)
  if (type > WIRE_IPV6) return 0
  const bytes = type == WIRE_IPV4 ? WIRE_IPV4_BYTES : WIRE_IPV6_BYTES
  return bytes <= len ? bytes : 0
}

/** Fills a record from a validated address of a message. */
export function readWireAddress(at: usize, record: usize): void {
  const isIpv4 = load<u8>(at) == WIRE_IPV4
  memory.fill(record, 0, ADDRESS_BYTES)
  store<u8>(record, isIpv4 ? IPV4 : IPV6, FAMILY)
  const ip = isIpv4 ? 4 : 16
  memory.copy(record + IP, at + 1, ip)
  store<u16>(record, bswap<u16>(load<u16>(at + 1 + ip)), PORT)
}

/** @returns true for ::ffff:a.b.c.d */
function isMapped(record: usize): bool {
  return familyOf(record) == IPV6 && load<u64>(record, IP) == 0 && load<u32>(record, IP_LOW) == MAPPED_PREFIX
}

/** @returns location of the IPv4 address in a record, 0 if there is none */
function ipv4Of(record: usize): usize {
  if (familyOf(record) == IPV4) return record + IP
  return isMapped(record) ? record + MAPPED_IPV4 : 0
}

/**
 * Writes a record as an address of a message. A v4-mapped address is written as IPv4, so that IPv4 peers can use it; an
 * empty record as 0.0.0.0:0.
 * @returns its length
 */
export function writeWireAddress(at: usize, record: usize): u32 {
  const v4 = familyOf(record) == IPV6 ? ipv4Of(record) : record + IP
  const port = bswap<u16>(<u16>portOf(record))
  if (v4) {
    store<u8>(at, WIRE_IPV4)
    store<u32>(at + 1, load<u32>(v4))
    store<u16>(at + 5, port)
    return WIRE_IPV4_BYTES
  }
  store<u8>(at, WIRE_IPV6)
  memory.copy(at + 1, record + IP, 16)
  store<u16>(at + 17, port)
  return WIRE_IPV6_BYTES
}

/** @returns true if a PUNCH may contain this address: site-local or global, with a port (protocol.md 8) */
export function isPunchable(record: usize): bool {
  if (portOf(record) == 0) return false
  const v4 = ipv4Of(record)
  if (v4) return isPunchableIpv4(load<u8>(v4), load<u8>(v4, 1), bswap<u32>(load<u32>(v4)))
  const a = load<u8>(record, IP)
  const b = load<u8>(record, IP + 1)
  if (a == 0xff || (a == 0xfe && (b & 0xc0) == 0x80)) return false
  // :: and ::1
  const low = bswap<u64>(load<u64>(record, IP_LOW))
  return load<u64>(record, IP) != 0 || low > 1
}

function isPunchableIpv4(a: u32, b: u32, ip: u32): bool {
  if (a == 0 || a == 127 || a >= 224) return false
  if (ip >> 16 == 0xa9fe) return false
  return !(a == 100 && (b & 0xc0) == 64)
}
