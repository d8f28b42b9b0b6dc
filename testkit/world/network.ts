/**
 * The network of a simulated world: machines by address, NATs, and one link with impairments per pair and direction.
 * Datagrams are byte arrays with the addresses as seen by the receiver.
 */
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import type { Random } from '../sim/random.ts'
import type { EventLoop } from './event-loop.ts'
import type { Machine } from './machine.ts'

/** Impairments of a link. Times in ms, rate in bytes per ms (0 = unlimited), queue in bytes. */
export interface Conditions {
  readonly delay: number
  readonly jitter: number
  readonly loss: number
  /** Mean length of a run of losses (Gilbert-Elliott); 1: independent losses. */
  readonly burst: number
  readonly duplicate: number
  readonly reorder: number
  readonly corrupt: number
  readonly rate: number
  readonly queue: number
  /** Longest datagram, bytes, unless it may be fragmented; 0 = unlimited. */
  readonly longest: number
}

export const CLEAN: Conditions = {
  delay: 10,
  jitter: 0,
  loss: 0,
  burst: 1,
  duplicate: 0,
  reorder: 0,
  corrupt: 0,
  rate: 0,
  queue: 1 << 20,
  longest: 0,
}

export interface Datagram {
  readonly from: SocketAddress
  readonly to: SocketAddress
  readonly bytes: Uint8Array
  /** Don't fragment is set. */
  readonly isWhole?: boolean
}

/** Receiver of datagrams to an address. `unreachable`: no socket is bound. */
export interface Receiver {
  deliver(bytes: Uint8Array, from: SocketAddress): void
}

/** State of one direction of one pair of machines. */
interface Link {
  freeAt: number
  lastAt: number
  isBad: boolean
}

/** Source of datagrams of a dead mapping: an address that no machine has. */
const GONE = '192.0.2.250'

export const ipv4 = (address: string, port: number): SocketAddress => ({ family: 4, address, port, scope: 0 })

/** A NAT with one public address, endpoint-independent mapping, and address and port-dependent filtering. */
export class Nat {
  address: string
  readonly inside: Machine
  readonly #ports = new Map<number, { port: number; known: Set<string>; isDead: boolean }>()
  #next = 20_000

  constructor(address: string, inside: Machine) {
    this.address = address
    this.inside = inside
  }

  /** Outbound: the public source of a datagram. */
  translate(port: number, to: SocketAddress): SocketAddress {
    let entry = this.#ports.get(port)
    if (entry === undefined) {
      entry = { port: this.#next++, known: new Set(), isDead: false }
      this.#ports.set(port, entry)
    }
    entry.known.add(formatAddress(to))
    return ipv4(entry.isDead ? GONE : this.address, entry.port)
  }

  /** Inbound: the internal port; undefined if the datagram is filtered. */
  accept(port: number, from: SocketAddress): number | undefined {
    for (const [inside, entry] of this.#ports) {
      if (entry.port === port && !entry.isDead && entry.known.has(formatAddress(from))) return inside
    }
    return undefined
  }

  /** Every mapping leads nowhere from now on, and is kept: only other ports get others. */
  strand(): void {
    for (const entry of this.#ports.values()) entry.isDead = true
  }

  /** Discards all mappings: the next datagrams leave from other ports. */
  rebind(): void {
    this.#ports.clear()
  }
}

export class Network {
  readonly loop: EventLoop
  readonly machines: Machine[] = []
  readonly nats: Nat[] = []
  /** Conditions between machines of the tunnel. */
  conditions: Conditions = CLEAN
  /** Drops all datagrams between machines of the tunnel while set. */
  isDark = false
  /** Names and their addresses, separated by spaces. */
  readonly names = new Map<string, string>()
  isNameServerDown = false
  /** Called with each datagram sent between machines of the tunnel, with the addresses as seen by the receiver. */
  tap: ((datagram: Datagram) => void) | undefined
  /** Attackers, whose datagrams are not subject to conditions. */
  readonly outsiders = new Map<string, (datagram: Datagram) => void>()
  readonly sockets = new Map<string, Receiver>()
  /** Ephemeral port taken last, by machine. */
  readonly lastPorts = new Map<string, number>()
  /** Sockets fail with ENOBUFS while set. */
  isSendBufferFull = false
  readonly counts = { sent: 0, lost: 0, corrupted: 0, delivered: 0 }
  readonly #random: Random
  readonly #links = new Map<string, Link>()

  constructor(loop: EventLoop, random: Random) {
    this.loop = loop
    this.#random = random
  }

  natOf(machine: Machine): Nat | undefined {
    for (const nat of this.nats) if (nat.inside === machine) return nat
    return undefined
  }

  /**
   * Sends a datagram of a machine.
   * @param isWhole it is not to be fragmented
   * @param refused called when the other machine reports that nothing listens there (ICMP port unreachable)
   */
  send(
    machine: Machine,
    from: SocketAddress,
    to: SocketAddress,
    bytes: Uint8Array,
    refused: () => void,
    isWhole = false,
  ): void {
    const source = this.natOf(machine)?.translate(from.port, to) ?? from
    const datagram = { from: source, to, bytes, isWhole }
    this.counts.sent++
    const outsider = this.outsiders.get(to.address)
    if (outsider !== undefined) {
      this.loop.in(CLEAN.delay, () => outsider(datagram))
      return
    }
    this.tap?.(datagram)
    if (this.isDark) {
      this.counts.lost++
      return
    }
    this.#carry(datagram, this.conditions, refused)
  }

  /** Sends a datagram of an attacker, with any source address, over a fast link. */
  inject(from: SocketAddress, to: SocketAddress, bytes: Uint8Array, delay = 1): void {
    this.loop.in(delay, () => this.#arrive({ from, to, bytes }, () => {}))
  }

  #carry(datagram: Datagram, conditions: Conditions, refused: () => void): void {
    const random = this.#random
    const { delay, jitter, duplicate, reorder, corrupt, rate, queue, longest } = conditions
    const link = this.#link(`${datagram.from.address}>${datagram.to.address}`)
    const { now } = this.loop
    if (this.#isLost(link, conditions)) return
    if (longest > 0 && datagram.isWhole === true && datagram.bytes.length > longest) {
      this.counts.lost++
      return
    }
    let at = now
    if (rate > 0) {
      if ((link.freeAt - now) * rate > queue) {
        this.counts.lost++
        return
      }
      link.freeAt = Math.max(now, link.freeAt) + datagram.bytes.length / rate
      at = link.freeAt
    }
    for (let copies = random.chance(duplicate) ? 2 : 1; copies > 0; copies--) {
      let arrival = at + delay + random.unit() * jitter
      if (random.chance(reorder)) arrival += random.unit() * (2 * delay + 20)
      else link.lastAt = arrival = Math.max(arrival, link.lastAt)
      const { from, to } = datagram
      const arriving = random.chance(corrupt) ? { from, to, bytes: this.#corrupted(datagram.bytes) } : datagram
      this.loop.at(arrival, () => this.#arrive(arriving, refused))
    }
  }

  #isLost(link: Link, { loss, burst }: Conditions): boolean {
    if (loss === 0) return false
    const random = this.#random
    if (burst <= 1) link.isBad = random.chance(loss)
    else if (link.isBad) link.isBad = !random.chance(1 / burst)
    else link.isBad = random.chance(loss / burst / (1 - loss))
    if (link.isBad) this.counts.lost++
    return link.isBad
  }

  #corrupted(bytes: Uint8Array): Uint8Array {
    const copy = bytes.slice()
    const bit = this.#random.below(copy.length * 8)
    copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    this.counts.corrupted++
    return copy
  }

  #arrive({ from, to, bytes }: Datagram, refused: () => void): void {
    const nat = this.nats.find(({ address }) => address === to.address)
    let { address, port } = to
    if (nat !== undefined) {
      const inside = nat.accept(port, from)
      if (inside === undefined) return
      address = nat.inside.address
      port = inside
    }
    const machine = this.machines.find((candidate) => candidate.address === address && address !== '')
    // a private address is reached through its NAT only
    if (machine === undefined || (nat === undefined && this.natOf(machine) !== undefined)) return
    const receiver =
      this.sockets.get(`${machine.name} ${address}:${port}`) ?? this.sockets.get(`${machine.name} *:${port}`)
    if (receiver === undefined) {
      this.loop.in(this.conditions.delay, refused)
      return
    }
    this.counts.delivered++
    receiver.deliver(bytes, from)
  }

  #link(key: string): Link {
    let link = this.#links.get(key)
    if (link === undefined) {
      link = { freeAt: 0, lastAt: 0, isBad: false }
      this.#links.set(key, link)
    }
    return link
  }
}
