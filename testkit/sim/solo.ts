/** One engine in virtual time whose datagrams a test encodes and decodes. */

import { type CoreConfig, EventType } from '../../host/engine/core.ts'
import { type Decoded, decode, decodeSegments, type FullSegment } from '../decode.ts'
import { type Address, address4 } from './address.ts'
import { check, type Datagram, defaultConfig, Endpoint, type EngineEvent, MS } from './endpoint.ts'
import { Random } from './random.ts'
import { fakeOpen, fakeSeal, type Sealing, sealingConfig } from './sealing.ts'
import { ack, concat } from './wire.ts'

/** Address of the test. */
export const TESTER: Address = address4(9, 50001)

/** A datagram of the engine. */
export interface Output {
  readonly ms: number
  readonly peer: Address
  readonly bytes: Uint8Array
  readonly plain: Uint8Array
  readonly decoded: Decoded
  /** conv of the datagram, 0 for control messages */
  readonly conv: number
  readonly segments: readonly FullSegment[]
  /** It is to be sent from the probing socket. */
  readonly probe: boolean
}

export interface SoloStream {
  readonly handle: number
  /** a DIAL event was received */
  dialled: boolean
  data: Uint8Array
  eof: boolean
  ending: 'aborted' | 'detached' | undefined
  reason: number
}

export interface SoloOptions {
  readonly role: 'client' | 'server' | 'neither'
  readonly config?: Partial<CoreConfig>
  readonly sealing?: Sealing
  readonly seed?: number
  readonly clock?: number
  readonly entropyChunk?: number
  readonly secret?: Uint8Array
  /** response to DIAL; `wait`: the test responds */
  readonly dial?: 'accept' | 'refuse' | 'wait'
  /** whether READABLE reads everything (default true) */
  readonly read?: boolean
  /** client: whether the peer is set to TESTER (default true) */
  readonly peer?: boolean
}

export class Solo {
  readonly endpoint: Endpoint
  readonly events: (EngineEvent & { readonly ms: number })[] = []
  readonly streams = new Map<number, SoloStream>()
  readonly all: Output[] = []
  dialling: 'accept' | 'refuse' | 'wait'
  reading: boolean
  readonly #random: Random
  #taken = 0

  constructor(options: SoloOptions) {
    const seed = options.seed ?? 1
    this.#random = new Random(seed + 77)
    this.dialling = options.dial ?? 'accept'
    this.reading = options.read ?? true
    const config = { ...defaultConfig(options.role), ...sealingConfig(options.sealing ?? 'none'), ...options.config }
    this.endpoint = new Endpoint({
      config,
      seed,
      clock: options.clock ?? 0,
      ...(options.entropyChunk === undefined ? {} : { entropyChunk: options.entropyChunk }),
      ...(options.secret === undefined ? {} : { secret: options.secret }),
      onTransmit: (datagram) => this.#record(datagram),
      onEvent: (event) => this.#event(event),
    })
    if (options.role === 'client' && options.peer !== false) this.endpoint.setPeer(TESTER)
    this.endpoint.drain()
  }

  get ms(): number {
    return this.endpoint.time / MS
  }

  #record({ bytes, peer, probe = false }: Datagram): void {
    const { tagBytes, nonceBytes } = this.endpoint.config
    const plain = tagBytes === 0 ? bytes : fakeOpen(bytes, nonceBytes)
    check(plain !== null, 'the engine sent a datagram that does not open')
    const conv = plain.length >= 4 ? new DataView(plain.buffer, plain.byteOffset).getUint32(0) : 0
    const segments = conv === 0 ? [] : decodeSegments(plain).segments
    this.all.push({ ms: this.ms, peer, bytes, plain, decoded: decode(plain), conv, segments, probe })
  }

  #event(event: EngineEvent): void {
    this.events.push({ ...event, ms: this.ms })
    if (event.handle === 0) return
    const stream = this.stream(event.handle)
    check(stream.ending === undefined, `event ${event.type} for a closed handle`)
    switch (event.type) {
      case EventType.DIAL:
        stream.dialled = true
        if (this.dialling !== 'wait') {
          this.endpoint.connected(event.handle, this.dialling === 'accept')
          if (this.dialling === 'refuse') stream.ending = 'aborted'
        }
        break
      case EventType.READABLE:
        if (this.reading) this.read(event.handle)
        break
      case EventType.EOF:
        check(!stream.eof, 'EOF twice')
        stream.eof = true
        break
      case EventType.ABORT:
        stream.ending = 'aborted'
        stream.reason = event.arg
        break
      case EventType.DETACH:
        stream.ending = 'detached'
        break
    }
  }

  /** The stream of a handle, created on first use. */
  stream(handle: number): SoloStream {
    let stream = this.streams.get(handle)
    if (!stream) {
      stream = { handle, dialled: false, data: new Uint8Array(0), eof: false, ending: undefined, reason: 0 }
      this.streams.set(handle, stream)
    }
    return stream
  }

  /** The only stream. */
  get only(): SoloStream {
    const [first, second] = this.streams.values()
    check(first !== undefined && second === undefined, `${this.streams.size} streams, expected one`)
    return first
  }

  /** Reads at most `limit` available bytes into the stream's data. */
  read(handle: number, limit = Number.POSITIVE_INFINITY): number {
    const stream = this.stream(handle)
    let total = 0
    while (total < limit) {
      const taken = this.endpoint.read(handle, limit - total, (bytes) => {
        stream.data = concat(stream.data, bytes)
      })
      if (taken <= 0) break
      total += taken
    }
    return total
  }

  /** Writes bytes while the engine accepts them. @returns the number written */
  write(handle: number, bytes: Uint8Array): number {
    let done = 0
    while (done < bytes.length) {
      const taken = this.endpoint.write(handle, bytes.length - done, (target) => {
        target.set(bytes.subarray(done, done + target.length))
        done += target.length
      })
      if (taken <= 0) break
    }
    return done
  }

  /** The datagram of a plaintext; `nonce` only with sealing. */
  seal(plain: Uint8Array, nonce?: Uint8Array): Uint8Array<ArrayBuffer> {
    const { tagBytes, nonceBytes } = this.endpoint.config
    if (tagBytes === 0) return concat(plain)
    return fakeSeal(plain, nonce ?? this.#random.bytes(nonceBytes))
  }

  /**
   * Acknowledges what a server sent on a conversation since the last `take`, with its ts. This confirms a session whose
   * first flight could have been a replay (docs/validation.md).
   */
  confirm(conv: number, peer: Address = TESTER): void {
    for (const { cmd, sn, ts } of this.takeSegments(conv)) {
      if (cmd === 'PUSH') this.feedFrom(peer, ack(conv, sn, ts, sn + 1))
    }
  }

  /** Delivers plaintexts in one batch and drains. */
  feed(...plains: readonly Uint8Array[]): number {
    return this.feedFrom(TESTER, ...plains)
  }

  feedFrom(peer: Address, ...plains: readonly Uint8Array[]): number {
    return this.feedRaw(peer, ...plains.map((plain) => this.seal(plain)))
  }

  /** Delivers a plaintext at the probing socket. */
  feedProbe(peer: Address, plain: Uint8Array): void {
    this.endpoint.receive([{ bytes: this.seal(plain), peer, probe: true }])
    this.endpoint.drain()
  }

  /** Delivers sealed datagrams. */
  feedRaw(peer: Address, ...datagrams: readonly Uint8Array[]): number {
    const accepted = this.endpoint.receive(datagrams.map((bytes) => ({ bytes, peer })))
    this.endpoint.drain()
    return accepted
  }

  /** Opens a client stream and drains. */
  open(): number {
    const handle = this.endpoint.open()
    if (handle > 0) this.stream(handle)
    this.endpoint.drain()
    return handle
  }

  /** Runs for `ms`; timers run at their exact times. */
  run(ms: number): void {
    const { endpoint } = this
    const limit = endpoint.time + Math.round(ms * MS)
    endpoint.drain()
    while (endpoint.deadline <= limit) {
      endpoint.time = Math.max(endpoint.time, endpoint.deadline)
      endpoint.expire()
      endpoint.drain()
    }
    endpoint.time = limit
  }

  /** Datagrams sent since the last call. */
  take(): Output[] {
    const result = this.all.slice(this.#taken)
    this.#taken = this.all.length
    return result
  }

  /** Takes the datagrams as `take` does. @returns segments of one conv among them */
  takeSegments(conv: number): FullSegment[] {
    return this.take()
      .filter((output) => output.conv === conv)
      .flatMap((output) => output.segments)
  }

  /** Data of all PUSH segments ever sent for a conv, in order of sn, up to the first gap. */
  streamSent(conv: number): Uint8Array {
    const bySn = new Map<number, Uint8Array>()
    for (const output of this.all) {
      if (output.conv !== conv) continue
      for (const segment of output.segments) if (segment.cmd === 'PUSH') bySn.set(segment.sn, segment.data)
    }
    const parts: Uint8Array[] = []
    for (let sn = 0; ; sn++) {
      const data = bySn.get(sn)
      if (!data) return concat(...parts)
      parts.push(data)
    }
  }
}

/** The kind of a datagram for comparisons: name of the control message, or the commands in it. */
export function summary(output: Output): string {
  if ('session0' in output.decoded) return output.decoded.session0
  return output.segments.map((segment) => segment.cmd).join('+')
}
