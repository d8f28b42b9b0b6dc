/**
 * A competing TCP flow with BBR version 1 as in Linux (tcp_bbr.c): bandwidth of ten rounds, minimum RTT of ten seconds,
 * STARTUP, DRAIN, the cycle of eight gains, PROBE_RTT, a window of two bandwidth-delay products. Losses are repaired and
 * do not reduce the rate. Without the detection of policers.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import { INITIAL_WINDOW, MIN_RTO_TICKS, RING, Sender } from './tcp.ts'

const HIGH_GAIN = 2.885
const CYCLE = [1.25, 0.75, 1, 1, 1, 1, 1, 1] as const
const WINDOW_GAIN = 2
const MIN_WINDOW = 4
const BANDWIDTH_ROUNDS = 10
const MIN_RTT_TICKS = 10_000 * TICKS_PER_MS
const PROBE_RTT_TICKS = 200 * TICKS_PER_MS
export class BbrSender extends Sender {
  // at the transmission: packets delivered, when the last of them was, and when that one had been sent
  readonly #delivered = new Float64Array(RING)
  readonly #deliveredAt = new Float64Array(RING)
  readonly #firstSentAt = new Float64Array(RING)
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
  #isPaced = false

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

  #transmit(now: number): boolean {
    if (this.pipe === 0) this.#newestSentAt = this.#countAt = now
    const at = this.transmitNext(now)
    if (at < 0) return false
    this.#delivered[at] = this.#count
    this.#deliveredAt[at] = this.#countAt
    this.#firstSentAt[at] = this.#newestSentAt
    return true
  }

  protected pump(now: number): void {
    this.#isPaced = false
    while (this.pipe < this.#window) {
      this.#isPaced = this.#nextSendAt > now
      if (this.#isPaced || !this.#transmit(now)) break
      const rate = this.#bandwidth
      const gap = rate === 0 ? 0 : 1 / (0.99 * this.#gain * rate)
      this.#nextSendAt = Math.max(this.#nextSendAt, now - 1) + gap
    }
    const rto = this.#srtt === 0 ? 1000 * TICKS_PER_MS : Math.max(MIN_RTO_TICKS, 3 * this.#srtt)
    const idle = this.una === this.nxt ? Infinity : Math.ceil(now + rto)
    this.deadline = this.#isPaced ? Math.ceil(this.#nextSendAt) : idle
  }

  protected onArrived(at: number, sentAt: number, inFlight: boolean, now: number): void {
    this.#count++
    this.#countAt = now
    if (inFlight) this.#sample(at, sentAt, now)
  }

  protected onHandled(_acked: number, lost: readonly number[], now: number): void {
    if (lost.length > 0) this.#hasLost = true
    this.#advance(now)
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
    if (this.#mode === 'drain' && this.pipe <= this.#product) this.#enterCycle(now)
    if (this.#mode === 'rtt') {
      if (this.#probeRttUntil === 0 && this.pipe <= MIN_WINDOW) this.#probeRttUntil = now + PROBE_RTT_TICKS + this.#srtt
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
        ? inPhase > this.#minRtt && (this.#hasLost || this.pipe >= gain * this.#product)
        : inPhase > this.#minRtt || (gain < 1 && this.pipe <= this.#product)
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
    if (!this.#isPaced) this.loseAll()
    this.pump(now)
  }
}
