/**
 * An application at one end of a stream: sends a pattern, checks received bytes, closes its direction as planned, and
 * records how the stream ended: complete or reset.
 */
import type { TcpConnection, TcpHandlers } from '../../host/runtime.ts'
import type { Violation } from './machine.ts'
import { type Pattern, RUN_BYTES } from './pattern.ts'

/** A slow application pauses after this many bytes: a pause for each of thousands of tiny segments would take minutes. */
const PAUSE_BYTES = 1000

/** When an application acts: at any time, or while the process that it is part of runs. */
export interface Scheduler {
  in(ms: number, run: () => void): unknown
}

/** An application's end of a stream: a TCP connection, or a stream of the library. */
export interface Connection extends Pick<TcpConnection, 'pause' | 'resume' | 'writeBuffer' | 'write' | 'end'> {
  /** Set for a stream of the library, whose application is part of the process. */
  readonly scheduler?: Scheduler
  reset(): void
}

/** Behaviour of one end. */
export interface EndPlan {
  /** Bytes to send. */
  readonly send: number
  /** Bytes to receive. */
  readonly expect: number
  /** Bytes per write, and ms between two writes. */
  readonly chunk: number
  readonly pause: number
  /** Closes its direction only after the other one ended. */
  readonly finLast: boolean
  /** ms between two reads; 0: reads at once. */
  readonly readPause: number
  /** Aborts the connection after this number of bytes sent; -1: never. */
  readonly abortAt: number
  /** Stops reading after this number of bytes, for some ms. */
  readonly rest?: { readonly at: number; readonly ms: number }
  /** Library: writes on, however much waits. */
  readonly isGreedy?: boolean
}

export type Ending = 'open' | 'complete' | 'reset' | 'aborted'

/** Keys of the patterns of both directions. */
export interface Keys {
  readonly send: number
  readonly receive: number
  /** Leading received bytes that are not part of the pattern. */
  readonly skip: number
}

export class Application implements TcpHandlers {
  readonly name: string
  readonly plan: EndPlan
  sent = 0
  received = 0
  ending: Ending = 'open'
  /** The other end aborted: a clean end need not be complete. */
  isExcused = false
  /** Both applications pause while set. */
  isStopped = false
  onAbort: (() => void) | undefined
  onOver: (() => void) | undefined
  readonly #scheduler: Scheduler
  readonly #connection: Connection
  readonly #pattern: Pattern
  readonly #keys: Keys
  /** First bytes sent, in place of the pattern. */
  readonly #header: Uint8Array
  readonly #report: Violation
  #finSent = false
  #finSeen = false
  #isFull = false
  #isOver = false
  #sincePause = 0
  #isResting = false
  #hasRested = false

  constructor(
    scheduler: Scheduler,
    name: string,
    connection: Connection,
    plan: EndPlan,
    pattern: Pattern,
    keys: Keys,
    header: Uint8Array,
    report: Violation,
  ) {
    this.#scheduler = scheduler
    this.name = name
    this.#connection = connection
    this.plan = plan
    this.#pattern = pattern
    this.#keys = keys
    this.#header = header
    this.#report = report
  }

  /** Called when the connection is established. */
  start(): void {
    this.#connection.resume()
    this.#write()
  }

  onData(chunk: Uint8Array): void {
    const { plan } = this
    if (this.#finSeen) this.#report(`${this.name}: data after the end`)
    if (this.received + chunk.length > plan.expect) this.#report(`${this.name}: more than ${plan.expect} bytes`)
    this.#check(chunk, Math.max(0, this.#keys.skip - this.received))
    this.received += chunk.length
    this.#sincePause += chunk.length
    const { readPause, rest } = plan
    if (rest !== undefined && !this.#hasRested && this.received >= rest.at) this.#rest(rest.ms)
    const isSlow = readPause > 0 && this.#sincePause >= PAUSE_BYTES
    if (!isSlow && !this.isStopped && !this.#isResting) return
    this.#connection.pause()
    if (!isSlow) return
    this.#sincePause = 0
    this.#scheduler.in(readPause, () => this.#resume())
  }

  #rest(ms: number): void {
    this.#hasRested = true
    this.#isResting = true
    this.#scheduler.in(ms, () => {
      this.#isResting = false
      this.#resume()
    })
  }

  /** Compares bytes with the pattern, except for the first `skip`. */
  #check(chunk: Uint8Array, skip: number): void {
    for (let at = skip; at < chunk.length; at += RUN_BYTES) {
      const length = Math.min(RUN_BYTES, chunk.length - at)
      const run = this.#pattern.run(this.#keys.receive, this.received + at, length)
      if (run.compare(chunk, at, at + length) !== 0) {
        this.#report(`${this.name}: wrong bytes after ${this.received + at}`)
        return
      }
    }
  }

  onEnd(): void {
    this.#finSeen = true
    const { plan, received } = this
    if (received < plan.expect && !this.isExcused) {
      this.#report(`${this.name}: a clean end after ${received} of ${plan.expect} bytes`)
    }
    this.#finish()
  }

  onDrain(): void {
    this.#isFull = false
    this.#write()
  }

  onClose(error?: Error): void {
    if (error === undefined && (!this.#finSeen || !this.#finSent)) this.#report(`${this.name}: closed without an end`)
    this.#end(error === undefined ? 'complete' : 'reset')
  }

  stop(isStopped: boolean): void {
    this.isStopped = isStopped
    const { scheduler } = this.#connection
    if (scheduler === undefined) this.#applyStop()
    else scheduler.in(0, () => this.#applyStop())
  }

  #applyStop(): void {
    if (this.isStopped) this.#connection.pause()
    else this.#resume()
  }

  #resume(): void {
    if (this.#isOver || this.isStopped || this.#isResting) return
    this.#connection.resume()
    if (!this.#isFull) this.#write()
  }

  #end(ending: Ending): void {
    if (this.#isOver) return
    this.#isOver = true
    this.ending = ending
    this.onOver?.()
  }

  #write(): void {
    const { plan } = this
    if (this.#isOver || this.isStopped || this.#isFull || this.#finSent) return
    if (plan.abortAt >= 0 && this.sent >= plan.abortAt) {
      this.onAbort?.()
      this.#connection.reset()
      this.#end('aborted')
      return
    }
    const length = Math.min(plan.chunk, plan.send - this.sent, RUN_BYTES)
    if (length <= 0) {
      this.#finish()
      return
    }
    const buffer = this.#connection.writeBuffer()
    buffer.set(this.#pattern.run(this.#keys.send, this.sent, length))
    if (this.sent < this.#header.length) buffer.set(this.#header.subarray(this.sent, this.sent + length))
    const taken = this.#connection.write(buffer, length)
    this.sent += taken
    if (taken < length) this.#isFull = true
    else this.#scheduler.in(plan.pause, () => this.#write())
  }

  /** Sends FIN if everything was sent and the plan permits it. */
  #finish(): void {
    const { plan } = this
    if (this.#finSent || this.sent < plan.send || (plan.finLast && !this.#finSeen)) return
    this.#finSent = true
    this.#connection.end()
  }
}
