/** Measures a lane over the last second. */

import type { Lane } from './lane.ts'

const MIB = 1 << 20
const BITS = 8
/** Samples over which rates are averaged. */
const SAMPLES = 4

export interface Sample {
  /** Mbit/s of the application's bytes. */
  readonly goodput: number
  /** ms */
  readonly roundTrip: number | null
  /** % of the datagrams that were lost, in the direction of the transfer. */
  readonly lost: number
  /** Bytes at the bottleneck. */
  readonly queued: number
}

export class Meter {
  readonly #lane: Lane
  #bytes = 0
  #begin = 0
  #end: number | undefined
  #at = 0
  #received = 0
  #before: { readonly at: number; readonly received: number; readonly sent: number; readonly lost: number }[] = []

  constructor(lane: Lane) {
    this.#lane = lane
  }

  /** A transfer starts. */
  begin(bytes: number): void {
    this.#bytes = bytes
    this.#begin = this.#at = performance.now()
    this.#end = undefined
    this.#received = 0
    this.#before = []
  }

  /** What happened in the last samples. */
  sample(): Sample {
    const { received, roundTrip, link } = this.#lane
    const { sent, lost, queued } = link.up
    const at = performance.now()
    this.#before.push({ at, received, sent, lost })
    if (this.#before.length > SAMPLES + 1) this.#before.shift()
    const first = this.#before[0] ?? { at, received, sent, lost }
    const goodput = ((received - first.received) * BITS) / 1000 / Math.max(1, at - first.at)
    const share = (100 * (lost - first.lost)) / Math.max(1, sent - first.sent)
    this.#at = at
    this.#received = received
    if (received >= this.#bytes) this.#end ??= at
    return { goodput, roundTrip, lost: share, queued }
  }

  /** 0 to 1; 0 for a transfer without end. */
  get progress(): number {
    return this.#received / this.#bytes
  }

  get isFinished(): boolean {
    return this.#end !== undefined
  }

  get #seconds(): number {
    return ((this.#end ?? this.#at) - this.#begin) / 1000
  }

  /** Mbit/s since the transfer began. */
  get average(): number {
    return (this.#received * BITS) / 1e6 / Math.max(0.001, this.#seconds)
  }

  /** For people. */
  get state(): string {
    const text = `${this.#seconds.toFixed(1)} s, ${this.average.toFixed(1)} Mbit/s on average`
    if (this.isFinished) return `Finished in ${text}`
    const of = Number.isFinite(this.#bytes) ? ` of ${this.#bytes / MIB}` : ''
    return `${(this.#received / MIB).toFixed(1)}${of} MiB in ${text}`
  }
}
