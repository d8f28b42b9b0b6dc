/**
 * One TCP connection to a host with several addresses (RFC 8305): the next address is tried when the previous attempt
 * failed or has not succeeded soon, and the first connection is used.
 */

import type { Dial, Dialling } from '../driver/stream.ts'
import { codeOf, type SystemError, toError } from '../errors.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, TcpOptions, Timer } from '../runtime.ts'

/** Connection Attempt Delay (RFC 8305, section 5), ms. */
const ATTEMPT_DELAY_MS = 250
/** Further addresses are asked for when no attempt succeeds within this time, ms. */
const SLOW_MS = 1000

/** Addresses with the families in turn, the first one first (RFC 8305, section 4). */
export function interleaved(addresses: readonly SocketAddress[]): SocketAddress[] {
  const isFirst = ({ family }: SocketAddress): boolean => family === addresses[0]?.family
  const first = addresses.filter(isFirst)
  const others = addresses.filter((address) => !isFirst(address))
  const pairs = Array.from({ length: Math.max(first.length, others.length) }, (_, i) => [first[i], others[i]])
  return pairs.flat().filter((address) => address !== undefined)
}

export interface Candidates {
  /** Asks once more for addresses. Never rejects. Absent: there are no others. */
  readonly more?: (() => Promise<readonly SocketAddress[]>) | undefined
  /** A connection to the address is established. */
  onConnected(address: SocketAddress): void
}

/** What a user calls these errors. */
const FAILURES: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'refuses the connection',
  ETIMEDOUT: 'does not answer',
  EHOSTUNREACH: 'cannot be reached',
  ENETUNREACH: 'cannot be reached',
}

/** The error of a connection with the address that failed. */
function failureAt(address: SocketAddress, error: SystemError): SystemError {
  const code = codeOf(error)
  const words = FAILURES[code]
  const named: SystemError = new Error(
    words === undefined
      ? `${formatAddress(address)}: ${error.message}`
      : `${formatAddress(address)} ${words} (${code})`,
    { cause: error },
  )
  if (code !== '') named.code = code
  return named
}

/** The attempts for one connection. Call `start` once the addresses are known. */
export class HappyEyeballs implements Dial {
  readonly #runtime: Runtime
  readonly #options: TcpOptions
  readonly #dialling: Dialling
  readonly #candidates: Candidates
  readonly #untried: SocketAddress[] = []
  readonly #known = new Set<string>()
  readonly #attempts = new Set<TcpConnection>()
  #startedAt = 0
  #hasAsked = false
  #isAsking = false
  #isStarted = false
  #isOver = false
  #error: Error | undefined
  #timer: Timer | undefined

  constructor(runtime: Runtime, options: TcpOptions, dialling: Dialling, candidates: Candidates) {
    this.#runtime = runtime
    this.#options = options
    this.#dialling = dialling
    this.#candidates = candidates
    this.#hasAsked = candidates.more === undefined
  }

  /**
   * Begins to connect. Only the first call counts.
   * @param addresses in the order in which they are tried
   * @param error why there is no address, if there is none
   */
  start(addresses: readonly SocketAddress[], error?: Error): void {
    if (this.#isStarted || this.#isOver) return
    this.#isStarted = true
    this.#startedAt = this.#runtime.clock.monotonic()
    this.#error = error
    this.#add(addresses)
    // without an address it fails, which must not be reported inside this call
    if (addresses.length > 0) this.#next()
    else this.#timer = this.#runtime.clock.setTimer(this.#next, 0)
  }

  cancel(): void {
    this.#end()
    for (const connection of this.#attempts) connection.reset()
    this.#attempts.clear()
  }

  #end(): void {
    this.#isOver = true
    this.#runtime.clock.clearTimer(this.#timer)
  }

  #add(addresses: readonly SocketAddress[]): void {
    for (const address of addresses) {
      const text = formatAddress(address)
      if (this.#known.has(text)) continue
      this.#known.add(text)
      this.#untried.push(address)
    }
  }

  readonly #next = (): void => {
    if (this.#isOver) return
    const { clock } = this.#runtime
    clock.clearTimer(this.#timer)
    this.#timer = undefined
    const address = this.#untried.shift()
    if (address !== undefined) this.#attempt(address)
    // the attempt could not begin
    if (this.#timer !== undefined) return
    if (this.#untried.length > 0) this.#timer = clock.setTimer(this.#next, ATTEMPT_DELAY_MS)
    else if (!this.#hasAsked) {
      const rest = this.#attempts.size === 0 ? 0 : this.#startedAt + SLOW_MS - clock.monotonic()
      if (rest > 0) this.#timer = clock.setTimer(this.#next, rest)
      else void this.#ask()
    } else if (this.#attempts.size === 0 && !this.#isAsking) this.#fail()
  }

  #attempt(address: SocketAddress): void {
    let connection: TcpConnection | undefined
    const handlers: TcpHandlers = {
      onData() {},
      onEnd() {},
      onDrain() {},
      onClose: (error) => {
        if (connection !== undefined) this.#attempts.delete(connection)
        this.#error = failureAt(address, error ?? new Error('closed'))
        if (this.#untried.length > 0 || this.#attempts.size === 0) this.#next()
      },
    }
    const onOpen = (): void => {
      if (connection === undefined) return
      this.#attempts.delete(connection)
      this.cancel()
      this.#candidates.onConnected(address)
      this.#dialling.onOpen(connection)
    }
    try {
      connection = this.#runtime.dialTcp(address, this.#options, handlers, onOpen)
      this.#attempts.add(connection)
    } catch (error) {
      this.#error = toError(error)
      this.#timer ??= this.#runtime.clock.setTimer(this.#next, 0)
    }
  }

  async #ask(): Promise<void> {
    this.#hasAsked = true
    this.#isAsking = true
    const found = await this.#candidates.more?.()
    this.#isAsking = false
    this.#add(found ?? [])
    if (this.#untried.length > 0 || this.#attempts.size === 0) this.#next()
  }

  #fail(): void {
    this.#end()
    this.#dialling.onFailed(this.#error ?? new Error('no address'))
  }
}
