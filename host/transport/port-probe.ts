/**
 * Finds out whether a silent peer answers at another local port, or at another address of its name. A NAT or a load
 * balancer may keep a mapping that leads nowhere, and every datagram of the port refreshes it: only another port gets
 * another mapping. While the peer is silent, it is pinged from the socket in use and from a probing socket on a new
 * port, to one of its addresses after the other. The endpoint moves there only if several PINGs in a row are answered
 * there and none on the path in use, so that an outage changes neither port nor address.
 */

import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'

/** Silence before the first probe, ms: further PINGs have had time to be answered. */
const START_MS = 4000
/** Time for an answer, ms; doubles up to LONGEST_MS when no address has answered. */
const ANSWER_MS = 2000
const LONGEST_MS = 32_000
/** Pause between an answer and the next PINGs, ms. */
const CONFIRM_MS = 1000
/** PINGs in a row that must be answered at the probing socket only. */
const ANSWERS = 3

export interface PortProbeHost {
  /** Whether pings from the socket in use are unanswered. */
  isPeerSilent(): boolean
  /** Runs an action after all earlier actions that change sockets. */
  inTurn(action: () => Promise<void>): Promise<void>
  /** Number of addresses to try. */
  addresses(): number
  /**
   * Opens a probing socket on a new port, in place of the previous one.
   * @param address which of the addresses it is for; 0 is the one in use
   * @throws Error if none can be opened
   */
  openProbe(address: number): Promise<void>
  closeProbe(): void
  /** Pings the peer from the socket in use and from the probing socket. */
  pingBoth(): void
  /**
   * The peer answers at the probing socket only: uses that path.
   * @returns false if the local port must be kept and the address is the same
   */
  moveToProbe(): Promise<boolean>
}

export class PortProbe {
  readonly #host: PortProbeHost
  readonly #clock: Clock
  readonly #log: Log
  #timer: Timer | undefined
  /** A probing socket is open, or about to be. */
  #active = false
  /** The last PINGs were answered at the probing socket. */
  #answered = false
  /** PINGs answered in a row. */
  #answers = 0
  #pause = ANSWER_MS
  /** Number of sockets opened since the last one that was used. */
  #attempts = 0
  /** The local port must be kept: probing again would find nothing new. */
  #pointless = false
  #closed = false

  constructor(host: PortProbeHost, clock: Clock, log: Log) {
    this.#host = host
    this.#clock = clock
    this.#log = log
  }

  /** The peer is silent although there is a path to it; repeated while it is. */
  onSilence(): void {
    if (this.#closed || this.#active || this.#pointless) return
    this.#active = true
    this.#answers = 0
    this.#answered = false
    this.#pause = ANSWER_MS
    this.#roundIn(START_MS)
  }

  /** The peer answered at the probing socket. */
  onAnswer(): void {
    if (!this.#active || this.#answered || this.#timer === undefined) return
    this.#answered = true
    this.#roundIn(CONFIRM_MS)
  }

  /** Another socket is in use: what was found out does not concern it. */
  reset(): void {
    this.#stop()
    this.#pointless = false
  }

  close(): void {
    this.#closed = true
    this.#stop()
  }

  #roundIn(delay: number): void {
    this.#clock.clearTimer(this.#timer)
    this.#timer = this.#clock.setTimer(this.#onTimer, delay)
  }

  #stop(): void {
    this.#active = false
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    this.#host.closeProbe()
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    this.#host
      .inTurn(() => this.#round())
      .catch((error) => {
        this.#log.debug(`udp: cannot probe another port: ${messageOf(error)}`)
        if (this.#active) this.#roundIn(this.#pause)
      })
  }

  async #round(): Promise<void> {
    const host = this.#host
    if (!this.#active) return
    if (!host.isPeerSilent()) return this.#stop()
    this.#answers = this.#answered ? this.#answers + 1 : 0
    this.#answered = false
    if (this.#answers === ANSWERS) {
      const hasMoved = await host.moveToProbe()
      if (hasMoved) this.#attempts = 0
      this.#pointless = !hasMoved && host.addresses() === 1
      this.#stop()
      return
    }
    if (this.#answers > 0) this.#roundIn(ANSWER_MS)
    else await this.#openNext()
    if (this.#active) host.pingBoth()
  }

  /** An unanswered port may have a dead mapping, too: every attempt has another one. */
  async #openNext(): Promise<void> {
    const host = this.#host
    const address = this.#attempts++ % host.addresses()
    const pause = this.#pause
    if (address === host.addresses() - 1) this.#pause = Math.min(2 * pause, LONGEST_MS)
    await host.openProbe(address)
    if (this.#active) this.#roundIn(pause)
    else host.closeProbe()
  }
}
