/**
 * Encoders of datagrams for tests: KCP segments, stream messages, control messages (protocol.md 5.1, 6.1, 7.1).
 * testkit/decode.ts decodes them.
 */

export const HEADER_BYTES = 24
export const Cmd = { PUSH: 81, ACK: 82, WASK: 83, WINS: 84 } as const
export const MessageType = { DIAL: 0, PUSH: 1, EOF: 2, KEEPALIVE: 3 } as const
export const What = { PING: 0, PONG: 1, RESET: 2, LISTEN: 3, CONNECT: 4, PUNCH: 5 } as const

const NOTHING = new Uint8Array(0)

/** Joins byte arrays. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let length = 0
  for (const part of parts) length += part.length
  const result = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    result.set(part, at)
    at += part.length
  }
  return result
}

/** Bytes of a hexadecimal text; blanks are ignored. */
export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  const digits = text.replace(/\s+/g, '')
  const result = new Uint8Array(digits.length >> 1)
  for (let i = 0; i < result.length; i++) result[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16)
  return result
}

/** Hexadecimal text of bytes. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

/** Bytes of a text in UTF-8. */
export function utf8(text: string): Uint8Array<ArrayBuffer> {
  return concat(new TextEncoder().encode(text))
}

export interface SegmentFields {
  readonly conv: number
  readonly cmd: number
  readonly frg?: number
  readonly wnd?: number
  readonly ts?: number
  readonly sn?: number
  readonly una?: number
  readonly data?: Uint8Array
  /** Overrides the true length of `data`. */
  readonly len?: number
}

/** One segment; absent fields are 0, wnd is 256. */
export function segment(fields: SegmentFields): Uint8Array<ArrayBuffer> {
  const data = fields.data ?? NOTHING
  const result = new Uint8Array(HEADER_BYTES + data.length)
  const view = new DataView(result.buffer)
  view.setUint32(0, fields.conv)
  view.setUint8(4, fields.cmd)
  view.setUint8(5, fields.frg ?? 0)
  view.setUint16(6, fields.wnd ?? 256)
  view.setUint32(8, fields.ts ?? 0)
  view.setUint32(12, fields.sn ?? 0)
  view.setUint32(16, fields.una ?? 0)
  view.setUint32(20, fields.len ?? data.length)
  result.set(data, HEADER_BYTES)
  return result
}

/** A PUSH segment. */
export function push(
  conv: number,
  sn: number,
  data: Uint8Array,
  more: Partial<SegmentFields> = {},
): Uint8Array<ArrayBuffer> {
  return segment({ conv, cmd: Cmd.PUSH, sn, data, ...more })
}

/** An ACK segment. */
export function ack(
  conv: number,
  sn: number,
  ts: number,
  una: number,
  more: Partial<SegmentFields> = {},
): Uint8Array<ArrayBuffer> {
  return segment({ conv, cmd: Cmd.ACK, sn, ts, una, ...more })
}

/** One stream message; `length` overrides the true length. */
export function message(type: number, payload: Uint8Array = NOTHING, length?: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(4 + payload.length)
  const view = new DataView(result.buffer)
  view.setUint16(0, type)
  view.setUint16(2, length ?? result.length)
  result.set(payload, 4)
  return result
}

export const DIAL: Uint8Array<ArrayBuffer> = message(MessageType.DIAL)
export const EOF: Uint8Array<ArrayBuffer> = message(MessageType.EOF)
export const KEEPALIVE: Uint8Array<ArrayBuffer> = message(MessageType.KEEPALIVE)

/** A control message with a 4-byte body: PING, PONG or RESET. */
export function control(what: number, value: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(10)
  const view = new DataView(result.buffer)
  view.setUint16(4, what)
  view.setUint32(6, value)
  return result
}
