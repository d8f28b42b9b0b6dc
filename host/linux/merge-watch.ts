/**
 * Finds out that datagrams which the kernel merges on arrival (UDP_GRO) are lost: a firewall that matches by length, or
 * a virtual interface, drops what the interface has merged already, and nothing reports it. Then only datagrams that
 * arrive alone reach the socket.
 *
 * Merging is switched off for a short trial once nothing but single datagrams has arrived for a while, neither merged
 * nor several at once. If several arrive at once during the trial, and again only single ones after it, twice, merged
 * ones are lost. A slow path looks the same until the trial, which costs nothing there; failed trials become rare.
 */

/** Shorter datagrams are not data in bulk and do not count. */
const MIN_BYTES = 512
/** A message that is longer was merged, and a rule against long packets would have dropped it. */
const MAX_PACKET_BYTES = 1500
/** Single datagrams, and time in ms with nothing else, before a trial, and before the one that confirms it. */
const MIN_LONE = 6
const MIN_LONE_MS = 500
const MIN_CONFIRMING_LONE = 3
const MIN_CONFIRMING_LONE_MS = 200
/** Length of a trial in ms, datagrams that end it then, and its length without them. */
const TRIAL_MS = 500
const TRIAL_DATAGRAMS = 32
const MAX_TRIAL_MS = 3000
/** Datagrams that arrived together with the one before, and their share of all, in a trial that succeeds. */
const MIN_TOGETHER = 16
const MIN_TOGETHER_SHARE = 0.5
const SUCCESSES = 2
/** After a trial what waits in the socket still arrives unmerged for some ms. */
const GRACE_MS = 100
/** While merging is on, so many datagrams that arrived together unmerged show that bursts arrive. */
const MAX_TOGETHER = 8
/** Pause after a failed trial in ms; it doubles. */
const FIRST_PAUSE_MS = 2000
const MAX_PAUSE_MS = 600_000
/** Merging is tried again after this time in ms: the network may have changed. */
const OFF_MS = 3_600_000

export interface MergeWatchOptions {
  /** Monotonic ms. */
  now(): number
  /** Sets UDP_GRO of the socket. */
  setMerging(isOn: boolean): void
  /** Merged datagrams are lost; merging is off now. */
  onLost(): void
}

export class MergeWatch {
  readonly #options: MergeWatchOptions
  // of the present receive call: messages with one datagram, those right after one of the same sender and size, merged
  #callLone = 0
  #callTogether = 0
  #callMerged = 0
  #sender: object | undefined
  #bytes = 0
  #state: 'on' | 'trial' | 'off' = 'on'
  /** When the state began; in `on`, when the first of the single datagrams arrived. */
  #since = 0
  #lone = 0
  #together = 0
  #successes = 0
  /** 0: no trial ended just now. */
  #graceUntil = 0
  #nextTrialAt = Number.NEGATIVE_INFINITY
  #pauseMs = FIRST_PAUSE_MS

  constructor(options: MergeWatchOptions) {
    this.#options = options
  }

  /** A receive call returned a message. `sender`: the same object for the same address. */
  message(sender: object, bytes: number): void {
    if (bytes > MAX_PACKET_BYTES) this.#callMerged++
    else if (bytes >= MIN_BYTES) {
      this.#callLone++
      if (sender === this.#sender && bytes === this.#bytes) this.#callTogether++
    }
    this.#sender = sender
    this.#bytes = bytes
  }

  /** All messages of the receive call were passed to message(). */
  endCall(): void {
    const lone = this.#callLone
    const together = this.#callTogether
    const merged = this.#callMerged
    this.#sender = undefined
    if (lone + merged === 0) return
    this.#callLone = this.#callTogether = this.#callMerged = 0
    if (this.#state === 'on') this.#whileOn(lone, together, merged)
    else if (this.#state === 'trial') this.#inTrial(lone, together)
    else if (this.#options.now() - this.#since > OFF_MS) {
      this.#options.setMerging(true)
      this.#restart()
    }
  }

  #whileOn(lone: number, together: number, merged: number): void {
    if (this.#graceUntil !== 0) {
      if (this.#options.now() < this.#graceUntil) return
      this.#graceUntil = 0
    }
    this.#together += together
    if (merged > 0 || this.#together >= MAX_TOGETHER) {
      this.#restart()
      return
    }
    if (together > 0) {
      this.#lone = 0
      return
    }
    const now = this.#options.now()
    if (this.#lone === 0) this.#since = now
    this.#lone += lone
    const [least, leastMs] =
      this.#successes === 0 ? [MIN_LONE, MIN_LONE_MS] : [MIN_CONFIRMING_LONE, MIN_CONFIRMING_LONE_MS]
    if (this.#lone < least || now - this.#since < leastMs || now < this.#nextTrialAt) return
    this.#options.setMerging(false)
    this.#state = 'trial'
    this.#since = now
    this.#lone = this.#together = 0
  }

  #inTrial(lone: number, together: number): void {
    const now = this.#options.now()
    this.#lone += lone
    this.#together += together
    const age = now - this.#since
    if (age < TRIAL_MS || (this.#lone < TRIAL_DATAGRAMS && age < MAX_TRIAL_MS)) return
    const isSuccess = this.#together >= MIN_TOGETHER && this.#together >= this.#lone * MIN_TOGETHER_SHARE
    if (isSuccess && ++this.#successes === SUCCESSES) {
      this.#state = 'off'
      this.#since = now
      this.#options.onLost()
      return
    }
    this.#options.setMerging(true)
    this.#state = 'on'
    this.#lone = this.#together = 0
    this.#graceUntil = now + GRACE_MS
    if (isSuccess) return
    this.#successes = 0
    this.#nextTrialAt = now + this.#pauseMs
    this.#pauseMs = Math.min(this.#pauseMs * 2, MAX_PAUSE_MS)
  }

  /** Merged datagrams, or several at once, arrive. */
  #restart(): void {
    this.#state = 'on'
    this.#lone = this.#together = this.#successes = 0
    this.#pauseMs = FIRST_PAUSE_MS
  }
}
