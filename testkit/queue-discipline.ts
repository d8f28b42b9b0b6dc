/**
 * Queues at the bottleneck of an emulated link: drop-tail, a token-bucket policer without a queue, CoDel (RFC 8289) and
 * FQ-CoDel (RFC 8290), the last two without ECN and with the RFCs' defaults.
 */

/** Names of the disciplines. */
export const DISCIPLINES = ['droptail', 'policer', 'codel', 'fq_codel'] as const
export type DisciplineName = (typeof DISCIPLINES)[number]

const CODEL_TARGET_MS = 5
const CODEL_INTERVAL_MS = 100
/** Largest packet: CoDel never drops the last one. */
const MTU_BYTES = 1514
const FQ_FLOWS = 1024
/** Burst of the policer, as time at its rate. */
const POLICER_BURST_MS = 20

/** What a discipline needs to know of a packet. */
export interface Queued {
  readonly bytes: number
  /** Hash of addresses and ports. */
  readonly flow: number
  /** Time of arrival, ms. */
  readonly at: number
}

/** A queue. `drop` of the constructor is called for each packet that is dropped. */
export interface Discipline<P extends Queued> {
  enqueue(packet: P): void
  /** Takes the next packet to transmit at `now`, ms. */
  dequeue(now: number): P | undefined
}

/**
 * @param perMs rate of the link in bytes per ms
 * @param limit of queued bytes
 */
export function openDiscipline<P extends Queued>(
  name: DisciplineName,
  perMs: number,
  limit: number,
  drop: (packet: P) => void,
): Discipline<P> {
  if (name === 'policer') return new Policer(perMs, drop)
  if (name === 'codel') return new Codel(limit, drop)
  if (name === 'fq_codel') return new FqCodel(limit, drop)
  return new DropTail(limit, drop)
}

/** A first-in first-out queue without shift(), which is slow for long arrays. */
export class Fifo<T> {
  #items: (T | undefined)[] = []
  #first = 0

  get length(): number {
    return this.#items.length - this.#first
  }

  push(item: T): void {
    this.#items.push(item)
  }

  peek(): T | undefined {
    return this.#items[this.#first]
  }

  shift(): T | undefined {
    const item = this.#items[this.#first]
    if (this.#first === this.#items.length) return undefined
    this.#items[this.#first++] = undefined
    if (this.#first > 1024 && this.#first * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#first)
      this.#first = 0
    }
    return item
  }
}

class DropTail<P extends Queued> implements Discipline<P> {
  readonly #queue = new Fifo<P>()
  readonly #limit: number
  readonly #drop: (packet: P) => void
  #bytes = 0

  constructor(limit: number, drop: (packet: P) => void) {
    this.#limit = limit
    this.#drop = drop
  }

  enqueue(packet: P): void {
    // a queue shorter than a packet still takes one
    if (this.#bytes + packet.bytes > Math.max(this.#limit, packet.bytes)) {
      this.#drop(packet)
      return
    }
    this.#bytes += packet.bytes
    this.#queue.push(packet)
  }

  dequeue(): P | undefined {
    const packet = this.#queue.shift()
    if (packet !== undefined) this.#bytes -= packet.bytes
    return packet
  }
}

/** Drops what exceeds a token bucket; what conforms is not delayed. */
class Policer<P extends Queued> implements Discipline<P> {
  readonly #queue = new Fifo<P>()
  readonly #perMs: number
  readonly #drop: (packet: P) => void
  #tokens: number
  #at = 0

  constructor(perMs: number, drop: (packet: P) => void) {
    this.#perMs = perMs
    this.#drop = drop
    this.#tokens = perMs * POLICER_BURST_MS
  }

  enqueue(packet: P): void {
    const { at, bytes } = packet
    this.#tokens = Math.min(this.#perMs * POLICER_BURST_MS, this.#tokens + (at - this.#at) * this.#perMs)
    this.#at = at
    if (this.#tokens < bytes) {
      this.#drop(packet)
      return
    }
    this.#tokens -= bytes
    this.#queue.push(packet)
  }

  dequeue(): P | undefined {
    return this.#queue.shift()
  }
}

/** The control law of CoDel for one queue (RFC 8289, 5). */
class Codel<P extends Queued> implements Discipline<P> {
  readonly queue = new Fifo<P>()
  bytes = 0
  readonly #limit: number
  readonly #drop: (packet: P) => void
  #firstAbove = 0
  #dropNext = 0
  #count = 0
  #lastCount = 0
  #isDropping = false

  constructor(limit: number, drop: (packet: P) => void) {
    this.#limit = limit
    this.#drop = drop
  }

  enqueue(packet: P): void {
    if (this.bytes + packet.bytes > this.#limit) {
      this.#drop(packet)
      return
    }
    this.bytes += packet.bytes
    this.queue.push(packet)
  }

  /** Drops the packet at the head. */
  dropHead(): void {
    const packet = this.#take()
    if (packet !== undefined) this.#drop(packet)
  }

  #take(): P | undefined {
    const packet = this.queue.shift()
    if (packet !== undefined) this.bytes -= packet.bytes
    return packet
  }

  /** Takes a packet; `okToDrop` after an interval with all delays above the target. */
  #next(now: number): { packet: P | undefined; okToDrop: boolean } {
    const packet = this.#take()
    if (packet === undefined) {
      this.#firstAbove = 0
      return { packet, okToDrop: false }
    }
    if (now - packet.at < CODEL_TARGET_MS || this.bytes <= MTU_BYTES) {
      this.#firstAbove = 0
      return { packet, okToDrop: false }
    }
    if (this.#firstAbove === 0) {
      this.#firstAbove = now + CODEL_INTERVAL_MS
      return { packet, okToDrop: false }
    }
    return { packet, okToDrop: now >= this.#firstAbove }
  }

  dequeue(now: number): P | undefined {
    let { packet, okToDrop } = this.#next(now)
    if (packet === undefined) {
      this.#isDropping = false
      return undefined
    }
    if (this.#isDropping) {
      if (!okToDrop) this.#isDropping = false
      while (this.#isDropping && packet !== undefined && now >= this.#dropNext) {
        this.#drop(packet)
        this.#count++
        ;({ packet, okToDrop } = this.#next(now))
        if (okToDrop) this.#dropNext += CODEL_INTERVAL_MS / Math.sqrt(this.#count)
        else this.#isDropping = false
      }
    } else if (okToDrop) {
      this.#drop(packet)
      ;({ packet } = this.#next(now))
      this.#isDropping = true
      const delta = this.#count - this.#lastCount
      this.#count = delta > 1 && now - this.#dropNext < 16 * CODEL_INTERVAL_MS ? delta : 1
      this.#dropNext = now + CODEL_INTERVAL_MS / Math.sqrt(this.#count)
      this.#lastCount = this.#count
    }
    return packet
  }
}

interface FqFlow<P extends Queued> {
  readonly codel: Codel<P>
  deficit: number
  isListed: boolean
}

/** Deficit round robin over CoDel queues, new flows first (RFC 8290, 4). */
class FqCodel<P extends Queued> implements Discipline<P> {
  readonly #flows: FqFlow<P>[]
  readonly #limit: number
  #new: FqFlow<P>[] = []
  #old: FqFlow<P>[] = []
  #bytes = 0

  constructor(limit: number, drop: (packet: P) => void) {
    this.#limit = limit
    const dropped = (packet: P): void => {
      this.#bytes -= packet.bytes
      drop(packet)
    }
    this.#flows = Array.from({ length: FQ_FLOWS }, () => ({
      codel: new Codel<P>(Number.POSITIVE_INFINITY, dropped),
      deficit: 0,
      isListed: false,
    }))
  }

  enqueue(packet: P): void {
    const flow = this.#flows[packet.flow % FQ_FLOWS]
    if (flow === undefined) return
    this.#bytes += packet.bytes
    flow.codel.enqueue(packet)
    if (!flow.isListed) {
      flow.isListed = true
      flow.deficit = MTU_BYTES
      this.#new.push(flow)
    }
    // over the limit: the longest queue loses at its head
    if (this.#bytes > this.#limit) {
      const longest = this.#flows.reduce((most, one) => (one.codel.bytes > most.codel.bytes ? one : most))
      longest.codel.dropHead()
    }
  }

  dequeue(now: number): P | undefined {
    for (;;) {
      const list = this.#new.length > 0 ? this.#new : this.#old
      const flow = list[0]
      if (flow === undefined) return undefined
      if (flow.deficit <= 0) {
        flow.deficit += MTU_BYTES
        list.shift()
        this.#old.push(flow)
        continue
      }
      const packet = flow.codel.dequeue(now)
      if (packet === undefined) {
        // an empty new flow goes through the old ones once
        list.shift()
        if (list === this.#new && this.#old.length > 0) this.#old.push(flow)
        else flow.isListed = false
        continue
      }
      flow.deficit -= packet.bytes
      this.#bytes -= packet.bytes
      return packet
    }
  }
}
