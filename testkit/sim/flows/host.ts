/**
 * An endpoint of a simulated path, with an inbox and a deadline. Engines, kcptun-libev models and TCP models are hosts.
 */
import type { Bottleneck } from './bottleneck.ts'
import type { Packets } from './packets.ts'

/** Bytes that sealing (40) and IP/UDP headers (28) would add to a plaintext datagram. */
export const OVERHEAD_BYTES = 68

export abstract class Host {
  /** number within the network; packets name it as their target */
  readonly number: number
  /** tick at which `expire` is due */
  deadline = Infinity
  /** slots that arrived at the current tick, in order */
  inbox = new Int32Array(256)
  inboxCount = 0
  /** datagrams sent, and their bytes on the wire */
  sentPackets = 0
  sentBytes = 0
  protected readonly packets: Packets
  /** number of the other end */
  peer = 0
  protected readonly out: Bottleneck

  constructor(number: number, packets: Packets, out: Bottleneck) {
    this.number = number
    this.packets = packets
    this.out = out
  }

  /** Appends an arrival to the inbox. */
  arrive(slot: number): void {
    if (this.inboxCount === this.inbox.length) {
      const inbox = new Int32Array(this.inbox.length * 2)
      inbox.set(this.inbox)
      this.inbox = inbox
    }
    this.inbox[this.inboxCount++] = slot
  }

  /** Sends a slot to the other end. */
  protected send(slot: number, weight: number, now: number): void {
    this.packets.target[slot] = this.peer
    this.packets.weight[slot] = weight
    this.sentPackets++
    this.sentBytes += weight
    this.out.send(slot, now)
  }

  /** Called at tick 0. */
  abstract start(now: number): void
  /** Processes the inbox and frees its slots. */
  abstract receive(now: number): void
  /** Called at the deadline. */
  abstract expire(now: number): void
}
