/**
 * Whether the system may fragment the datagrams of a UDP socket, and lets routers do so. IP_PMTUDISC_PROBE forbids both,
 * and ignores what ICMP messages said about the path, which can be forged. There is no such option for a single datagram,
 * so the few that may be fragmented are sent between two changes of the socket.
 */

import { IP_MTU_DISCOVER, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU, IPV6_MTU_DISCOVER } from './libc.ts'
import type { Syscalls } from './syscalls.ts'

const IP_PMTUDISC_DONT = 0
const IP_PMTUDISC_PROBE = 3
/** Size of IPv6 fragments, which only the sender makes: every path takes it (RFC 8200). */
const FRAGMENT6_BYTES = 1280

export class FragmentOptions {
  readonly #syscalls: Syscalls
  readonly #fd: number
  readonly #family: 4 | 6
  /** The options before they were changed, IPv4 and IPv6. */
  #before: readonly [number, number] | undefined
  #areAllowed = false

  constructor(syscalls: Syscalls, fd: number, family: 4 | 6) {
    this.#syscalls = syscalls
    this.#fd = fd
    this.#family = family
  }

  /** Whether datagrams are not fragmented, except those sent while `areAllowed`. */
  get areForbidden(): boolean {
    return this.#before !== undefined
  }

  get areAllowed(): boolean {
    return this.#areAllowed
  }

  /**
   * Forbids fragments, or restores what was before.
   * @returns whether they are forbidden
   */
  forbid(on: boolean): boolean {
    if (on === this.areForbidden) return on
    try {
      const before = this.#before ?? [
        this.#syscalls.getOption(this.#fd, IP_MTU_DISCOVER, IPPROTO_IP),
        this.#family === 6 ? this.#syscalls.getOption(this.#fd, IPV6_MTU_DISCOVER, IPPROTO_IPV6) : 0,
      ]
      this.#set(on ? IP_PMTUDISC_PROBE : before[0], on ? IP_PMTUDISC_PROBE : before[1])
      this.#before = on ? before : undefined
    } catch {
      // a system that has no such option
    }
    return this.areForbidden
  }

  /** Allows fragments of what is sent from now on, or forbids them again. */
  allow(on: boolean): void {
    if (on === this.#areAllowed || !this.areForbidden) return
    this.#areAllowed = on
    const mode = on ? IP_PMTUDISC_DONT : IP_PMTUDISC_PROBE
    this.#set(mode, mode)
    if (this.#family === 6) this.#syscalls.setOption(this.#fd, IPV6_MTU, on ? FRAGMENT6_BYTES : 0, IPPROTO_IPV6)
  }

  /** An IPv6 socket sends to IPv4 peers, too. */
  #set(ipv4: number, ipv6: number): void {
    this.#syscalls.setOption(this.#fd, IP_MTU_DISCOVER, ipv4, IPPROTO_IP)
    if (this.#family === 6) this.#syscalls.setOption(this.#fd, IPV6_MTU_DISCOVER, ipv6, IPPROTO_IPV6)
  }
}
