/**
 * A competing TCP flow with BBR version 1 as in Linux (tcp_bbr.c): bandwidth of ten rounds, minimum RTT of ten seconds,
 * STARTUP, DRAIN, the cycle of eight gains, PROBE_RTT, a window of two bandwidth-delay products. Losses are repaired and
 * do not reduce the rate. Without the detection of policers.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import type { Bottleneck } from './bottleneck.ts'
import { Host } from './host.ts'
import type { Packets } from './packets.ts'

const PACKET_BYTES = 1400
const HIGH_GAIN = 2.885
const CYCLE = [1.25, 0.75, 1, 1, 1, 1, 1, 1] as const
const WINDOW_GAIN = 2
const INITIAL_WINDOW = 10
const MIN_WINDOW = 4
const BANDWIDTH_ROUNDS = 10
const MIN_RTT_TICKS = 10_000 * TICKS_PER_MS
const PROBE_RTT_TICKS = 200 * TICKS_PER_MS
const MIN_RTO_TICKS = 200 * TICKS_PER_MS
const DUPLICATE_THRESHOLD = 3
/** Limit of outstanding packets, a power of two. */
const RING = 1 << 17

const IN_FLIGHT = 1
const LOST = 2
const ARRIVED = 3

export class BbrSender extends Host {
  readonly #startAt: number
  readonly #stopAt: number
  readonly #state = new Uint8Array(RING)
  readonly #sentAt = new Float64Array(RING)
  readonly #order = new Float64Array(RING)
  // at the transmission: packets delivered, when the last of them was, and when that one had been sent
  readonly #delivered = new Float64Array(RING)
  readonly #deliveredAt = new Float64Array(RING)
  readonly #firstSentAt = new Float64Array(RING)
  #transmissions = 0
  #newestArrived = 0
  #una = 0
  #nxt = 0
  #pipe = 0
  #lostCount = 0
  #scan = 0
  #srtt = 0
  #count = 0
  #countAt = 0
  #newestSentAt = 0
  #round = 0
  #roundEnd = 0
  readonly #rates: number[] = new Array<number>(BANDWIDTH_ROUNDS).fill(0)
  #minRtt = Infinity
  #minRttAt = 0
  #mode: 'startup' | 'drain' | 'cycle' | 'rtt' = 'startup'
  #full = 0
  #flatRounds = 0
  #phase = 0
  #phaseAt = 0
  #hasLost = false
  #probeRttUntil = 0
  #nextSendAt = 0

  constructor(number: number, packets: Packets, out: Bottleneck, startAt: number, stopAt: number) {
    super(number, packets, out)
    this.#startAt = startAt
    this.#stopAt = stopAt
  }

  start(): void {
    this.deadline = this.#startAt
  }

  get #bandwidth(): number {
    return Math.max(...this.#rates)
  }

  get #product(): number {
    return this.#bandwidth * this.#minRtt
  }

  get #gain(): number {
    if (this.#mode === 'startup') return HIGH_GAIN
    if (this.#mode === 'drain') return 1 / HIGH_GAIN
    return this.#mode === 'rtt' ? 1 : (CYCLE[this.#phase] ?? 1)
  }

  get #window(): number {
    if (this.#bandwidth === 0) return INITIAL_WINDOW
    if (this.#mode === 'rtt') return MIN_WINDOW
    const gain = this.#mode === 'cycle' ? WINDOW_GAIN : HIGH_GAIN
    return Math.max(MIN_WINDOW, Math.ceil(gain * this.#product) + 3)
  }

  #transmit(sn: number, now: number): void {
    const at = sn & (RING - 1)
    if (this.#pipe === 0) this.#newestSentAt = this.#countAt = now
    this.#state[at] = IN_FLIGHT
    this.#sentAt[at] = now
    this.#order[at] = ++this.#transmissions
    this.#delivered[at] = this.#count
    this.#deliveredAt[at] = this.#countAt
    this.#firstSentAt[at] = this.#newestSentAt
    this.#pipe++
    const slot = this.packets.take()
    this.packets.first[slot] = sn
    this.packets.second[slot] = this.#transmissions
    this.send(slot, PACKET_BYTES, now)
  }

  #next(now: number): number {
    if (this.#lostCount > 0) {
      while (this.#scan < this.#nxt && this.#state[this.#scan & (RING - 1)] !== LOST) this.#scan++
      if (this.#scan < this.#nxt) {
        this.#lostCount--
        return this.#scan++
      }
      this.#lostCount = 0
    }
    return this.#nxt - this.#una >= RING || now >= this.#stopAt ? -1 : this.#nxt++
  }

  #pump(now: number): void {
    let isPaced = false
    while (this.#pipe < this.#window) {
      isPaced = this.#nextSendAt > now
      if (isPaced) break
      const sn = this.#next(now)
      if (sn < 0) break
      this.#transmit(sn, now)
      const rate = this.#bandwidth
      const gap = rate === 0 ? 0 : 1 / (0.99 * this.#gain * rate)
      this.#nextSendAt = Math.max(this.#nextSendAt, now - 1) + gap
    }
    const rto = this.#srtt === 0 ? 1000 * TICKS_PER_MS : Math.max(MIN_RTO_TICKS, 3 * this.#srtt)
    this.deadline = isPaced ? Math.ceil(this.#nextSendAt) : this.#una === this.#nxt ? Infinity : Math.ceil(now + rto)
    this.#isPaced = isPaced
  }
  #isPaced = false

  receive(now: number): void {
    for (let i = 0; i < this.inboxCount; i++) {
      const slot = this.inbox[i] ?? 0
      const sn = this.packets.first[slot] ?? 0
      const una = this.packets.second[slot] ?? 0
      this.packets.drop(slot)
      this.#acknowledge(sn, una, now)
    }
    this.inboxCount = 0
    this.#pump(now)
  }

  #acknowledge(sn: number, una: number, now: number): void {
    const at = sn & (RING - 1)
    if (sn >= this.#una && sn < this.#nxt && this.#state[at] !== ARRIVED) {
      const state = this.#state[at]
      if (state === IN_FLIGHT) this.#pipe--
      else this.#lostCount--
      this.#state[at] = ARRIVED
      this.#newestArrived = Math.max(this.#newestArrived, this.#order[at] ?? 0)
      this.#count++
      this.#countAt = now
      const sentAt = this.#sentAt[at] ?? 0
      if (state === IN_FLIGHT) this.#sample(at, sentAt, now)
    }
    while (this.#una < una) this.#una++
    if (this.#scan < this.#una) this.#scan = this.#una
    for (let n = this.#una; n < sn; n++) {
      const other = n & (RING - 1)
      if (this.#state[other] !== IN_FLIGHT) continue
      if ((this.#order[other] ?? 0) + DUPLICATE_THRESHOLD > this.#newestArrived) continue
      this.#lose(n)
    }
    this.#advance(now)
  }

  #lose(sn: number): void {
    this.#state[sn & (RING - 1)] = LOST
    this.#pipe--
    this.#lostCount++
    this.#hasLost = true
    if (sn < this.#scan) this.#scan = sn
  }

  #sample(at: number, sentAt: number, now: number): void {
    const rtt = now - sentAt
    this.#srtt = this.#srtt === 0 ? rtt : this.#srtt + (rtt - this.#srtt) / 8
    const expired = now - this.#minRttAt > MIN_RTT_TICKS
    if (rtt <= this.#minRtt || expired) {
      this.#minRtt = rtt
      this.#minRttAt = now
    }
    if (expired && this.#mode !== 'rtt') {
      this.#mode = 'rtt'
      this.#probeRttUntil = 0
    }
    const prior = this.#delivered[at] ?? 0
    if (prior >= this.#roundEnd) {
      this.#roundEnd = this.#count
      this.#rates[++this.#round % BANDWIDTH_ROUNDS] = 0
      this.#checkFull()
    }
    const interval = Math.max(sentAt - (this.#firstSentAt[at] ?? 0), now - (this.#deliveredAt[at] ?? 0))
    this.#newestSentAt = sentAt
    if (interval < this.#minRtt) return
    const slot = this.#round % BANDWIDTH_ROUNDS
    this.#rates[slot] = Math.max(this.#rates[slot] ?? 0, (this.#count - prior) / interval)
  }

  #checkFull(): void {
    if (this.#mode !== 'startup') return
    const rate = this.#bandwidth
    if (rate >= 1.25 * this.#full) {
      this.#full = rate
      this.#flatRounds = 0
    } else if (++this.#flatRounds >= 3) this.#mode = 'drain'
  }

  #advance(now: number): void {
    if (this.#mode === 'drain' && this.#pipe <= this.#product) this.#enterCycle(now)
    if (this.#mode === 'rtt') {
      if (this.#probeRttUntil === 0 && this.#pipe <= MIN_WINDOW)
        this.#probeRttUntil = now + PROBE_RTT_TICKS + this.#srtt
      if (this.#probeRttUntil !== 0 && now >= this.#probeRttUntil) {
        this.#minRttAt = now
        this.#enterCycle(now)
      }
      return
    }
    if (this.#mode !== 'cycle') return
    const inPhase = now - this.#phaseAt
    const gain = CYCLE[this.#phase] ?? 1
    const isOver =
      gain > 1
        ? inPhase > this.#minRtt && (this.#hasLost || this.#pipe >= gain * this.#product)
        : inPhase > this.#minRtt || (gain < 1 && this.#pipe <= this.#product)
    if (!isOver) return
    this.#phase = (this.#phase + 1) % CYCLE.length
    this.#phaseAt = now
    this.#hasLost = false
  }

  #enterCycle(now: number): void {
    this.#mode = 'cycle'
    this.#phase = 2
    this.#phaseAt = now
  }

  expire(now: number): void {
    if (!this.#isPaced && this.#una < this.#nxt) {
      for (let sn = this.#una; sn < this.#nxt; sn++) if (this.#state[sn & (RING - 1)] === IN_FLIGHT) this.#lose(sn)
    }
    this.#pump(now)
  }
}
