/**
 * An independent decoder of plaintext datagrams, in the format of the `decoded` field of the recorded vectors
 * (protocol.md 5.1, 7.1), and of the stream inside them (6.1). It shares no code with the engine.
 */

export interface DecodedAddress {
  readonly type: 'inet' | 'inet6'
  readonly addr: string
  readonly port: number
}

export interface DecodedSegment {
  readonly cmd: string
  readonly frg: number
  readonly wnd: number
  readonly ts: number
  readonly sn: number
  readonly una: number
  readonly len: number
}

export interface DecodedControl {
  readonly session0: string
  readonly pad: number
  readonly tstamp?: number
  readonly conv?: string
  readonly addr?: DecodedAddress
  readonly service_id?: string
  readonly addrs?: readonly DecodedAddress[]
}

export interface DecodedKcp {
  readonly conv: string
  readonly segments: readonly DecodedSegment[]
  readonly pad: number
}

export type Decoded = DecodedControl | DecodedKcp | { readonly undecodable: true }

const COMMANDS = new Map([
  [81, 'PUSH'],
  [82, 'ACK'],
  [83, 'WASK'],
  [84, 'WINS'],
])
const KINDS = ['PING', 'PONG', 'RESET', 'LISTEN', 'CONNECT', 'PUNCH'] as const

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function hex32(value: number): string {
  return value.toString(16).padStart(8, '0')
}

/** RFC 5952 text of 16 bytes. */
function ipv6Text(view: DataView, at: number): string {
  const groups: number[] = []
  for (let i = 0; i < 8; i++) groups.push(view.getUint16(at + 2 * i))
  let best = -1
  let length = 1
  for (let i = 0; i < 8; i++) {
    let run = 0
    while (i + run < 8 && groups[i + run] === 0) run++
    if (run > length) {
      best = i
      length = run
    }
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':')
  if (best < 0) return text(groups)
  return `${text(groups.slice(0, best))}::${text(groups.slice(best + length))}`
}

function readAddress(view: DataView, at: number): { address: DecodedAddress; end: number } | undefined {
  const left = view.byteLength - at
  if (left >= 7 && view.getUint8(at) === 0) {
    const parts = [1, 2, 3, 4].map((i) => view.getUint8(at + i))
    return { address: { type: 'inet', addr: parts.join('.'), port: view.getUint16(at + 5) }, end: at + 7 }
  }
  if (left >= 19 && view.getUint8(at) === 1) {
    return { address: { type: 'inet6', addr: ipv6Text(view, at + 1), port: view.getUint16(at + 17) }, end: at + 19 }
  }
  return undefined
}

function decodeControl(bytes: Uint8Array): Decoded {
  const view = viewOf(bytes)
  if (bytes.length < 6) return { undecodable: true }
  const kind = KINDS[view.getUint16(4)]
  if (kind === undefined) return { undecodable: true }
  if (kind === 'PING' || kind === 'PONG' || kind === 'RESET') {
    if (bytes.length < 10) return { undecodable: true }
    const value = view.getUint32(6)
    const pad = bytes.length - 10
    return kind === 'RESET' ? { session0: kind, conv: hex32(value), pad } : { session0: kind, tstamp: value, pad }
  }
  const first = readAddress(view, 6)
  if (!first) return { undecodable: true }
  if (kind === 'PUNCH') {
    const second = readAddress(view, first.end)
    if (!second) return { undecodable: true }
    return { session0: kind, addrs: [first.address, second.address], pad: bytes.length - second.end }
  }
  const length = first.end + 2 <= bytes.length ? view.getUint16(first.end) : 0
  const end = first.end + 2 + length
  if (end > bytes.length) return { session0: kind, addr: first.address, service_id: '', pad: 0 }
  const id = new TextDecoder().decode(bytes.subarray(first.end + 2, end))
  return { session0: kind, addr: first.address, service_id: id, pad: bytes.length - end }
}

/** A segment with its data, which `decoded` in the vectors omits. */
export interface FullSegment extends DecodedSegment {
  readonly data: Uint8Array
}

/** All segments up to the first malformed one, and the number of bytes after it. */
export function decodeSegments(plain: Uint8Array): { segments: FullSegment[]; pad: number } {
  const view = viewOf(plain)
  const segments: FullSegment[] = []
  const conv = plain.length >= 4 ? view.getUint32(0) : 0
  let at = 0
  while (plain.length - at >= 24) {
    const cmd = COMMANDS.get(view.getUint8(at + 4))
    const len = view.getUint32(at + 20)
    if (view.getUint32(at) !== conv || cmd === undefined || len > plain.length - at - 24) break
    segments.push({
      cmd,
      frg: view.getUint8(at + 5),
      wnd: view.getUint16(at + 6),
      ts: view.getUint32(at + 8),
      sn: view.getUint32(at + 12),
      una: view.getUint32(at + 16),
      len,
      data: plain.slice(at + 24, at + 24 + len),
    })
    at += 24 + len
  }
  return { segments, pad: plain.length - at }
}

/** Decodes a plaintext datagram with its padding. */
export function decode(plain: Uint8Array): Decoded {
  if (plain.length < 4) return { undecodable: true }
  const conv = viewOf(plain).getUint32(0)
  if (conv === 0) return decodeControl(plain)
  if (plain.length < 24) return { undecodable: true }
  const { segments, pad } = decodeSegments(plain)
  return {
    conv: hex32(conv),
    segments: segments.map(({ cmd, frg, wnd, ts, sn, una, len }) => ({ cmd, frg, wnd, ts, sn, una, len })),
    pad,
  }
}

export interface DecodedMessage {
  readonly type: string
  readonly payload: Uint8Array
}

/** The messages of a byte stream up to the first malformed or incomplete one. `rest`: bytes not consumed. */
export function decodeMessages(stream: Uint8Array): { messages: DecodedMessage[]; rest: number } {
  const names = ['DIAL', 'PUSH', 'EOF', 'KEEPALIVE'] as const
  const view = viewOf(stream)
  const messages: DecodedMessage[] = []
  let at = 0
  while (stream.length - at >= 4) {
    const type = names[view.getUint16(at)]
    const length = view.getUint16(at + 2)
    if (type === undefined || length < 4 || length > 14884 || length > stream.length - at) break
    messages.push({ type, payload: stream.slice(at + 4, at + length) })
    at += length
  }
  return { messages, rest: stream.length - at }
}
