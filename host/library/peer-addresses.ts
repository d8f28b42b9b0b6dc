/**
 * Addresses for the peers of a DatagramTransport. The engine identifies paths by IP addresses; identities of any other
 * kind get one each of fc00::/8, in the order of their appearance.
 */

import type { SocketAddress } from '../net/address.ts'

/**
 * Most identities kept. When full, the one unused for longest is forgotten: if it appears again, it is the same peer at a
 * new address.
 */
const PEERS_MAX = 65536
/** Bits of the counter in one group of an address. */
const GROUP = 0x10000

export class PeerAddresses {
  /** Both in the order of use. */
  readonly #addresses = new Map<string, SocketAddress>()
  readonly #peers = new Map<string, string>()
  #last: string | undefined
  #lastAddress: SocketAddress | undefined
  #count = 0

  /** The address of an identity, the same object while it is remembered. */
  of(peer: string): SocketAddress {
    if (peer === this.#last && this.#lastAddress !== undefined) return this.#lastAddress
    const address = this.#addresses.get(peer) ?? this.#add(peer)
    // most recently used
    this.#addresses.delete(peer)
    this.#addresses.set(peer, address)
    this.#last = peer
    this.#lastAddress = address
    return address
  }

  /** The identity at an address; undefined if it was forgotten. */
  peerAt({ address }: SocketAddress): string | undefined {
    return this.#peers.get(address)
  }

  #add(peer: string): SocketAddress {
    if (this.#addresses.size === PEERS_MAX) {
      for (const [oldest, { address }] of this.#addresses) {
        this.#addresses.delete(oldest)
        this.#peers.delete(address)
        break
      }
    }
    this.#count += 1
    const high = Math.floor(this.#count / GROUP)
    // canonical text, as the engine's records are converted back to it
    const low = (this.#count % GROUP).toString(16)
    const address = {
      family: 6,
      address: high === 0 ? `fc00::${low}` : `fc00::${high.toString(16)}:${low}`,
      port: 1,
      scope: 0,
    } as const
    this.#peers.set(address.address, peer)
    return address
  }
}
