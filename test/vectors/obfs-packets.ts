/** Recorded obfuscated packets: whole IP packets, and the fields decoded by the recorder. */
import { readFileSync } from 'node:fs'
import { fromHex } from '../../testkit/sim/wire.ts'

export interface PacketRecord {
  readonly t_ms: number
  readonly src: string
  readonly dst: string
  readonly packet: string
  readonly tcp: { readonly seq: number; readonly ack: number; readonly flags: string; readonly win: number }
  readonly ip: { readonly tos?: number; readonly tclass?: number }
  readonly sealedOffset?: number
  readonly plain?: string
  readonly text?: string
}

interface ObfsFile {
  readonly obfs: string
  readonly nonceBytes: number
  readonly packets: readonly PacketRecord[]
}

export const OBFS_CAPTURES = [
  'obfs_tcp_wnd_ipv4',
  'obfs_tcp_wnd_ipv6',
  'obfs_tcp_wnd_ecn',
  'obfs_tcp_ipv4',
  'obfs_tcp_ipv6',
  'obfs_tcp_ipv4_rst',
] as const

function isObfsFile(value: unknown): value is ObfsFile {
  return typeof value === 'object' && value !== null && 'obfs' in value && 'packets' in value
}

/** A capture by name. */
export function obfsCapture(name: string): ObfsFile {
  const file: unknown = JSON.parse(readFileSync(`test/vectors/${name}.json`, 'utf8'))
  if (!isObfsFile(file)) throw new Error(`test/vectors/${name}.json: not a capture of obfuscated packets`)
  return file
}

/** An IP packet, parsed independently of the engine. */
export interface Packet {
  readonly bytes: Uint8Array
  readonly version: number
  readonly header: number
  readonly seq: number
  readonly ack: number
  readonly flags: number
  readonly window: number
  readonly ece: boolean
  readonly payload: Uint8Array
}

export function parsePacket(bytes: Uint8Array): Packet {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const version = view.getUint8(0) >> 4
  const header = version === 4 ? (view.getUint8(0) & 15) * 4 : 40
  const total = version === 4 ? view.getUint16(2) : 40 + view.getUint16(4)
  const flags = view.getUint8(header + 13)
  return {
    bytes,
    version,
    header,
    seq: view.getUint32(header + 4),
    ack: view.getUint32(header + 8),
    flags,
    window: view.getUint16(header + 14),
    ece: (flags & 0x40) !== 0,
    payload: bytes.subarray(header + (view.getUint8(header + 12) >> 4) * 4, total),
  }
}

/** Sum of big-endian words, folded (RFC 1071). */
function onesSum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i++) sum += (bytes[i] ?? 0) << (i % 2 === 0 ? 8 : 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

/** @returns whether the TCP checksum of a packet is correct */
export function isChecksumRight({ bytes, version, header }: Packet): boolean {
  const addresses = version === 4 ? bytes.subarray(12, 20) : bytes.subarray(8, 40)
  const total = version === 4 ? ((bytes[2] ?? 0) << 8) | (bytes[3] ?? 0) : 40 + (((bytes[4] ?? 0) << 8) | (bytes[5] ?? 0))
  const segment = bytes.subarray(header, total)
  const length = segment.length
  const pseudo = Uint8Array.of(...addresses, 0, 6, length >> 8, length & 255)
  return onesSum(Uint8Array.of(...pseudo, ...segment)) === 0xffff
}

export const packetOf = (record: PacketRecord): Packet => parsePacket(fromHex(record.packet))

/** The packet in hex without random fields and what depends on them: id, header checksum, flow label, numbers. */
export function masked(bytes: Uint8Array, keepNumbers: boolean): string {
  const copy = bytes.slice()
  const { version, header } = parsePacket(copy)
  if (version === 4) {
    copy.fill(0, 4, 6)
    copy.fill(0, 10, 12)
    // a router on the path marked some packets
    copy[1] = (copy[1] ?? 0) & ~1
  } else {
    copy[1] = (copy[1] ?? 0) & 0xf0
    copy.fill(0, 2, 4)
  }
  if (!keepNumbers) {
    copy.fill(0, header + 4, header + 12)
    copy.fill(0, header + 16, header + 18)
  }
  return Buffer.from(copy).toString('hex')
}
