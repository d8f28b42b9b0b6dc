/**
 * Chooses the server of a new session (`strategy`). Servers that answer are preferred to those that do not, and those
 * that have answered for a while to those that have just come back, so that a server that comes and goes is left alone.
 */

import type { Strategy } from '../config/config.ts'
import type { ServerHealth } from './health.ts'

/** least_rtt changes the server only for one whose round trip is shorter by this part and by this time, ms, ... */
const BETTER_PART = 0.2
const BETTER_MS = 2
/** ... for so long, ms. */
const BETTER_FOR_MS = 15_000

/** What it chooses from. */
export interface Choice {
  readonly health: ServerHealth
}

export class Chooser<Server extends Choice> {
  strategy: Strategy
  /** least_rtt: the server in use; one that is clearly nearer, and since when, monotonic ms. */
  #nearest: Server | undefined
  #nearer: Server | undefined
  #nearerSince = 0
  /** round_robin: the server of the last session. */
  #last: Server | undefined

  constructor(strategy: Strategy) {
    this.strategy = strategy
  }

  /**
   * The server of new sessions; with round_robin that of the next one.
   * @param servers in the order of preference, at least one
   * @returns undefined if there is none
   */
  current(servers: readonly Server[], now: number): Server | undefined {
    const able = ableOf(servers, now)
    if (this.strategy === 'round_robin') return this.#next(servers, able)
    if (this.strategy === 'least_rtt') return this.#near(able, now)
    return able[0]
  }

  /** As `current`, for a session that is opened now. */
  choose(servers: readonly Server[], now: number): Server | undefined {
    const server = this.current(servers, now)
    this.#last = server
    return server
  }

  /** The able server that follows the last one in the list. */
  #next(servers: readonly Server[], able: readonly Server[]): Server | undefined {
    const from = this.#last === undefined ? 0 : servers.indexOf(this.#last) + 1
    return able.find((server) => servers.indexOf(server) >= from) ?? able[0]
  }

  #near(able: readonly Server[], now: number): Server | undefined {
    const rttOf = ({ health }: Server): number => health.rtt ?? Number.POSITIVE_INFINITY
    const [best] = able.toSorted((a, b) => rttOf(a) - rttOf(b))
    const used = this.#nearest
    // no one answers: the last one is as good as any
    if (best === undefined || used === undefined || !able.includes(used)) {
      this.#nearest = best
      this.#nearer = undefined
      return best
    }
    const gain = rttOf(used) - rttOf(best)
    const isClear = gain >= BETTER_MS && gain >= BETTER_PART * rttOf(used)
    if (!isClear) this.#nearer = undefined
    else if (this.#nearer !== best) {
      this.#nearer = best
      this.#nearerSince = now
    } else if (now - this.#nearerSince >= BETTER_FOR_MS) {
      this.#nearest = best
      this.#nearer = undefined
      return best
    }
    return used
  }
}

/** The servers to choose from: those that have answered for a while, else those that answer, else any that may. */
function ableOf<Server extends Choice>(servers: readonly Server[], now: number): readonly Server[] {
  const well = servers.filter(({ health }) => health.isWell(now))
  if (well.length > 0) return well
  const up = servers.filter(({ health }) => health.state === 'up')
  if (up.length > 0) return up
  const unknown = servers.filter(({ health }) => health.state === 'checking')
  return unknown.length > 0 ? unknown : servers
}
