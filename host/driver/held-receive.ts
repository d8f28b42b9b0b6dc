/**
 * Leaves datagrams in the sending socket for as long as the engine allows (`receive_delay`), so that one wake-up handles
 * several of them: fewer system calls, ACKs and writes to TCP. Sockets that cannot be held report their datagrams as
 * ever, and these wait in the receive descriptors.
 */

import { TICKS_PER_MS } from '../engine/core.ts'
import type { UdpSocket } from '../runtime.ts'
import type { Receiver } from './receive.ts'

export class HeldReceive {
  readonly #receiver: Receiver
  #socket: UdpSocket | null = null
  #isHeld = false

  constructor(receiver: Receiver) {
    this.#receiver = receiver
  }

  /** Whether datagrams wait until the next collect(). */
  get isHeld(): boolean {
    return this.#isHeld
  }

  /** Another socket sends from now on; null = none. */
  attach(socket: UdpSocket | null): void {
    this.release()
    this.#socket = socket
  }

  /** Passes to the engine what has arrived meanwhile. Must not be called while the engine is drained. */
  collect(): void {
    if (!this.#isHeld) return
    this.#socket?.collect?.()
    this.#receiver.handle()
  }

  /**
   * Holds datagrams, or ends that.
   * @param ticks result of `receive_delay`
   * @returns ms until collect() must be called; Infinity: not held
   */
  hold(ticks: number): number {
    const ms = Math.floor(ticks / TICKS_PER_MS)
    if (ms < 1) {
      this.release()
      return Number.POSITIVE_INFINITY
    }
    if (!this.#isHeld) this.#socket?.hold?.(true)
    this.#isHeld = true
    return ms
  }

  /** Datagrams are handled as they arrive. */
  release(): void {
    if (!this.#isHeld) return
    this.#isHeld = false
    this.#socket?.hold?.(false)
  }
}
