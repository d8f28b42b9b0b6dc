/**
 * A TCP connection and its application in memory, at one end of a tunnel: a rate-limited source of pattern bytes, a
 * rate-limited sink that checks them, and the order in which the directions close. Drives an Endpoint as a host does.
 */
import { ErrorCode, EventType } from '../../host/engine/core.ts'
import { check, type Endpoint, type EngineEvent, MS } from './endpoint.ts'
import { patternByte } from './random.ts'

/** Behaviour of one end of a connection. */
export interface AppScript {
  /** bytes to send */
  readonly bytes: number
  /** number of the pattern stream */
  readonly stream: number
  /** largest write, as of one TCP read */
  readonly chunk: number
  /** bytes per ms from the application; 0 = limited by the window only */
  readonly writeRate: number
  /** bytes per ms that the TCP side reads; 0 = unlimited */
  readonly readRate: number
  /** false: the TCP side reads nothing before `resume` */
  readonly reads: boolean
  /** ms before the first byte */
  readonly pause: number
  /** FIN when all is sent (`send`), when also the other end has closed (`last`), or never */
  readonly fin: 'send' | 'last' | 'never'
  /** ms between the last byte and FIN */
  readonly finPause: number
}

export const SILENT: AppScript = {
  bytes: 0,
  stream: 0,
  chunk: 65536,
  writeRate: 0,
  readRate: 0,
  reads: true,
  pause: 0,
  fin: 'send',
  finPause: 0,
}

/** State of the peer application, to detect a false end of stream. */
export interface OtherEnd {
  /** bytes it has sent */
  readonly sent: number
  /** its direction has ended, by FIN or otherwise */
  readonly hasEnded: boolean
}

/** How a connection ended for the application. */
export type Ending = 'detached' | 'aborted' | 'refused'

/** Calls back at a virtual time (ticks). */
export type Schedule = (at: number, run: () => void) => void

export class App {
  readonly endpoint: Endpoint
  readonly handle: number
  readonly script: AppScript
  /** The peer application; its counters define a complete stream. */
  other: OtherEnd | undefined
  sent = 0
  received = 0
  finSent = false
  /** `abort` was called */
  broken = false
  eof = false
  ending: Ending | undefined
  /** code of the ABORT event */
  reason = 0
  /** ms at which the connection ended */
  endedAt = 0
  /** OPENED events */
  opened = 0
  connected: boolean
  readonly #isClient: boolean
  readonly #schedule: Schedule
  readonly #expected: number
  #reads: boolean
  #readable = false
  #writable = true
  #started = false
  #finDue = false
  #writeTimer = false
  #readTimer = false
  #writeFrom = 0
  #readFrom = 0

  constructor(
    endpoint: Endpoint,
    handle: number,
    script: AppScript,
    expected: number,
    connected: boolean,
    schedule: Schedule,
  ) {
    this.endpoint = endpoint
    this.handle = handle
    this.script = script
    this.#reads = script.reads
    this.connected = connected
    this.#isClient = connected
    this.#expected = expected
    this.#schedule = schedule
  }

  get hasEnded(): boolean {
    return this.finSent || this.broken || this.ending === 'refused'
  }

  /** Starts the application once TCP is connected. */
  start(): void {
    if (this.ending) return
    this.connected = true
    this.#schedule(this.endpoint.time + this.script.pause * MS, () => {
      this.#started = true
      this.#writeFrom = this.endpoint.time
      this.#write()
    })
    this.#readFrom = this.endpoint.time
  }

  /** Handles an event of the engine for this handle. */
  event(event: EngineEvent): void {
    check(this.ending === undefined, `event ${event.type} for a closed handle`)
    switch (event.type) {
      case EventType.READABLE:
        this.#readable = true
        // the socket buffer of a slow reader holds 20 ms worth of bytes
        this.#readFrom = Math.max(this.#readFrom, this.endpoint.time - 20 * MS)
        this.#read()
        break
      case EventType.WRITABLE:
        this.#writable = true
        this.#write()
        break
      case EventType.EOF:
        this.#end()
        break
      case EventType.ABORT:
        this.reason = event.arg
        this.#finish('aborted')
        break
      case EventType.DETACH:
        // a clean close of TCP is a clean end for the application
        if (!this.eof) this.#checkComplete('DETACH without EOF')
        this.#finish('detached')
        break
      case EventType.MIGRATED:
        break
      case EventType.OPENED:
        check(this.#isClient, 'OPENED at a server')
        check(this.opened === 0, 'OPENED twice')
        this.opened++
        break
      default:
        check(false, `unexpected event ${event.type}`)
    }
  }

  /** Lets the TCP side read. */
  resume(): void {
    this.#reads = true
    this.#readFrom = this.endpoint.time
    this.#read()
  }

  /** Breaks TCP at this end (RST). */
  abort(): void {
    if (this.ending) return
    this.broken = true
    this.endpoint.abort(this.handle)
    this.#finish('aborted')
  }

  /** Gives the stream up at this end: RESET. */
  reset(): void {
    if (this.ending) return
    this.broken = true
    this.endpoint.reset(this.handle)
    this.#finish('aborted')
  }

  /** Kills the host process of this end. */
  kill(): void {
    if (!this.ending) this.#finish('aborted')
  }

  #finish(ending: Ending): void {
    this.ending = ending
    this.endedAt = this.endpoint.time / MS
  }

  /** Reports that the target refused the connection. */
  refuse(): void {
    this.#finish('refused')
  }

  #checkComplete(what: string): void {
    const { other } = this
    check(other !== undefined, `${what} without an application at the other end`)
    check(other.hasEnded, `${what}: the other end has not closed`)
    check(this.received === other.sent, `${what} after ${this.received} of ${other.sent} bytes`)
  }

  #end(): void {
    check(!this.eof, 'EOF twice')
    check(this.connected, 'EOF before the target is connected')
    check(
      !this.#readable || this.endpoint.core.calls.stream_peek(this.handle) === 0,
      'EOF before the last byte was read',
    )
    this.#checkComplete('EOF')
    this.eof = true
    this.#maybeFin()
  }

  #write(): void {
    const { endpoint, script } = this
    if (!this.#started || this.ending || this.#finDue) return
    let budget = Number.POSITIVE_INFINITY
    if (script.writeRate > 0) {
      budget = Math.floor(((endpoint.time - this.#writeFrom) * script.writeRate) / MS) - this.sent
    }
    while (this.#writable && this.sent < script.bytes && budget > 0) {
      const limit = Math.min(script.chunk, script.bytes - this.sent, budget)
      const taken = endpoint.write(this.handle, limit, (target) => {
        for (let i = 0; i < target.length; i++) target[i] = patternByte(this.sent + i, script.stream)
        this.sent += target.length
      })
      check(taken >= 0, `stream_reserve = ${taken}`)
      if (taken === 0) this.#writable = false
      budget -= taken
    }
    if (this.sent < script.bytes) {
      if (this.#writable && !this.#writeTimer) {
        this.#writeTimer = true
        const wait = Math.max(MS, Math.ceil((Math.min(script.chunk, script.bytes - this.sent) * MS) / script.writeRate))
        this.#schedule(endpoint.time + wait, () => {
          this.#writeTimer = false
          this.#write()
        })
      }
      return
    }
    this.#maybeFin()
  }

  #maybeFin(): void {
    const { endpoint, script } = this
    if (!this.#started || this.#finDue || this.ending || this.sent < script.bytes) return
    if (script.fin === 'never' || (script.fin === 'last' && !this.eof)) return
    this.#finDue = true
    this.#schedule(endpoint.time + script.finPause * MS, () => {
      if (this.ending) return
      this.finSent = true
      check(endpoint.shutdown(this.handle) === 0, 'stream_shutdown failed')
    })
  }

  #read(): void {
    const { endpoint, script } = this
    while (this.#reads && this.#readable && !this.ending) {
      let budget = Number.POSITIVE_INFINITY
      if (script.readRate > 0) {
        budget = Math.floor(((endpoint.time - this.#readFrom) * script.readRate) / MS)
        if (budget < 1) {
          if (this.#readTimer) return
          this.#readTimer = true
          const wait = Math.max(MS, Math.ceil(MS / script.readRate), 20 * MS)
          this.#schedule(endpoint.time + wait, () => {
            this.#readTimer = false
            this.#read()
          })
          return
        }
      }
      check(this.connected, 'bytes to read before the target is connected')
      const taken = endpoint.read(this.handle, budget, (bytes) => this.#verify(bytes))
      // the last byte may end the connection: the handle is closed and DETACH is queued
      check(taken >= 0 || taken === ErrorCode.HANDLE, `stream_peek = ${taken}`)
      if (taken <= 0) this.#readable = false
      if (script.readRate > 0) this.#readFrom += (Math.max(0, taken) * MS) / script.readRate
    }
  }

  #verify(bytes: Uint8Array): void {
    const stream = this.#expected
    check(!this.eof, 'bytes after EOF')
    for (let i = 0; i < bytes.length; i++) {
      const index = this.received + i
      if (bytes[i] !== patternByte(index, stream)) check(false, `byte ${index} is wrong`)
    }
    this.received += bytes.length
    if (this.other) check(this.received <= this.other.sent, 'more bytes than were sent')
  }
}
