/*
 * IP and TCP headers (RFC 791, 8200, 9293): parses captured packets, and builds headers in front of payloads. It is
 * stateless; numbers.ts determines the sequence numbers.
 *
 *   IPv4   0        1      2            4     6            8     9        10         12      16       20
 *          | 4, IHL | TOS  | total len  | id  | flags,frag | TTL | proto  | checksum | source | target |
 *   IPv6   0                            4             6             7           8        24       40
 *          | 6, class, flow label       | payload len | next header | hop limit | source | target |
 *   TCP    0             2             4      8      12            13      14       16         18       20
 *          | source port | target port | seq  | ack  | data offset | flags | window | checksum | urgent |
 */
import { familyOf, IP, IP_LOW, IPV4, IPV6, isAnyIp, PORT, portOf, SCOPE_ID } from '../packet/address'
export const SYN: u32 = 0x02
export const RST: u32 = 0x04
export const PSH: u32 = 0x08
export const ACK: u32 = 0x10
export const ECE: u32 = 0x40

export const IPV4_BYTES: u32 = 20
export const IPV6_BYTES: u32 = 40
const TCP_BYTES: u32 = 20
/** Offsets in the headers. */
const IPV4_TOS: usize = 1
const IPV4_TOTAL: usize = 2
const IPV4_ID: usize = 4
const IPV4_FRAGMENT: usize = 6
const IPV4_TTL: usize = 8
const IPV4_PROTOCOL: usize = 9
const IPV4_CHECKSUM: usize = 10
const IPV4_SOURCE: usize = 12
const IPV4_TARGET: usize = 16
const IPV6_PAYLOAD: usize = 4
const IPV6_PROTOCOL: usize = 6
const IPV6_HOP_LIMIT: usize = 7
const IPV6_SOURCE: usize = 8
const IPV6_TARGET: usize = 24
const TCP_TARGET: usize = 2
const TCP_SEQ: usize = 4
const TCP_ACK: usize = 8
const TCP_DATA_OFFSET: usize = 12
const TCP_FLAGS: usize = 13
const TCP_WINDOW: usize = 14
const TCP_CHECKSUM: usize = 16
/** Longer captured packets are ignored (protocol.md 9.1). */
const MAX_PACKET_BYTES: u32 = 1500

const PROTOCOL_TCP: u32 = 6
const TTL: u32 = 64
/** DSCP 0, ECT(0). */
const TRAFFIC_CLASS: u32 = 0x02
const CONGESTION_EXPERIENCED: u32 = 3
const DONT_FRAGMENT: u32 = 0x4000
const FRAGMENT_MASK: u32 = 0x3fff
/** fe80::/10, as read by a little-endian load. */
const LINK_LOCAL: u32 = 0x80fe
const LINK_LOCAL_MASK: u32 = 0xc0ff

// ---- the parsed packet

@unmanaged
export class Packet {
  // address records of both ends: family and port, then scope id and IP
  source0: u64
  source1: u64
  source2: u64
  target0: u64
  target1: u64
  target2: u64
  // the TCP segment, header included, and its payload
  segment: usize
  segmentBytes: u32
  payload: usize
  payloadBytes: u32
  seq: u32
  ack: u32
  flags: u32
  // IPv6 flow label
  flow: u32
  // the ECN field is CE
  isCongested: bool
}

/** Result of `parse`. */
export const packet: Packet = changetype<Packet>(memory.data(88, 8))
export const source: usize = changetype<usize>(packet)
export const target: usize = changetype<usize>(packet) + offsetof<Packet>('target0')

function be16(at: usize): u32 {
  return <u32>bswap<u16>(load<u16>(at))
}

function be32(at: usize): u32 {
  return bswap<u32>(load<u32>(at))
}

function putBe16(at: usize, value: u32): void {
  store<u16>(at, bswap<u16>(<u16>value))
}

function putBe32(at: usize, value: u32): void {
  store<u32>(at, bswap<u32>(value))
}

/**
 * Parses a packet of `len` captured bytes into `packet`.
 * @returns false unless it is an unfragmented TCP segment
 */
export function parse(at: usize, len: u32): bool {
  if (len < IPV4_BYTES || len > MAX_PACKET_BYTES) return false
  const version = load<u8>(at) >> 4
  if (version == 4) return parseIpv4(at, len)
  return version == 6 && len >= IPV6_BYTES && parseIpv6(at, len)
}

function parseIpv4(at: usize, len: u32): bool {
  const header = (<u32>(load<u8>(at) & 15)) << 2
  const total = be16(at + IPV4_TOTAL)
  // bytes beyond the total length are padding of the link
  if (header < IPV4_BYTES || total > len || total < header) return false
  if ((be16(at + IPV4_FRAGMENT) & FRAGMENT_MASK) != 0 || load<u8>(at, IPV4_PROTOCOL) != PROTOCOL_TCP) return false
  packet.isCongested = (load<u8>(at, IPV4_TOS) & 3) == CONGESTION_EXPERIENCED
  packet.flow = 0
  putIpv4(source, at + IPV4_SOURCE)
  putIpv4(target, at + IPV4_TARGET)
  return parseTcp(at + header, total - header)
}

function parseIpv6(at: usize, len: u32): bool {
  const bytes = be16(at + IPV6_PAYLOAD)
  if (bytes > len - IPV6_BYTES || load<u8>(at, IPV6_PROTOCOL) != PROTOCOL_TCP) return false
  const word = be32(at)
  packet.isCongested = ((word >> 20) & 3) == CONGESTION_EXPERIENCED
  packet.flow = word & 0xfffff
  putIpv6(source, at + IPV6_SOURCE)
  putIpv6(target, at + IPV6_TARGET)
  return parseTcp(at + IPV6_BYTES, bytes)
}

function putIpv4(record: usize, ip: usize): void {
  store<u64>(record, IPV4)
  store<u64>(record, load<u32>(ip), IP)
  store<u64>(record, 0, IP_LOW)
}

function putIpv6(record: usize, ip: usize): void {
  store<u64>(record, IPV6)
  store<u64>(record, load<u64>(ip), IP)
  store<u64>(record, load<u64>(ip, 8), IP_LOW)
}

function parseTcp(at: usize, bytes: u32): bool {
  if (bytes < TCP_BYTES) return false
  const header = (<u32>(load<u8>(at, TCP_DATA_OFFSET) >> 4)) << 2
  if (header < TCP_BYTES || header > bytes) return false
  store<u16>(source, <u16>be16(at), PORT)
  store<u16>(target, <u16>be16(at + TCP_TARGET), PORT)
  packet.seq = be32(at + TCP_SEQ)
  packet.ack = be32(at + TCP_ACK)
  packet.flags = load<u8>(at, TCP_FLAGS)
  packet.payload = at + header
  packet.payloadBytes = bytes - header
  packet.segment = at
  packet.segmentBytes = bytes
  return true
}

/**
 * @returns true if the checksum of the parsed packet is correct, or if its sender left it to the network card (checksum
 *   offload, as on virtual links): then it is the sum of the pseudo header alone
 */
export function isIntact(): bool {
  const pseudo = sumPseudo(source, target, packet.segmentBytes)
  return (
    fold(pseudo + sum(packet.segment, packet.segmentBytes)) == 0xffff ||
    <u32>load<u16>(packet.segment, TCP_CHECKSUM) == fold(pseudo)
  )
}

// ---- checksum (RFC 1071): sums of 16-bit words in memory byte order, which folding makes irrelevant

/** @returns sum of the 16-bit words of `len` bytes, not folded */
export function sum(at: usize, len: u32): u64 {
  let total: u64 = 0
  const end = at + len
  while (at + 32 <= end) {
    total += add2(load<u64>(at)) + add2(load<u64>(at, 8)) + add2(load<u64>(at, 16)) + add2(load<u64>(at, 24))
    at += 32
  }
  while (at + 8 <= end) {
    total += add2(load<u64>(at))
    at += 8
  }
  while (at + 2 <= end) {
    total += load<u16>(at)
    at += 2
  }
  return at < end ? total + load<u8>(at) : total
}

function add2(words: u64): u64 {
  return (words & 0xffffffff) + (words >> 32)
}

function fold(total: u64): u32 {
  while (total >> 16) total = (total & 0xffff) + (total >> 16)
  return <u32>total
}

function sumPseudo(from: usize, to: usize, bytes: u32): u64 {
  const addresses =
    add2(load<u64>(from, IP)) + add2(load<u64>(from, IP_LOW)) + add2(load<u64>(to, IP)) + add2(load<u64>(to, IP_LOW))
  return addresses + (PROTOCOL_TCP << 8) + bswap<u16>(<u16>bytes)
}

// ---- building packets

/** State of the generator for identification fields and ISNs, which need not be secret, only different each time. */
let random: u64 = 0

/** Seeds the generator. */
export function seedRandom(value: u64): void {
  random = value
}

/** SplitMix64 (Steele, Lea, Flood 2014). */
export function nextRandom(): u32 {
  random += 0x9e3779b97f4a7c15
  let z = random
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb
  return <u32>(z >> 32)
}

/** @returns bytes of both headers in a packet of this family */
export function headerBytes(family: u32): u32 {
  return TCP_BYTES + (family == IPV4 ? IPV4_BYTES : IPV6_BYTES)
}

/**
 * Writes both headers in front of `len` bytes of payload at `at` (protocol.md 9.1). The checksum of the IPv4 header is
 * 0: the kernel fills it in.
 * @returns start of the packet
 */
export function build(
  at: usize,
  len: u32,
  from: usize,
  to: usize,
  label: u32,
  bits: u32,
  sequence: u32,
  acknowledgement: u32,
  window: u32,
): usize {
  const tcp = at - TCP_BYTES
  const bytes = TCP_BYTES + len
  putBe16(tcp, portOf(from))
  putBe16(tcp + TCP_TARGET, portOf(to))
  putBe32(tcp + TCP_SEQ, sequence)
  putBe32(tcp + TCP_ACK, acknowledgement)
  store<u8>(tcp, (TCP_BYTES >> 2) << 4, TCP_DATA_OFFSET)
  store<u8>(tcp, bits, TCP_FLAGS)
  putBe16(tcp + TCP_WINDOW, window)
  store<u32>(tcp, 0, TCP_CHECKSUM)
  store<u16>(tcp, <u16>~fold(sumPseudo(from, to, bytes) + sum(tcp, bytes)), TCP_CHECKSUM)
  return familyOf(from) == IPV4 ? buildIpv4(tcp, bytes, from, to) : buildIpv6(tcp, bytes, from, to, label)
}

function buildIpv4(tcp: usize, bytes: u32, from: usize, to: usize): usize {
  const ip = tcp - IPV4_BYTES
  store<u8>(ip, 0x45)
  store<u8>(ip, TRAFFIC_CLASS, IPV4_TOS)
  putBe16(ip + IPV4_TOTAL, IPV4_BYTES + bytes)
  store<u16>(ip, <u16>nextRandom(), IPV4_ID)
  putBe16(ip + IPV4_FRAGMENT, DONT_FRAGMENT)
  store<u8>(ip, TTL, IPV4_TTL)
  store<u8>(ip, PROTOCOL_TCP, IPV4_PROTOCOL)
  store<u16>(ip, 0, IPV4_CHECKSUM)
  store<u32>(ip, load<u32>(from, IP), IPV4_SOURCE)
  store<u32>(ip, load<u32>(to, IP), IPV4_TARGET)
  return ip
}

function buildIpv6(tcp: usize, bytes: u32, from: usize, to: usize, label: u32): usize {
  const ip = tcp - IPV6_BYTES
  putBe32(ip, (6 << 28) | (TRAFFIC_CLASS << 20) | label)
  putBe16(ip + IPV6_PAYLOAD, bytes)
  store<u8>(ip, PROTOCOL_TCP, IPV6_PROTOCOL)
  store<u8>(ip, TTL, IPV6_HOP_LIMIT)
  store<u64>(ip, load<u64>(from, IP), IPV6_SOURCE)
  store<u64>(ip, load<u64>(from, IP_LOW), IPV6_SOURCE + 8)
  store<u64>(ip, load<u64>(to, IP), IPV6_TARGET)
  store<u64>(ip, load<u64>(to, IP_LOW), IPV6_TARGET + 8)
  return ip
}

/**
 * Copies the scope of our own address to the link-local addresses of the parsed packet (RFC 4007), because packets
 * carry none.
 */
export function takeScope(local: usize): void {
  if (familyOf(source) != IPV6 || (load<u16>(source, IP) & LINK_LOCAL_MASK) != LINK_LOCAL) return
  store<u32>(source, load<u32>(local, SCOPE_ID), SCOPE_ID)
  store<u32>(target, load<u32>(local, SCOPE_ID), SCOPE_ID)
}

/** @returns true if the parsed packet is addressed to `local`, in which an unspecified address or port 0 matches any */
export function isFor(local: usize): bool {
  if (familyOf(local) != familyOf(target)) return false
  if (portOf(local) != 0 && portOf(local) != portOf(target)) return false
  if (isAnyIp(local)) return true
  return load<u64>(local, IP) == load<u64>(target, IP) && load<u64>(local, IP_LOW) == load<u64>(target, IP_LOW)
}
