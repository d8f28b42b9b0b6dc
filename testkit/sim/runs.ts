/** Datagrams that an engine allows to be joined to one message of the kernel (docs/abi.md, Tx.flags). */
import { type Core, Tx } from '../../host/engine/core.ts'
import { type Address, addressKey } from './address.ts'

const joinsAt = (core: Core, i: number): boolean =>
  ((core.u32[core.txWord + i * Tx.WORDS + Tx.flags] ?? 0) & Tx.JOINS) !== 0

/** Checks the runs of one engine. */
export class Runs {
  #receiver = ''
  #first = 0
  #last = 0

  /**
   * Notes the datagram of descriptor `i` of `count`.
   * @returns whether a host that joins all it may sends it in one message with others
   * @throws Error if it cannot be joined to the one before, as it should
   */
  add(core: Core, i: number, count: number, peer: Address, bytes: number): boolean {
    const joins = joinsAt(core, i)
    const receiver = addressKey(peer)
    if (joins && (receiver !== this.#receiver || this.#last !== this.#first || bytes > this.#first)) {
      throw new Error(`${bytes} bytes to ${receiver} join ${this.#last} of ${this.#first} to ${this.#receiver}`)
    }
    if (!joins) this.#first = bytes
    this.#receiver = receiver
    this.#last = bytes
    return joins || (i + 1 < count && joinsAt(core, i + 1))
  }
}
