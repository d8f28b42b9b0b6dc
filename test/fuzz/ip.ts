/**
 * IP and TCP headers for captured packets (RFC 791, 8200, 9293), and the checksum of both.
 */
import type { Buffer } from 'node:buffer'

export const Flag = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, ECE: 64 } as const
export const TCP_BYTES = 20

/** Bytes of both headers before the payload. */
export function headerBytes(family: number): number {
  return TCP_BYTES + (family === 4 ? 20 : 40)
}

export interface TcpHeader {
  readonly from: Uint8Array
  readonly to: Uint8Array
  readonly flags: number
  readonly seq: number
  readonly ack: number
  readonly isCongested?: boolean
}

/** Writes the headers in front of a payload of `length` bytes. @returns the length of the packet */
export function writePacket(target: Uint8Array, header: TcpHeader, length: number): number {
  const { from, to } = header
  const isIpv4 = from[0] === 4
  const ip = isIpv4 ? 20 : 40
  const view = new DataView(target.buffer, target.byteOffset)
  const bytes = TCP_BYTES + length
  target.fill(0, 0, ip + TCP_BYTES)
  if (isIpv4) {
    view.setUint16(0, 0x4500 | (header.isCongested ? 3 : 2))
    view.setUint16(2, ip + bytes)
    view.setUint16(6, 0x4000)
    view.setUint16(8, 0x4006)
    target.set(from.subarray(8, 12), 12)
    target.set(to.subarray(8, 12), 16)
  } else {
    view.setUint32(0, 0x60000000 | ((header.isCongested ? 3 : 2) << 20) | (header.seq & 0xfffff))
    view.setUint16(4, bytes)
    view.setUint16(6, 0x0640)
    target.set(from.subarray(8, 24), 8)
    target.set(to.subarray(8, 24), 24)
  }
  view.setUint16(ip, (from[2] ?? 0) | ((from[3] ?? 0) << 8))
  view.setUint16(ip + 2, (to[2] ?? 0) | ((to[3] ?? 0) << 8))
  view.setUint32(ip + 4, header.seq)
  view.setUint32(ip + 8, header.ack)
  target[ip + 12] = 0x50
  target[ip + 13] = header.flags
  view.setUint16(ip + 14, 32768)
  view.setUint16(ip + 16, ~checksum(view, 0, isIpv4, bytes) & 0xffff)
  return ip + bytes
}

/** Sum of pseudo header and segment of a packet at `at`, folded; 0xffff if the checksum is correct. */
export function checksum(view: DataView, at: number, isIpv4: boolean, bytes: number): number {
  let total = 6 + bytes
  const addresses = at + (isIpv4 ? 12 : 8)
  const segment = at + (isIpv4 ? 20 : 40)
  for (let i = addresses; i < segment; i += 2) total += view.getUint16(i)
  const end = segment + bytes
  let i = segment
  for (; i + 2 <= end; i += 2) total += view.getUint16(i)
  if (i < end) total += view.getUint8(i) << 8
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000)
  return total
}

/** True if a packet has consistent lengths and a correct checksum. */
export function isGoodPacket(memory: Buffer, at: number, length: number): boolean {
  const isIpv4 = memory.readUInt8(at) >> 4 === 4
  const ip = isIpv4 ? 20 : 40
  const told = isIpv4 ? memory.readUInt16BE(at + 2) : ip + memory.readUInt16BE(at + 4)
  const view = new DataView(memory.buffer, memory.byteOffset)
  return told === length && checksum(view, at, isIpv4, length - ip) === 0xffff
}
