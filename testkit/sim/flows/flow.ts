/**
 * One stream of bytes through the network as seen by its applications: bytes delivered over time and, for an echo, the
 * round-trip time of each message.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'

/** Width of a bin of the delivery record, ticks. */
export const BIN_TICKS = 20 * TICKS_PER_MS

export type FlowKind = 'bulk' | 'echo' | 'tcp'

export class Flow {
  readonly kind: FlowKind
  readonly name: string
  /** client to server */
  readonly upload: boolean
  /** tick at which it starts */
  readonly startAt: number
  /** tick at which its source closes; Infinity: never */
  readonly stopAt: number
  delivered = 0
  /** bytes delivered in each bin */
  readonly bins: number[] = []
  /** echo: round trips in ticks, in order */
  readonly latencies: number[] = []
  /** the connection ended early */
  broken = false

  constructor(kind: FlowKind, name: string, startAt: number, upload = true, stopAt = Infinity) {
    this.kind = kind
    this.name = name
    this.startAt = startAt
    this.upload = upload
    this.stopAt = stopAt
  }

  deliver(bytes: number, now: number): void {
    this.delivered += bytes
    const bin = Math.floor(now / BIN_TICKS)
    while (this.bins.length <= bin) this.bins.push(0)
    this.bins[bin] = (this.bins[bin] ?? 0) + bytes
  }

  /** Bytes delivered in [from, to) ticks, in whole bins. */
  between(from: number, to: number): number {
    let sum = 0
    const end = Math.min(this.bins.length, Math.floor(to / BIN_TICKS))
    for (let bin = Math.floor(from / BIN_TICKS); bin < end; bin++) sum += this.bins[bin] ?? 0
    return sum
  }
}
