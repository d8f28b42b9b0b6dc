/**
 * What the network drives: an endpoint of a path with an inbox and a deadline. Engines, actors and TCP models are hosts.
 */
import type { Bottleneck } from './bottleneck.ts'
import type { Packets } from './packets.ts'

/** Bytes that sealing (40) and IP/UDP headers (28) would add to a plaintext datagram. */
export const OVERHEAD_BYTES = 68

export abstract class Host {
  /** number within the network; packets name it as their target */
  readonly number: number
  /** the tick at which `expire` is wanted */
  deadline = Infinity
  /** slots that arrived at this tick, in order */
  inbox = new Int32Array(256)
  inboxCount = 0
  /** datagrams and their weight on the wire that this host sent */
  sentPackets = 0
  sentBytes = 0
  protected readonly packets: Packets
  /** the other end */
  peer = 0
  protected readonly out: Bottleneck

  constructor(number: number, packets: Packets, out: Bottleneck) {
    this.number = number
    this.packets = packets
    this.out = out
  }

  /** Notes an arrival. */
  arrive(slot: number): void {
    if (this.inboxCount === this.inbox.length) {
      const inbox = new Int32Array(this.inbox.length * 2)
      inbox.set(this.inbox)
      this.inbox = inbox
    }
    this.inbox[this.inboxCount++] = slot
  }

  /** Sends a filled slot to the other end. */
  protected send(slot: number, weight: number, now: number): void {
    this.packets.target[slot] = this.peer
    this.packets.weight[slot] = weight
    this.sentPackets++
    this.sentBytes += weight
    this.out.send(slot, now)
  }

  /** Begins at tick 0. */
  abstract start(now: number): void
  /** Takes the inbox and gives its slots back. */
  abstract receive(now: number): void
  /** The deadline has come. */
  abstract expire(now: number): void
}
