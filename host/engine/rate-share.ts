/**
 * Divides the rate limits of a tunnel among its engines: those of several workers, or of several servers. A few times a
 * second, while something passes, each gets what it used and some more, and those that their part holds back get equal
 * parts of the rest for each of their streams (max-min fairness).
 */

import type { Clock, Timer } from '../runtime.ts'
import type { Core } from './core.ts'

const DIRECTIONS = ['up', 'down'] as const
type Direction = (typeof DIRECTIONS)[number]

/** What an engine passed in one direction since it started, and the streams that took turns under its limit. */
interface Totals {
  readonly bytes: number
  readonly heldMs: number
  readonly streams: number
}

export interface RateUse extends Readonly<Record<Direction, Totals>> {
  /** When it was read, ms by a monotonic clock of the member. */
  readonly at: number
}
/** Parts of the limits, in the unit of `share_rate`. */
export type RateParts = Readonly<Record<Direction, number>>

/** One of several engines, or of several groups of them. */
export interface RateMember {
  rateUse(): RateUse
  shareRate(parts: RateParts): void
}

export const ALL_PARTS: RateParts = { up: 65536, down: 65536 }
export const NO_USE: RateUse = {
  at: 0,
  up: { bytes: 0, heldMs: 0, streams: 0 },
  down: { bytes: 0, heldMs: 0, streams: 0 },
}

/** Interval of the divisions, ms. */
export const RATE_LOOK_MS = 250
/** A member that was held back for this share of the time wants more than it has. */
const HELD_SHARE = 0.1
/** A member that was not gets so much more than it used. */
const HEADROOM = 1.5
/** What a member has at least, of all: this, and with many of them less, so that 5 % in all are kept for idle ones. */
const LEAST = 0.02
const LEAST_OF_ALL = 0.05

/**
 * Reads the totals of an engine.
 * @param at monotonic ms
 * @param now ticks
 */
export function readRateUse(core: Core, at: number, now: number): RateUse {
  core.calls.refresh_gauges(now)
  const count = (name: Parameters<Core['counter']>[0]): number => Number(core.counter(name))
  return {
    at,
    up: { bytes: count('tcp_read_bytes'), heldMs: count('rate_up_held_ms'), streams: count('rate_up_streams') },
    down: {
      bytes: count('tcp_written_bytes'),
      heldMs: count('rate_down_held_ms'),
      streams: count('rate_down_streams'),
    },
  }
}

/** The totals of several engines. */
export function sumRateUse(uses: readonly RateUse[]): RateUse {
  const sum = (direction: Direction): Totals => ({
    bytes: uses.reduce((all, use) => all + use[direction].bytes, 0),
    heldMs: uses.reduce((all, use) => all + use[direction].heldMs, 0),
    streams: uses.reduce((all, use) => all + use[direction].streams, 0),
  })
  return { at: Math.max(0, ...uses.map(({ at }) => at)), up: sum('up'), down: sum('down') }
}

/** A member that says nothing for so many intervals passes nothing. */
const MISSES_MAX = 2

/** A number that grows while a member passes something or waits for its limit. */
export const activityOf = ({ up, down }: RateUse): number => up.bytes + up.heldMs + down.bytes + down.heldMs

/** What a member wants of the rate. */
export interface Demand {
  /** What it used, 1 = all. */
  readonly used: number
  readonly isHeld: boolean
  readonly streams: number
}

/** What is known of a member. */
interface Known {
  readonly use: RateUse
  readonly demands: Readonly<Record<Direction, Demand>>
  /** Intervals without news. */
  readonly misses: number
}

const NO_DEMAND: Demand = { used: 0, isHeld: false, streams: 0 }
const NO_DEMANDS = { up: NO_DEMAND, down: NO_DEMAND }

/** @param kbit the rate that all have */
function demandOf(before: RateUse, use: RateUse, direction: Direction, kbit: number): Demand {
  const ms = use.at - before.at
  // a fresh engine or process begins with 0
  const grown = (name: 'bytes' | 'heldMs'): number => Math.max(0, use[direction][name] - before[direction][name])
  const used = kbit === 0 ? 0 : (8 * grown('bytes')) / ms / kbit
  return { used, isHeld: grown('heldMs') > HELD_SHARE * ms, streams: use[direction].streams }
}

/** @returns the share of each member; their sum is 1 */
export function divide(demands: readonly Demand[]): number[] {
  const least = Math.min(LEAST, LEAST_OF_ALL / demands.length)
  const wanted = demands.map(({ used, isHeld }) => (isHeld ? 1 : least + HEADROOM * used))
  const weights = demands.map(({ streams }) => Math.max(1, streams))
  const shares = demands.map(() => least)
  let rest = 1 - least * demands.length
  let open = demands.map((_, i) => i)
  // terminates: each round but the last satisfies at least one member
  for (;;) {
    const weight = open.reduce((sum, i) => sum + (weights[i] ?? 1), 0)
    const fair = (i: number): number => (rest * (weights[i] ?? 1)) / weight
    const modest = open.filter((i) => (wanted[i] ?? 0) - least <= fair(i))
    if (modest.length === 0 || modest.length === open.length) {
      // who wants less than there is gets what is left, too
      for (const i of open) shares[i] = least + fair(i)
      return shares
    }
    for (const i of modest) shares[i] = wanted[i] ?? least
    for (const i of modest) rest -= (wanted[i] ?? least) - least
    open = open.filter((i) => !modest.includes(i))
  }
}

export class RateShare {
  readonly #clock: Clock
  readonly #members: () => readonly RateMember[]
  readonly #limits: () => Readonly<Record<Direction, number>>
  #known = new Map<RateMember, Known>()
  #shares = new Map<RateMember, Readonly<Record<Direction, number>>>()
  /** The parts that each member was given. */
  #given = new Map<RateMember, RateParts>()
  /** What a member does because of its part is no reason to look again. */
  #isApplying = false
  /** What the members have together. */
  #parts = ALL_PARTS
  #timer: Timer | undefined

  /** @param limits of the configuration in force, Mbit/s */
  constructor(clock: Clock, members: () => readonly RateMember[], limits: () => Readonly<Record<Direction, number>>) {
    this.#clock = clock
    this.#members = members
    this.#limits = limits
  }

  get #isNeeded(): boolean {
    const { up, down } = this.#limits()
    return up + down > 0 && this.#members().length > 1
  }

  /** Members or limits have changed: all begin with equal parts. */
  reset(): void {
    this.#stop()
    this.#shares.clear()
    this.#apply()
    this.wake()
  }

  /** Sets what the members have together. */
  set parts(parts: RateParts) {
    this.#parts = parts
    this.#apply()
  }

  /** To be called when something passes. */
  wake(): void {
    if (this.#timer !== undefined || this.#isApplying || !this.#isNeeded) return
    this.#mark()
    this.#timer = this.#clock.setTimer(this.#look, RATE_LOOK_MS)
  }

  close(): void {
    this.#stop()
  }

  #stop(): void {
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  #mark(): void {
    const known = (use: RateUse): Known => ({ use, demands: NO_DEMANDS, misses: 0 })
    this.#known = new Map(this.#members().map((member) => [member, known(member.rateUse())]))
  }

  #apply(): void {
    const members = this.#members()
    const isNeeded = this.#isNeeded
    const given = new Map<RateMember, RateParts>()
    this.#isApplying = true
    for (const member of members) {
      const of = (direction: Direction): number => {
        const share = this.#shares.get(member)?.[direction] ?? 1 / members.length
        return Math.floor(this.#parts[direction] * (isNeeded ? share : 1))
      }
      const parts = { up: of('up'), down: of('down') }
      const before = this.#given.get(member) ?? ALL_PARTS
      if (parts.up !== before.up || parts.down !== before.down) member.shareRate(parts)
      given.set(member, parts)
    }
    this.#isApplying = false
    this.#given = given
  }

  #learn(member: RateMember): Known {
    const use = member.rateUse()
    const before = this.#known.get(member)
    if (before === undefined) return { use, demands: NO_DEMANDS, misses: 0 }
    if (use.at <= before.use.at) {
      const misses = before.misses + 1
      return { use, demands: misses > MISSES_MAX ? NO_DEMANDS : before.demands, misses }
    }
    const of = (direction: Direction): Demand => {
      const kbit = (this.#limits()[direction] * 1000 * this.#parts[direction]) / ALL_PARTS[direction]
      return demandOf(before.use, use, direction, kbit)
    }
    return { use, demands: { up: of('up'), down: of('down') }, misses: 0 }
  }

  readonly #look = (): void => {
    this.#timer = undefined
    if (!this.#isNeeded) return
    const members = this.#members()
    this.#known = new Map(members.map((member) => [member, this.#learn(member)]))
    const demands = [...this.#known.values()].map((known) => known.demands)
    const [up, down] = DIRECTIONS.map((direction) => divide(demands.map((demand) => demand[direction])))
    this.#shares = new Map(members.map((member, i) => [member, { up: up?.[i] ?? 1, down: down?.[i] ?? 1 }]))
    this.#apply()
    const isActive = demands.some((demand) =>
      DIRECTIONS.some((direction) => demand[direction].used > 0 || demand[direction].isHeld),
    )
    if (isActive) this.#timer = this.#clock.setTimer(this.#look, RATE_LOOK_MS)
  }
}
