/** Sends single datagrams that are too long for the slots of a batched socket. */

import type { SocketAddress } from '../net/address.ts'
import { ADDRESS_WORDS, type AddressCache } from '../net/address-cache.ts'
import type { LocalAddresses } from './local-addresses.ts'
import { LOCAL_WORDS } from './local-addresses.ts'
import { MessageVector } from './message-vector.ts'
import type { Syscalls } from './syscalls.ts'

const LONGEST_BYTES = 65536
const record = new Uint32Array(ADDRESS_WORDS)
const NO_LOCALS = new Uint32Array()

export class LargeDatagram {
  readonly #syscalls: Syscalls
  readonly #message: MessageVector
  readonly #bytes = new Uint8Array(LONGEST_BYTES)

  constructor(syscalls: Syscalls) {
    this.#syscalls = syscalls
    this.#message = new MessageVector(syscalls, 1)
  }

  /**
   * Sends a datagram.
   * @param to undefined: the socket is connected
   * @param locals the addresses from which answers leave, if the socket chooses them
   * @returns as sendmmsg: 1, or 0 without room, or the negative error number
   */
  send(
    fd: number,
    family: 4 | 6,
    data: Uint8Array,
    to: SocketAddress | undefined,
    peers: AddressCache,
    locals: LocalAddresses | undefined,
  ): number {
    const message = this.#message
    this.#bytes.set(data)
    message.setBuffer(0, this.#syscalls.addressOf(this.#bytes.buffer), data.length)
    if (to !== undefined) {
      peers.write(to, record, 0)
      message.setReceiver(0, record, 0, true)
    }
    const local = to?.local ?? 0
    const at = locals?.isKnown(local) === true ? local * LOCAL_WORDS : -1
    message.setControl(0, 0, family, locals?.words ?? NO_LOCALS, at)
    return this.#syscalls.sendmmsg(fd, message.address(0), 1)
  }
}
