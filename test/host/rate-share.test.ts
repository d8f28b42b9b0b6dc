/** The division of a tunnel's rate limits among its engines. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  type Demand,
  divide,
  type RateMember,
  type RateParts,
  RateShare,
  type RateUse,
} from '../../host/engine/rate-share.ts'
import type { Timer } from '../../host/runtime.ts'

const test = suite('rate share')

const idle: Demand = { used: 0, isHeld: false, streams: 0 }
const held = (used: number, streams = 1): Demand => ({ used, isHeld: true, streams })
const uses = (used: number): Demand => ({ used, isHeld: false, streams: 1 })

/** Shares in percent. */
function shares(...demands: readonly Demand[]): number[] {
  const found = divide(demands)
  const sum = found.reduce((a, b) => a + b, 0)
  assert.ok(Math.abs(sum - 1) < 1e-9, `the sum is ${sum}`)
  return found.map((share) => Math.round(100 * share))
}

test('who is held back gets what others leave, in equal parts for each stream', () => {
  assert.equal(shares(held(0.5), idle), [98, 2])
  assert.equal(shares(held(0.3), held(0.2)), [50, 50])
  assert.equal(shares(held(0.3, 3), held(0.2, 1)), [74, 26])
  assert.equal(shares(held(0.5), uses(0.2)), [68, 32])
  assert.equal(shares(held(0.1), uses(0.8)), [50, 50], 'nobody keeps more than the share of all')
})

test('nobody is left without, and idle members cost 5 % at most', () => {
  assert.equal(shares(idle, idle), [50, 50])
  assert.equal(shares(uses(0.3), idle), [50, 50])
  assert.equal(shares(uses(0.6), idle), [98, 2])
  const many = divide([held(1), ...Array.from({ length: 15 }, () => idle)])
  assert.ok((many[0] ?? 0) > 0.95)
  assert.ok(many.every((share) => share > 0.003))
})

/** Two members that want `wants` kbit/s and pass what their parts allow. */
class World {
  now = 0
  timers = 0
  wants: number[]
  readonly limit: number
  readonly parts: RateParts[]
  readonly totals: { bytes: number; heldMs: number }[]
  readonly share: RateShare
  #timer: { at: number; run: () => void } | undefined

  constructor(limit: number, ...wants: number[]) {
    this.wants = wants
    this.limit = limit
    this.parts = wants.map(() => ({ up: 65536, down: 65536 }))
    this.totals = wants.map(() => ({ bytes: 0, heldMs: 0 }))
    const members = wants.map((_, i): RateMember => {
      const none = { bytes: 0, heldMs: 0, streams: 0 }
      return {
        rateUse: (): RateUse => ({ at: this.now, up: { ...(this.totals[i] ?? none), streams: 1 }, down: none }),
        shareRate: (parts) => {
          this.parts[i] = parts
        },
      }
    })
    const clock = {
      monotonic: () => this.now,
      wall: () => this.now,
      setTimer: (run: () => void, ms: number) => {
        this.timers++
        this.#timer = { at: this.now + ms, run }
        return {} as Timer
      },
      clearTimer: () => {
        this.#timer = undefined
      },
      defer: () => ({}) as Timer,
      clearDeferred: () => {},
    }
    this.share = new RateShare(
      clock,
      () => members,
      () => ({ up: limit, down: 0 }),
    )
  }

  /** kbit/s of each member during `ms`. */
  run(ms: number): number[] {
    const before = this.totals.map(({ bytes }) => bytes)
    for (let i = 0; i < ms; i++) {
      this.now++
      for (const [member, total] of this.totals.entries()) {
        const allowed = (this.limit * 1000 * (this.parts[member]?.up ?? 0)) / 65536
        const wanted = this.wants[member] ?? 0
        total.bytes += Math.min(wanted, allowed) / 8
        if (wanted > allowed) total.heldMs++
        if (wanted > 0) this.share.wake()
      }
      if (this.#timer !== undefined && this.#timer.at <= this.now) {
        const { run } = this.#timer
        this.#timer = undefined
        run()
      }
    }
    return this.totals.map(({ bytes }, i) => Math.round(((bytes - (before[i] ?? 0)) * 8) / ms))
  }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

test('members that change what they want have the whole limit within a second, and never more', () => {
  const world = new World(10, 20_000, 20_000)
  world.share.reset()
  for (const [wants, expected] of [
    [
      [20_000, 20_000],
      [5000, 5000],
    ],
    [
      [20_000, 0],
      [9800, 0],
    ],
    [
      [0, 20_000],
      [0, 9800],
    ],
    [
      [20_000, 1000],
      [8500, 1000],
    ],
    [
      [4000, 3000],
      [4000, 3000],
    ],
    [
      [20_000, 20_000],
      [5000, 5000],
    ],
  ] as const) {
    world.wants = [...wants]
    world.run(1000)
    const rates = world.run(2000)
    assert.ok(sum(rates) <= 10_000, `${rates}`)
    for (const [i, rate] of rates.entries()) assert.ok(Math.abs(rate - (expected[i] ?? 0)) <= 400, `${wants}: ${rates}`)
  }
})

test('nothing is looked at while nothing passes', () => {
  const world = new World(10, 1000, 1000)
  world.share.reset()
  world.run(1000)
  world.wants = [0, 0]
  world.run(1000)
  const before = world.timers
  world.run(100_000)
  assert.is(world.timers, before)
})

test('a group passes on what it has itself', () => {
  const world = new World(10, 20_000, 20_000)
  world.share.reset()
  world.run(1000)
  world.share.parts = { up: 16_384, down: 65_536 }
  assert.ok(Math.abs(sum(world.run(2000)) - 2500) < 50)
})

test.run()
