/**
 * The far end of a session at a server that is a proxy: reads the request of the client, dials what it names, and from
 * then on passes every call to the connection to the target. To the driver it is a TCP connection. Bytes that follow the
 * request are not accepted before the target is connected, so they wait in the session.
 */

import type { Dial } from '../driver/stream.ts'
import { type SystemError, systemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Clock, TcpConnection, TcpHandlers, Timer } from '../runtime.ts'
import type { Protocol, Refusal, Step } from './request.ts'

/** The whole request must arrive within this time, ms. */
export const REQUEST_MS = 10_000
/** The target must be found and connected within this time, ms. */
export const DIAL_MS = 30_000
/** After a refusal the client gets this time to end the connection, ms. */
const REFUSED_MS = 5000
const SCRATCH_BYTES = 65536

/** Requests are read at once, so all connections share it. */
const NOTHING = new Uint8Array(0)
const scratch = new Uint8Array(SCRATCH_BYTES)

/** Why a target is not connected. */
export class TargetError extends Error {
  readonly why: Refusal

  constructor(why: Refusal, message: string) {
    super(message)
    this.why = why
  }
}

/** What the proxy does for a connection. */
export interface ProxyConnectionHost {
  readonly clock: Clock
  /** Dials a target, and calls back later. Errors that are not TargetError do not occur. */
  dial(
    host: string,
    port: number,
    onOpen: (connection: TcpConnection) => void,
    onFailed: (error: TargetError) => void,
  ): Dial
  /** A request is refused. */
  onRefused(why: Refusal, text: string): void
}

export class ProxyConnection implements TcpConnection {
  readonly #host: ProxyConnectionHost
  readonly #protocol: Protocol
  #handlers: TcpHandlers | undefined
  #target: TcpConnection | undefined
  #dial: Dial | undefined
  #timer: Timer | undefined
  #phase: 'request' | 'dialling' | 'open' | 'refused' | 'over' = 'request'
  #request: Uint8Array
  #used = 0
  /** Answers of a turn, in order. */
  readonly #answers: Uint8Array[] = []
  #isScheduled = false
  #isReading = false
  /** The client ended its direction. */
  #isEnded = false
  #isEndSent = false

  constructor(host: ProxyConnectionHost, protocol: Protocol) {
    this.#host = host
    this.#protocol = protocol
    this.#request = new Uint8Array(protocol.limit)
    this.#timer = host.clock.setTimer(() => this.#late(), REQUEST_MS)
  }

  get remote(): SocketAddress | undefined {
    return this.#target?.remote
  }

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#target?.attach(handlers)
  }

  writeBuffer(): Uint8Array {
    return this.#target?.writeBuffer() ?? scratch
  }

  write(buffer: Uint8Array, length: number): number {
    if (this.#target !== undefined) return this.#target.write(buffer, length)
    let taken = 0
    while (taken < length && this.#phase === 'request') {
      const before = this.#used
      const part = Math.min(this.#protocol.limit - before, length - taken)
      this.#request.set(buffer.subarray(taken, taken + part), before)
      const step = this.#protocol.next(this.#request.subarray(0, before + part), before)
      if (step.kind === 'more') {
        this.#used += part
        taken += part
        if (this.#used === this.#protocol.limit) this.#refuse('malformed', 'the request is too long')
      } else {
        this.#used = 0
        taken += Math.max(0, step.used - before)
        this.#act(step)
      }
    }
    return this.#phase === 'refused' || this.#phase === 'over' ? length : taken
  }

  pause(): void {
    this.#isReading = false
    this.#target?.pause()
  }

  resume(): void {
    this.#isReading = true
    if (this.#target !== undefined) this.#target.resume()
    else if (this.#answers.length > 0) this.#schedule()
  }

  end(): void {
    this.#isEnded = true
    if (this.#target !== undefined) this.#target.end()
    else if (this.#phase === 'request')
      this.#refuse('malformed', 'the client ended before its request was complete', true)
    else if (this.#phase === 'refused') this.#schedule()
  }

  reset(reason?: string): void {
    this.#end()
    this.#target?.reset(reason)
  }

  close(): void {
    this.#end()
    this.#target?.close()
  }

  #end(): void {
    this.#phase = 'over'
    this.#host.clock.clearTimer(this.#timer)
    this.#dial?.cancel()
    this.#dial = undefined
    this.#answers.length = 0
  }

  #act(step: Exclude<Step, { kind: 'more' }>): void {
    if (step.kind === 'answer') this.#answer(step.bytes)
    else if (step.kind === 'refuse') this.#refuse(step.why, step.text, false, step.bytes)
    else this.#connect(step.host, step.port)
  }

  #connect(host: string, port: number): void {
    this.#phase = 'dialling'
    this.#request = NOTHING
    const { clock } = this.#host
    clock.clearTimer(this.#timer)
    this.#timer = clock.setTimer(() => this.#late(), DIAL_MS)
    this.#dial = this.#host.dial(
      host,
      port,
      (target) => this.#connected(target),
      ({ why, message }) => this.#refuse(why, message),
    )
  }

  #connected(target: TcpConnection): void {
    if (this.#phase !== 'dialling' || this.#handlers === undefined) {
      target.reset()
      return
    }
    this.#phase = 'open'
    this.#dial = undefined
    this.#host.clock.clearTimer(this.#timer)
    const handlers = this.#handlers
    for (const bytes of this.#answers.splice(0)) handlers.onData(bytes)
    handlers.onData(this.#protocol.answer(undefined, ''))
    this.#target = target
    target.attach(handlers)
    if (this.#isReading) target.resume()
    // what followed the request
    handlers.onDrain()
    if (this.#isEnded) target.end()
  }

  /** The request, or the dial, takes too long; or a client that was refused stays. */
  #late(): void {
    if (this.#phase === 'request') this.#refuse('timeout', '')
    else if (this.#phase === 'dialling') this.#refuse('timeout', `no connection within ${DIAL_MS / 1000} s`)
    else if (this.#phase === 'refused') this.#over(systemError('ETIMEDOUT', 'the client stays after a refusal'))
  }

  /**
   * @param isGone nobody reads the answer
   * @param bytes the answer, if it is not the protocol's usual one
   */
  #refuse(why: Refusal, text: string, isGone = false, bytes?: Uint8Array): void {
    // rules, and where names of the server's network lead, are in the log alone
    const told = why === 'denied' ? 'denied by the rules of this proxy' : text
    const answer = isGone ? undefined : (bytes ?? this.#protocol.answer(why, told))
    this.#dial?.cancel()
    this.#dial = undefined
    this.#phase = 'refused'
    const { clock } = this.#host
    clock.clearTimer(this.#timer)
    this.#timer = clock.setTimer(() => this.#late(), REFUSED_MS)
    if (!isGone) this.#host.onRefused(why, text === '' ? 'the request took too long' : text)
    this.#answer(answer ?? NOTHING)
  }

  #answer(bytes: Uint8Array): void {
    this.#answers.push(bytes)
    this.#schedule()
  }

  /** Nothing is reported inside a call of the driver. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#host.clock.defer(this.#deliver)
  }

  readonly #deliver = (): void => {
    this.#isScheduled = false
    const handlers = this.#handlers
    if (handlers === undefined || this.#phase === 'over' || this.#phase === 'open') return
    if (!this.#isReading) return
    for (const bytes of this.#answers.splice(0)) if (bytes.length > 0) handlers.onData(bytes)
    if (this.#phase !== 'refused') return
    // what the client still sends is dropped
    handlers.onDrain()
    if (!this.#isEndSent) {
      this.#isEndSent = true
      handlers.onEnd()
    }
    if (this.#isEnded) this.#over()
  }

  /** Both directions ended. */
  #over(error?: SystemError): void {
    this.#phase = 'over'
    this.#host.clock.clearTimer(this.#timer)
    this.#handlers?.onClose(error)
  }
}
