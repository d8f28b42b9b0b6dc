/** The simulation loop: hosts, both directions of the path between them, and one clock in engine ticks. */
import type { Bottleneck } from './bottleneck.ts'
import type { Host } from './host.ts'
import { NONE, type Packets } from './packets.ts'

/** Wake-ups of a host at one tick that count as a busy loop. */
const WAKES_AT_ONCE_MAX = 1000

export class Network {
  readonly #hosts: readonly Host[]
  readonly #paths: readonly Bottleneck[]
  readonly #packets: Packets
  readonly #woken: Host[] = []
  now = 0

  constructor(packets: Packets, hosts: readonly Host[], paths: readonly Bottleneck[]) {
    this.#packets = packets
    this.#hosts = hosts
    this.#paths = paths
  }

  start(): void {
    for (const host of this.#hosts) host.start(0)
  }

  /** Runs until `until` (ticks), exclusive. */
  run(until: number): void {
    let wakes = 0
    while (true) {
      let next = this.#packets.next()
      for (const path of this.#paths) next = Math.min(next, path.next())
      for (const host of this.#hosts) next = Math.min(next, host.deadline)
      if (next >= until) break
      if (next > this.now) wakes = 0
      else if (++wakes > WAKES_AT_ONCE_MAX) throw new Error(`a busy loop at ${this.now}`)
      this.now = Math.max(this.now, next)
      this.#step()
    }
    this.now = until
    for (const path of this.#paths) path.serve(until)
    this.#packets.advance(until)
  }

  #step(): void {
    const { now } = this
    const packets = this.#packets
    for (const path of this.#paths) path.serve(now)
    packets.advance(now)
    for (let slot = packets.arrival(); slot !== NONE; slot = packets.arrival()) {
      const host = this.#hosts[packets.target[slot] ?? 0]
      if (host === undefined) throw new Error('a packet for an unknown host')
      if (host.inboxCount === 0) this.#woken.push(host)
      host.arrive(slot)
    }
    for (const host of this.#woken) host.receive(now)
    this.#woken.length = 0
    for (const host of this.#hosts) if (host.deadline <= now) host.expire(now)
  }
}
