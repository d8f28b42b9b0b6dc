/**
 * Encodes and decodes the messages that `doctor` uses, as plaintext: control messages (protocol.md 7.1, 8) and segments
 * of conversations that carry only KEEPALIVEs or a DIAL (5.1, 6.1). Pure: sealing and sockets are in probe.ts.
 */
import { ipFamily, readRecord, type SocketAddress, writeRecord } from '../../net/address.ts'

export const PING = 0
export const PONG = 1
export const RESET = 2
const CONNECT = 4
const PUNCH = 5

/** Bytes of PING, PONG and RESET. */
export const CONTROL_BYTES = 10
const BODY_AT = 6
/** Bytes of a segment header. */
export const HEADER_BYTES = 24
const CMD_PUSH = 81
const CMD_ACK = 82
const CMD_LAST = 84
/** The receive window that we advertise, segments. */
const WINDOW = 128

const TLV_DIAL = 0x0000_0004
const TLV_KEEPALIVE = 0x0003_0004
const TLV_EOF = 2
/** Bytes of a KEEPALIVE and of any other message without payload. */
export const TLV_BYTES = 4

export interface Segment {
  readonly ack: boolean
  readonly push: boolean
  readonly sn: number
  /** Timestamp of the sender, echoed by the ACK. */
  readonly ts: number
  readonly data: Uint8Array
}

export type Message =
  | { readonly kind: 'ping' | 'pong'; readonly stamp: number }
  | { readonly kind: 'reset'; readonly conv: number }
  | { readonly kind: 'punch'; readonly addresses: readonly SocketAddress[] }
  | { readonly kind: 'segments'; readonly conv: number; readonly segments: readonly Segment[] }

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Encodes a PING, PONG or RESET, padded to `bytes`: peers ignore bytes after the first 10 (protocol.md 7.1). */
export function control(what: number, value: number, bytes = CONTROL_BYTES): Uint8Array {
  const message = new Uint8Array(Math.max(bytes, CONTROL_BYTES))
  const view = viewOf(message)
  view.setUint16(4, what)
  view.setUint32(BODY_AT, value)
  return message
}

/** Encodes a CONNECT, which requests a service from a rendezvous server. */
export function connectMessage(local: SocketAddress, service: string): Uint8Array {
  const id = new TextEncoder().encode(service)
  const address = wireAddress(local)
  const message = new Uint8Array(BODY_AT + address.length + 2 + id.length)
  const view = viewOf(message)
  view.setUint16(4, CONNECT)
  message.set(address, BODY_AT)
  view.setUint16(BODY_AT + address.length, id.length)
  message.set(id, BODY_AT + address.length + 2)
  return message
}

/** Encodes an address: u8 type, IP, u16 port (protocol.md 7.1). */
function wireAddress(address: SocketAddress): Uint8Array {
  const record = new Uint8Array(24)
  writeRecord(address, record, 0)
  const ipBytes = address.family === 4 ? 4 : 16
  const wire = new Uint8Array(1 + ipBytes + 2)
  wire[0] = address.family === 4 ? 0 : 1
  wire.set(record.subarray(8, 8 + ipBytes), 1)
  viewOf(wire).setUint16(1 + ipBytes, address.port)
  return wire
}

/** Decodes the address at `at`. @returns address and end offset; undefined if it is malformed */
function readWireAddress(bytes: Uint8Array, at: number): { address: SocketAddress; end: number } | undefined {
  const family = bytes[at] === 0 ? 4 : bytes[at] === 1 ? 6 : undefined
  if (family === undefined) return undefined
  const ipBytes = family === 4 ? 4 : 16
  const end = at + 1 + ipBytes + 2
  if (end > bytes.length) return undefined
  const record = new Uint8Array(24)
  record[0] = family
  record.set(bytes.subarray(at + 1, at + 1 + ipBytes), 8)
  const address = readRecord(record, 0)
  return address && { address: { ...address, port: viewOf(bytes).getUint16(end - 2) }, end }
}

/** Encodes a PUSH segment. */
export function pushSegment(conv: number, sn: number, una: number, data: Uint8Array): Uint8Array {
  const segment = header(conv, CMD_PUSH, sn, una, 0, data.length)
  segment.set(data, HEADER_BYTES)
  return segment
}

/** Encodes an ACK segment. @param una all segments below have arrived */
export function ackSegment(conv: number, sn: number, ts: number, una: number): Uint8Array {
  return header(conv, CMD_ACK, sn, una, ts, 0)
}

function header(conv: number, cmd: number, sn: number, una: number, ts: number, length: number): Uint8Array {
  const segment = new Uint8Array(HEADER_BYTES + length)
  const view = viewOf(segment)
  view.setUint32(0, conv)
  segment[4] = cmd
  view.setUint16(6, WINDOW)
  view.setUint32(8, ts)
  view.setUint32(12, sn)
  view.setUint32(16, una)
  view.setUint32(20, length)
  return segment
}

/** Encodes `bytes` (a multiple of 4) of KEEPALIVEs, which the accepting side echoes (protocol.md 6.1). */
export function keepalives(bytes: number): Uint8Array {
  const data = new Uint8Array(bytes)
  const view = viewOf(data)
  for (let at = 0; at + TLV_BYTES <= bytes; at += TLV_BYTES) view.setUint32(at, TLV_KEEPALIVE)
  return data
}

/** Encodes a DIAL. */
export function dial(): Uint8Array {
  const data = new Uint8Array(TLV_BYTES)
  viewOf(data).setUint32(0, TLV_DIAL)
  return data
}

/** The type of the first message of a stream; undefined for a KEEPALIVE, which a server sends to confirm a client. */
export function firstMessage(data: Uint8Array): 'eof' | 'data' | undefined {
  if (data.length < TLV_BYTES || viewOf(data).getUint32(0) === TLV_KEEPALIVE) return undefined
  return viewOf(data).getUint16(0) === TLV_EOF ? 'eof' : 'data'
}

/**
 * Decodes a plaintext.
 * @returns undefined for malformed and irrelevant messages
 */
export function readMessage(bytes: Uint8Array): Message | undefined {
  if (bytes.length < BODY_AT) return undefined
  const view = viewOf(bytes)
  const conv = view.getUint32(0)
  if (conv !== 0) return readSegments(bytes, conv)
  const what = view.getUint16(4)
  if (what === PUNCH) {
    const first = readWireAddress(bytes, BODY_AT)
    const second = first && readWireAddress(bytes, first.end)
    return first && second && { kind: 'punch', addresses: [first.address, second.address] }
  }
  if (bytes.length < CONTROL_BYTES) return undefined
  const value = view.getUint32(BODY_AT)
  if (what === RESET) return { kind: 'reset', conv: value }
  return what === PING || what === PONG ? { kind: what === PING ? 'ping' : 'pong', stamp: value } : undefined
}

function readSegments(bytes: Uint8Array, conv: number): Message | undefined {
  const view = viewOf(bytes)
  const segments: Segment[] = []
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const cmd = bytes[at + 4] ?? 0
    const length = view.getUint32(at + 20)
    const end = at + HEADER_BYTES + length
    if (view.getUint32(at) !== conv || cmd < CMD_PUSH || cmd > CMD_LAST || end > bytes.length) break
    const data = bytes.slice(at + HEADER_BYTES, end)
    segments.push({
      ack: cmd === CMD_ACK,
      push: cmd === CMD_PUSH,
      sn: view.getUint32(at + 12),
      ts: view.getUint32(at + 8),
      data,
    })
    at = end
  }
  return segments.length === 0 ? undefined : { kind: 'segments', conv, segments }
}

/** IPv4 networks that are never pinged (protocol.md 8, isPunchAddr). */
const UNUSABLE_IPV4 = /^(0|127|169\.254|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])|22[4-9]|23\d|24\d|25[0-5])\./

/** Whether an address received in a PUNCH is pinged (protocol.md 8). */
export function isPunchable({ address, port }: SocketAddress): boolean {
  if (port === 0) return false
  const mapped = address.startsWith('::ffff:') ? address.slice('::ffff:'.length) : address
  if (ipFamily(mapped) === 4) return !UNUSABLE_IPV4.test(mapped)
  return !/^(::1?$|fe[89ab]|ff)/i.test(address)
}
