/**
 * The target of a server: the addresses of `connect`. They are looked up at a start, at a reload, and when a dial needs
 * them, never without a reason.
 */

import type { Dial, Dialling } from '../driver/stream.ts'
import { messageOf, toError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, ipFamily, parseHostPort, type SocketAddress, sameAddress } from '../net/address.ts'
import type { Runtime, TcpOptions } from '../runtime.ts'
import { HappyEyeballs, interleaved } from './happy-eyeballs.ts'
import { resolveAll } from './resolver.ts'
import { Retry } from './retry.ts'

/** An older answer is looked up again at a dial, ms. */
const FRESH_MS = 30_000
/** The previous answer is used when a lookup takes longer, ms. */
const PATIENCE_MS = 1000
/** A failed dial waits this long for the lookup that it caused, ms. */
const MORE_MS = 5000
/** Minimum interval between two lookups, ms. */
const REPEAT_MS = 100

export class Target {
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #tcp: TcpOptions
  readonly #key: string
  /** Repeats the first lookup until it succeeds: nothing may be dialled before. */
  readonly #first: Retry
  #text: string
  #isLiteral = false
  #addresses: readonly SocketAddress[] = []
  /** The address of the last connection: it is tried first while the name has it. */
  #used: SocketAddress | undefined
  /** When the lookup of `#addresses`, and the last lookup, began. */
  #knownAt = Number.NEGATIVE_INFINITY
  #askedAt = Number.NEGATIVE_INFINITY
  #looking: Promise<void> | undefined
  /** The lookup that waits for the limit. */
  #soon: Promise<void> | undefined
  #failure: Error | undefined

  /**
   * @param text `connect`
   * @param onChange `failure` changed
   * @param key the key of the text, for messages
   */
  constructor(runtime: Runtime, log: Log, tcp: TcpOptions, text: string, onChange: () => void, key = 'connect') {
    this.#key = key
    this.#runtime = runtime
    this.#log = log
    this.#tcp = tcp
    this.#text = text
    this.#first = new Retry(runtime.clock, log, () => this.#open(), onChange)
  }

  /** Why there is no address; undefined if there is one. */
  get failure(): string | undefined {
    return this.#addresses.length === 0 ? this.#failure?.message : undefined
  }

  /**
   * Looks the name up, or begins to retry.
   * @throws ConfigError for invalid syntax
   */
  async open(): Promise<void> {
    this.#isLiteral = ipFamily(parseHostPort(this.#key, this.#text, 'connect').host) !== 0
    await this.#first.start()
  }

  close(): void {
    this.#first.close()
  }

  /** Uses another name from now on, or the same one looked up anew. Its addresses replace the old ones when known. */
  async reload(text: string): Promise<void> {
    this.#isLiteral = ipFamily(parseHostPort(this.#key, text, 'connect').host) !== 0
    if (text !== this.#text) this.#looking = undefined
    this.#text = text
    this.#knownAt = Number.NEGATIVE_INFINITY
    await this.#look()
  }

  /** Connects to the target. `dialling` is never called inside this call. */
  dial(dialling: Dialling): Dial {
    const begunAt = this.#now()
    const more = async (): Promise<readonly SocketAddress[]> => {
      // an answer that was asked for during this dial is not older than its failure
      const isOld = this.#askedAt < begunAt || this.#looking !== undefined
      if (isOld) await this.#within(MORE_MS, this.#lookLimited())
      return this.#ordered()
    }
    const attempts = new HappyEyeballs(this.#runtime, this.#tcp, dialling, {
      ...(!this.#isLiteral && { more }),
      onConnected: (address) => this.prefer(address),
    })
    const start = (): void => attempts.start(this.#ordered(), this.#failure)
    const lookup = this.#refresh()
    if (lookup === undefined) start()
    else void lookup.then(start)
    return attempts
  }

  /**
   * The addresses in the order in which they are to be tried.
   * @throws why there are none
   */
  async addresses(): Promise<readonly SocketAddress[]> {
    await this.#refresh()
    const found = this.#ordered()
    if (found.length === 0) throw this.#failure ?? new Error(`${this.#key}: no address`)
    return found
  }

  /** An address works: it is tried first from now on. */
  prefer(address: SocketAddress): void {
    this.#used = address
  }

  /** The lookup that a dial has to wait for; undefined: the addresses are known. */
  #refresh(): Promise<void> | undefined {
    if (this.#isLiteral || this.#now() - this.#knownAt < FRESH_MS) return undefined
    const lookup = this.#lookLimited()
    return this.#addresses.length === 0 ? lookup : this.#within(PATIENCE_MS, lookup)
  }

  /** Waits for a lookup, but not longer. */
  #within(ms: number, lookup: Promise<void>): Promise<void> {
    const { clock } = this.#runtime
    return new Promise((resolve) => {
      const timer = clock.setTimer(resolve, ms)
      void lookup.then(() => {
        clock.clearTimer(timer)
        resolve()
      })
    })
  }

  #now(): number {
    return this.#runtime.clock.monotonic()
  }

  /** In the order of RFC 8305. An answer in another order changes nothing while the address in use is among them. */
  #ordered(): readonly SocketAddress[] {
    const used = this.#addresses.find((address) => this.#used !== undefined && sameAddress(address, this.#used))
    const others = interleaved(this.#addresses.filter((address) => address !== used))
    return used === undefined ? others : [used, ...others]
  }

  /**
   * Looks up for a dial, as soon as the limit allows: the answer of a moment ago may be the one that failed. Never
   * rejects.
   */
  #lookLimited(): Promise<void> {
    const wait = this.#askedAt + REPEAT_MS - this.#now()
    if (this.#looking !== undefined || wait <= 0) return this.#look()
    this.#soon ??= new Promise((resolve) => {
      this.#runtime.clock.setTimer(() => {
        this.#soon = undefined
        void this.#look().then(resolve)
      }, wait)
    })
    return this.#soon
  }

  async #open(): Promise<void> {
    await this.#look()
    if (this.#failure !== undefined && this.#addresses.length === 0) throw this.#failure
  }

  /** Looks up, or waits for the lookup in progress. Never rejects. */
  #look(): Promise<void> {
    if (this.#looking !== undefined) return this.#looking
    const text = this.#text
    const askedAt = this.#now()
    this.#askedAt = askedAt
    const looking = resolveAll(this.#runtime, this.#key, text, 'connect')
      .then(
        (found) => {
          if (text === this.#text) this.#take(found, askedAt)
        },
        (error) => {
          if (text === this.#text) this.#failed(toError(error))
        },
      )
      .finally(() => {
        if (this.#looking === looking) this.#looking = undefined
      })
    this.#looking = looking
    return looking
  }

  #take(found: readonly SocketAddress[], askedAt: number): void {
    const before = this.#addresses
    const isSame = found.length === before.length && found.every((one) => before.some((old) => sameAddress(one, old)))
    this.#addresses = found
    this.#knownAt = askedAt
    if (this.#failure !== undefined && before.length > 0) this.#log.notice(`${this.#key}: resolved again`)
    this.#failure = undefined
    if (before.length > 0 && !isSame) this.#log.notice(`${this.#key}: now ${found.map(formatAddress).join(', ')}`)
  }

  /** The first of a series of failures is logged, unless the caller reports it. */
  #failed(error: Error): void {
    if (this.#failure === undefined && this.#addresses.length > 0) {
      this.#log.warning(`${messageOf(error)}; using its previous addresses`)
    }
    this.#failure = error
  }
}
