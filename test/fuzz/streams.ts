/**
 * Both directions of one conversation as the modelled peer sees them: the stream that it sends, cut into segments whose
 * content never changes, and the stream that the engine sends, checked byte by byte.
 */
import type { Buffer } from 'node:buffer'
import type { Random } from '../../testkit/sim/random.ts'
import { MessageType } from '../../testkit/sim/wire.ts'
import { Bytes, fault, isPattern, writePattern } from './pattern.ts'

const TLV_BYTES = 4
const PAYLOAD_MAX = 14880
/** Longest stream from the modelled peer, bytes. */
const INPUT_MAX = 300_000
/** Maximum number of segments made in advance. */
const AHEAD_MAX = 300

/** Stream of the modelled peer. */
export class InputStream {
  readonly key: number
  /** Payload bytes that the engine must deliver: those before EOF and before the first error. */
  payload = 0
  hasEof = false
  /** A protocol error: later messages are not delivered. */
  isBroken = false
  readonly #bytes = new Bytes()
  /** Offset of each segment; the next entry is its end. */
  readonly #starts: number[] = [0]
  readonly #wantsDial: boolean
  #hasDial = false
  readonly #isCalm: boolean
  /** Mostly KEEPALIVE messages. */
  readonly #isChatty: boolean

  /** `isCalm`: payload only. */
  constructor(key: number, wantsDial: boolean, isCalm = false) {
    this.key = key
    this.#wantsDial = wantsDial
    this.#isCalm = isCalm
    this.#isChatty = !isCalm && key % 16 === 0
  }

  /** Number of segments made. */
  get segments(): number {
    return this.#starts.length - 1
  }

  get bytes(): Uint8Array {
    return this.#bytes.array
  }

  /** Makes the segments up to `sn`. @returns false if it is too far ahead */
  ensure(random: Random, sn: number, maxBytes: number): boolean {
    if (sn >= this.segments + AHEAD_MAX) return false
    while (sn >= this.segments) this.#cut(random, maxBytes)
    return true
  }

  start(sn: number): number {
    return this.#starts[sn] ?? 0
  }

  end(sn: number): number {
    return this.#starts[sn + 1] ?? 0
  }

  /** True if segment `sn` exists and has these bytes. */
  isSegment(sn: number, data: Uint8Array): boolean {
    if (sn >= this.segments || this.end(sn) - this.start(sn) !== data.length) return false
    const start = this.start(sn)
    return data.every((byte, i) => byte === this.#bytes.array[start + i])
  }

  #cut(random: Random, maxBytes: number): void {
    const from = this.#starts[this.#starts.length - 1] ?? 0
    const wanted = random.pick(maxBytes, maxBytes, random.below(maxBytes + 1), random.below(60))
    for (let i = 0; i < 3 && this.#bytes.length - from < wanted; i++) this.#message(random)
    this.#starts.push(Math.min(this.#bytes.length, from + wanted))
  }

  #message(random: Random): void {
    if (this.#bytes.length > INPUT_MAX) {
      if (!this.hasEof) this.#put(MessageType.EOF, 0)
      return
    }
    if (this.#wantsDial && !this.#hasDial && (this.#isCalm || random.chance(0.98))) {
      this.#put(MessageType.DIAL, 0)
      return
    }
    if (this.#isChatty && random.chance(0.99)) {
      for (let i = random.below(400); i >= 0; i--) this.#put(MessageType.KEEPALIVE, 0)
      return
    }
    const r = random.unit()
    if (this.#isCalm || r < 0.88) this.#put(MessageType.PUSH, payloadBytes(random))
    else if (r < 0.96) this.#put(MessageType.KEEPALIVE, 0)
    else if (r < 0.985) this.#put(MessageType.EOF, 0)
    else if (r < 0.99) this.#put(MessageType.PUSH, 0)
    else this.#wrong(random)
  }

  #put(type: number, payload: number, length = TLV_BYTES + payload): void {
    const at = this.#bytes.extend(TLV_BYTES + payload)
    const { array } = this.#bytes
    array[at] = type >>> 8
    array[at + 1] = type
    array[at + 2] = length >>> 8
    array[at + 3] = length
    if (payload > 0) writePattern(array, at + TLV_BYTES, payload, this.key, this.payload)
    this.#judge(type, payload, length)
  }

  /** Follows protocol.md 6.1. */
  #judge(type: number, payload: number, length: number): void {
    const isValid =
      length >= TLV_BYTES && (type === MessageType.PUSH ? length <= TLV_BYTES + PAYLOAD_MAX : length === TLV_BYTES)
    if (this.isBroken || this.hasEof) return
    if (!isValid || type > MessageType.KEEPALIVE) this.isBroken = true
    else if (type === MessageType.DIAL) {
      if (this.#hasDial || !this.#wantsDial) this.isBroken = true
      this.#hasDial = true
    } else if (type === MessageType.EOF) this.hasEof = true
    else if (type === MessageType.PUSH && payload > 0) {
      if (this.#wantsDial && !this.#hasDial) this.isBroken = true
      else this.payload += payload
    }
  }

  #wrong(random: Random): void {
    const r = random.below(5)
    if (r === 0) this.#put(MessageType.DIAL, 0)
    else if (r === 1) this.#put(4 + random.below(65000), 0)
    else if (r === 2) this.#put(MessageType.PUSH, 0, random.below(4))
    else if (r === 3) this.#put(MessageType.PUSH, 100, TLV_BYTES + PAYLOAD_MAX + 1 + random.below(50000))
    else this.#put(random.pick(MessageType.EOF, MessageType.KEEPALIVE), 8)
  }
}

function payloadBytes(random: Random): number {
  const r = random.unit()
  if (r < 0.6) return 1 + random.below(300)
  return r < 0.95 ? 1 + random.below(3000) : 1 + random.below(PAYLOAD_MAX)
}

/** Stream of the engine. */
export class OutputStream {
  readonly key: number
  /** Payload bytes committed by the host, and those seen on the wire. */
  committed = 0
  payload = 0
  hasEof = false
  /** Its content is unpredictable: the host violated a rule. */
  isLoose = false
  readonly #bytes = new Bytes()
  readonly #starts: number[] = [0]
  readonly #opens: boolean
  /** Offset up to which messages were read; remaining payload bytes of a PUSH. */
  #read = 0
  #left = 0

  /** `opens`: the engine opened the session, so its stream begins with DIAL. */
  constructor(key: number, opens: boolean) {
    this.key = key
    this.#opens = opens
  }

  /** The lowest number not yet sent. */
  get next(): number {
    return this.#starts.length - 1
  }

  /** Handles a PUSH segment of the engine. */
  take(sn: number, from: Buffer, at: number, length: number): void {
    if (sn > this.next) fault(`segment ${sn} was sent before segment ${this.next}`)
    if (sn < this.next) {
      const start = this.#starts[sn] ?? 0
      const end = this.#starts[sn + 1] ?? 0
      if (end - start === length && this.#bytes.buffer.compare(from, at, at + length, start, end) === 0) return
      fault(`segment ${sn} was sent again with other bytes`)
    }
    const start = this.#bytes.extend(length)
    from.copy(this.#bytes.array, start, at, at + length)
    this.#starts.push(start + length)
    if (!this.isLoose) this.#readMessages()
  }

  #readMessages(): void {
    const { array, length } = this.#bytes
    for (;;) {
      const take = Math.min(this.#left, length - this.#read)
      if (take > 0) {
        if (this.payload + take > this.committed) fault(`${this.payload + take} bytes of ${this.committed} were sent`)
        if (!isPattern(this.#bytes.buffer, this.#read, take, this.key, this.payload)) {
          fault(`wrong payload among the ${take} bytes from ${this.payload} of the stream`)
        }
        this.payload += take
        this.#left -= take
        this.#read += take
      }
      if (this.#left > 0 || length - this.#read < TLV_BYTES) return
      const at = this.#read
      this.#message(((array[at] ?? 0) << 8) | (array[at + 1] ?? 0), ((array[at + 2] ?? 0) << 8) | (array[at + 3] ?? 0))
      this.#read += TLV_BYTES
    }
  }

  #message(type: number, length: number): void {
    if (type === MessageType.PUSH) {
      if (length < TLV_BYTES || length > TLV_BYTES + PAYLOAD_MAX) fault(`a PUSH of length ${length} was sent`)
      if (this.hasEof) fault('payload was sent after EOF')
      this.#left = length - TLV_BYTES
      return
    }
    if (type > MessageType.KEEPALIVE || length !== TLV_BYTES) fault(`a message ${type} of length ${length} was sent`)
    if (type === MessageType.DIAL && (!this.#opens || this.#read > 0)) fault('DIAL was sent where it must not be')
    if (type !== MessageType.DIAL && this.#opens && this.#read === 0) fault(`message ${type} was sent before DIAL`)
    if (type !== MessageType.EOF) return
    if (this.hasEof) fault('EOF was sent twice')
    if (this.payload !== this.committed) fault(`EOF after ${this.payload} of ${this.committed} bytes`)
    this.hasEof = true
  }
}
