/**
 * Round trip measurement: the first answer of a peer, and a train of PINGs with statistics (protocol.md 7.1).
 */
import type { SocketAddress } from '../../net/address.ts'
import type { Probe } from './probe.ts'
import type { Answer, Cipher } from './voice.ts'

/** Pauses between the first pings to a peer, ms. */
const FIRST_PAUSES_MS = [200, 300, 500, 500, 500, 1000, 1000]
/** Interval between two pings of a train, ms. */
export const TRAIN_SPACING_MS = 20
/** Limits of the wait for late answers after a train, ms. */
const LATE_MIN_MS = 300
const LATE_MAX_MS = 3000

export interface TrainStats {
  readonly sent: number
  readonly answered: number
  /** Share of pings without an answer, 0..1. */
  readonly loss: number
  readonly minMs: number
  readonly medianMs: number
  readonly p95Ms: number
  readonly maxMs: number
  /** Mean difference of successive round trip times, ms. */
  readonly jitterMs: number
  /** Answers that arrived after the answer to a later ping. */
  readonly reordered: number
  readonly duplicated: number
  /** 95th percentile of the delay of our own timer, ms: the error that a busy machine adds. */
  readonly timerLateMs: number
}

/** Sends numbered pings and records the answers. */
export class Pinger {
  /** RTT in ms by number. */
  readonly answers = new Map<number, number>()
  /** Numbers in the order of their answers. */
  readonly order: number[] = []
  duplicated = 0
  readonly #probe: Probe
  readonly #sentAt = new Map<number, number>()

  constructor(probe: Probe) {
    this.#probe = probe
  }

  /** Sends a ping. @param bytes size of the datagram; 0: a regular ping. @returns its number */
  send(to: SocketAddress, bytes = 0, cipher?: Cipher): number {
    const sentAt = this.#probe.now()
    const number = this.#probe.ping(to, bytes, cipher)
    this.#sentAt.set(number, sentAt)
    return number
  }

  /**
   * Records an answer.
   * @returns false if it answers none of our pings
   */
  take({ number, at }: Pick<Answer, 'number' | 'at'>): boolean {
    const sentAt = this.#sentAt.get(number)
    if (sentAt === undefined) return false
    if (this.answers.has(number)) {
      this.duplicated++
      return true
    }
    this.answers.set(number, at - sentAt)
    this.order.push(number)
    return true
  }
}

/**
 * Pings until the first answer, for up to 4 seconds. Network errors other than repeated refusals do not end it: they
 * may be temporary.
 * @returns round trip time in ms; undefined without an answer
 */
export async function firstAnswer(probe: Probe, pinger: Pinger, to: SocketAddress): Promise<number | undefined> {
  const refused = (): number => probe.errors.get('ECONNREFUSED') ?? 0
  for (const pause of FIRST_PAUSES_MS) {
    pinger.send(to)
    if (await probe.until(() => pinger.answers.size > 0, pause)) break
    // a second refusal is conclusive
    if (refused() > 1) break
  }
  return pinger.answers.values().next().value
}

/**
 * Pings for `seconds` at a constant rate.
 * @param onProgress called periodically with pings sent, answers so far, total number of pings
 */
export async function train(
  probe: Probe,
  pinger: Pinger,
  to: SocketAddress,
  seconds: number,
  onProgress: (sent: number, answered: number, total: number) => void,
): Promise<TrainStats> {
  const total = Math.max(Math.round((seconds * 1000) / TRAIN_SPACING_MS), 1)
  const numbers: number[] = []
  const late: number[] = []
  const begin = probe.now()
  const answered = (): number => numbers.reduce((sum, number) => sum + (pinger.answers.has(number) ? 1 : 0), 0)
  const duplicatedBefore = pinger.duplicated
  while (numbers.length < total) {
    const due = begin + numbers.length * TRAIN_SPACING_MS
    const rest = due - probe.now()
    if (rest > 0) {
      await new Promise((resolve) => setTimeout(resolve, rest))
      late.push(Math.max(probe.now() - due, 0))
    }
    numbers.push(pinger.send(to))
    if (numbers.length % 10 === 0) onProgress(numbers.length, answered(), total)
  }
  const spread = summarize(numbers, pinger, 0, late)
  const wait = Math.min(Math.max(2 * (Number.isFinite(spread.maxMs) ? spread.maxMs : 0), LATE_MIN_MS), LATE_MAX_MS)
  await probe.until(() => answered() === total, wait)
  return summarize(numbers, pinger, pinger.duplicated - duplicatedBefore, late)
}

/** The quantile `share` of a sorted list; NaN for an empty list. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? Number.NaN
}

/** Computes the statistics of the pings with these numbers. */
export function summarize(
  numbers: readonly number[],
  pinger: Pick<Pinger, 'answers' | 'order'>,
  duplicated: number,
  late: readonly number[],
): TrainStats {
  const times = numbers.flatMap((number) => pinger.answers.get(number) ?? [])
  const sorted = times.toSorted((a, b) => a - b)
  let change = 0
  for (let i = 1; i < times.length; i++) change += Math.abs((times[i] ?? 0) - (times[i - 1] ?? 0))
  const place = new Map(numbers.map((number, index) => [number, index]))
  let reordered = 0
  let latest = -1
  for (const number of pinger.order) {
    const index = place.get(number)
    if (index === undefined) continue
    if (index < latest) reordered++
    else latest = index
  }
  return {
    sent: numbers.length,
    answered: times.length,
    loss: numbers.length === 0 ? 0 : 1 - times.length / numbers.length,
    minMs: quantile(sorted, 0),
    medianMs: quantile(sorted, 0.5),
    p95Ms: quantile(sorted, 0.95),
    maxMs: quantile(sorted, 1),
    jitterMs: times.length < 2 ? 0 : change / (times.length - 1),
    reordered,
    duplicated,
    timerLateMs:
      late.length === 0
        ? 0
        : quantile(
            late.toSorted((a, b) => a - b),
            0.95,
          ),
  }
}
