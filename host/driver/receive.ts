/**
 * The receive path of one driver: opens datagrams into the engine's receive descriptors and passes them to the engine
 * in batches. driver.ts drains the engine afterwards.
 */

import { type Core, DATAGRAM_MAX, Rx } from '../engine/core.ts'
import type { SocketAddress } from '../net/address.ts'
import type { AddressCache } from '../net/address-cache.ts'
import type { Diagnostics } from './diagnostics.ts'
import type { KeyRing } from './key-ring.ts'

/** The part of the driver used by Receiver. */
export interface ReceiveHost {
  readonly core: Core
  readonly diagnostics: Diagnostics
  /** Current time of the engine's clock. */
  now(): number
}

export class Receiver {
  readonly #host: ReceiveHost
  readonly #keys: KeyRing | undefined
  readonly #peers: AddressCache
  /** Filled receive descriptors not yet passed to the engine. */
  #filled = 0
  /** Source of the last datagram, and of the last one that failed authentication since the last handle(). */
  #lastFrom: SocketAddress | undefined
  #failedFrom: SocketAddress | undefined

  /** @param keys undefined: datagrams are plaintext */
  constructor(host: ReceiveHost, keys: KeyRing | undefined, peers: AddressCache) {
    this.#host = host
    this.#keys = keys
    this.#peers = peers
  }

  /** Another engine is in use: datagrams not yet handled are lost. */
  engineReplaced(): void {
    this.#filled = 0
    this.#failedFrom = undefined
  }

  /**
   * Opens one datagram into the next descriptor.
   * @param atProbe whether it arrived at the probing socket
   * @returns whether all descriptors are filled; the caller must then call handle()
   */
  receive(data: Uint8Array, from: SocketAddress, atProbe: boolean): boolean {
    const { core } = this.#host
    core.refresh()
    const at = core.rxWord + this.#filled * Rx.WORDS
    const { u8, u32 } = core
    const { length } = data
    let flags = 0
    this.#peers.write(from, u32, at + Rx.address)
    if (length <= DATAGRAM_MAX) {
      if (this.#keys === undefined) {
        u8.set(data, u32[at + Rx.ptr] ?? 0)
        flags = Rx.OPENED
      } else if (this.#keys.openInto(data, core, at)) {
        flags = Rx.OPENED
      } else {
        this.#failedFrom = from
      }
    }
    u32[at + Rx.length] = length
    u32[at + Rx.flags] = atProbe ? flags | Rx.PROBE : flags
    this.#lastFrom = from
    this.#filled++
    return this.#filled === core.rxSlots
  }

  /** Passes the filled descriptors to the engine. */
  handle(): void {
    const count = this.#filled
    if (count === 0) return
    this.#filled = 0
    const { core, diagnostics } = this.#host
    const accepted = core.calls.handle_datagrams(count, this.#host.now())
    core.refresh()
    this.#keys?.handled(core)
    if (accepted < count) diagnostics.dropped(this.#failedFrom, this.#lastFrom)
    this.#failedFrom = undefined
  }
}
