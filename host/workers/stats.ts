/**
 * Aggregates the statistics of all workers for the monitoring server. They are requested on demand and not updated in
 * between. The last totals of an ended worker are kept.
 */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { NO_HOST_COUNTERS } from '../driver/diagnostics.ts'
import { type HistoryRow, sumHistories } from '../monitoring/history.ts'
import type { LinkStatus } from '../monitoring/live.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import type { KeyStatus, ServerStatus } from '../monitoring/source.ts'
import {
  type Health,
  type SessionStats,
  type SessionSteps,
  type Snapshot,
  silenceLimit,
  sumCounters,
  totalsOf,
  waitingKey,
} from '../monitoring/stats.ts'
import { parseTarget } from '../monitoring/target.ts'
import type { Runtime, Timer } from '../runtime.ts'
import {
  type FromWorker,
  joinKeys,
  joinServers,
  type Part,
  pastKeys,
  sumHost,
  type ToWorker,
  worstHealth,
} from './messages.ts'

/** Response timeout, ms; a worker that exceeds it counts with its last statistics. */
const ANSWER_MS = 2000
/** Names of which the totals of ended workers are kept, also of keys that a reload removed. */
const PAST_KEYS_MAX = 256
/** Session lists are discarded this long after a request, ms. */
const SESSIONS_KEPT_MS = 10_000
const NO_PATH: LinkStatus = {
  local: undefined,
  peer: undefined,
  rendezvous: undefined,
  peerFound: false,
  pongRtt: undefined,
}
/** Routes that show sessions. */
const WITH_SESSIONS: ReadonlySet<string> = new Set(['stats', 'stats.json'])
/** The route that shows the history. */
const WITH_HISTORY = 'events'

/** A running worker. */
interface Askable {
  readonly number: number
  send(message: ToWorker): void
}

/** One request to all workers. */
interface Round {
  readonly id: number
  readonly waiting: Set<number>
  readonly sessions: Map<number, SessionStats[]>
  readonly histories: (readonly HistoryRow[])[]
  done(): void
}

export class WorkerStats implements Monitor {
  readonly started: number
  /** Number of worker restarts. */
  restarts = 0
  readonly #runtime: Runtime
  readonly #serving: () => readonly Askable[]
  readonly #none: Health
  readonly #waiting: () => string | undefined
  /** The last statistics of each worker. */
  readonly #parts = new Map<number, Part>()
  /** Totals of ended workers. */
  #past: Part
  readonly #rounds = new Map<number, Round>()
  #lastId = 0
  #sessions: readonly SessionStats[][] = []
  /** That of the workers which run; what an ended one had seen is lost. */
  #history: HistoryRow[] = []
  #forget: Timer | undefined

  /** @param waiting as Endpoint.waiting, of the whole group */
  constructor(
    runtime: Runtime,
    serving: () => readonly Askable[],
    config: Config,
    waiting: () => string | undefined = () => undefined,
  ) {
    this.#waiting = waiting
    this.#runtime = runtime
    this.#serving = serving
    this.started = runtime.clock.monotonic()
    const client = (config.mode & MODE_CLIENT) !== 0
    this.#none = { client, pending: false, lastReceived: undefined, silence: silenceLimit(config.keepalive) }
    this.#past = { cpu: 0, counters: sumCounters([]), host: { ...NO_HOST_COUNTERS }, health: this.#none, path: NO_PATH }
  }

  /** Requests statistics of all workers, with sessions if the target shows them. Waits for all or a timeout. */
  async prepare(target: string): Promise<void> {
    const name = parseTarget(target)?.name ?? ''
    const withSessions = WITH_SESSIONS.has(name)
    const withHistory = name === WITH_HISTORY
    const workers = this.#serving()
    const id = ++this.#lastId
    const sessions = new Map<number, SessionStats[]>()
    const histories: (readonly HistoryRow[])[] = []
    await new Promise<void>((resolve) => {
      const waiting = new Set(workers.map(({ number }) => number))
      const timer = this.#runtime.clock.setTimer(resolve, ANSWER_MS)
      const done = (): void => {
        this.#runtime.clock.clearTimer(timer)
        resolve()
      }
      this.#rounds.set(id, { id, waiting, sessions, histories, done })
      for (const worker of workers) worker.send({ kind: 'stats', id, sessions: withSessions, history: withHistory })
      if (waiting.size === 0) done()
    })
    this.#rounds.delete(id)
    if (withHistory) this.#history = sumHistories(histories)
    if (!withSessions) return
    this.#sessions = [...sessions].sort(([a], [b]) => a - b).map(([, list]) => list)
    this.#runtime.clock.clearTimer(this.#forget)
    this.#forget = this.#runtime.clock.setTimer(() => {
      this.#sessions = []
    }, SESSIONS_KEPT_MS)
  }

  /** Handles a response of a worker, or a part of it. */
  take(worker: number, message: Extract<FromWorker, { kind: 'stats' | 'sessions' | 'history' }>): void {
    const round = this.#rounds.get(message.id)
    if (message.kind === 'sessions') {
      const list = round?.sessions.get(worker)
      if (list === undefined) round?.sessions.set(worker, [...message.sessions])
      else list.push(...message.sessions)
      return
    }
    if (message.kind === 'history') {
      round?.histories.push(message.rows)
      return
    }
    this.#parts.set(worker, message.part)
    this.#answered(round, worker)
  }

  /** Handles the end of a worker. */
  gone(worker: number): void {
    const part = this.#parts.get(worker)
    this.#parts.delete(worker)
    for (const round of this.#rounds.values()) this.#answered(round, worker)
    if (part === undefined) return
    const { cpu, counters, host, health, keys = [] } = this.#past
    const ended = pastKeys(part.keys ?? [])
    const gone = keys.filter(({ name }) => ended.every((key) => key.name !== name))
    this.#past = {
      cpu: cpu + part.cpu,
      counters: sumCounters([counters, totalsOf(part.counters)]),
      host: sumHost([host, part.host], NO_HOST_COUNTERS),
      health,
      path: NO_PATH,
      keys: [...(joinKeys([ended], keys) ?? []), ...gone].slice(0, PAST_KEYS_MAX),
    }
  }

  #answered(round: Round | undefined, worker: number): void {
    if (round?.waiting.delete(worker) && round.waiting.size === 0) round.done()
  }

  snapshot(): Snapshot {
    const at = this.#runtime.clock.monotonic()
    const parts = [this.#past, ...this.#parts.values()]
    const cpu = parts.reduce((sum, part) => sum + part.cpu, this.#runtime.cpuTime())
    // an ended worker holds no memory
    const own = this.#runtime.residentBytes?.()
    const rss = own && parts.reduce((sum, part) => sum + (part.rss ?? 0), own)
    const counters = sumCounters(parts.map((part) => part.counters))
    const workers = { serving: this.#serving().length, restarts: this.restarts }
    return { at, uptime: at - this.started, cpu, rss, date: new Date(this.#runtime.clock.wall()), counters, workers }
  }

  sessions(): SessionSteps {
    return this.#sessions
  }

  /** As of the last request for it, which is over when it is shown. */
  history(): HistoryRow[] {
    const rows = this.#history
    this.#history = []
    return rows
  }

  health(): Health {
    const worst = worstHealth(
      [...this.#parts.values()].map((part) => part.health),
      this.#none,
    )
    return { ...worst, waiting: waitingKey(this.#waiting()) }
  }

  /** Link status of one worker: all share the path to the peer. */
  path(): LinkStatus {
    const paths = [...this.#parts.values()].map((part) => part.path)
    const path = paths.find(({ pongRtt }) => pongRtt !== undefined) ?? paths[0] ?? NO_PATH
    return { ...path, problem: path.problem ?? paths.find(({ problem }) => problem !== undefined)?.problem }
  }

  servers(): readonly ServerStatus[] | undefined {
    return joinServers([...this.#parts.values()].map((part) => part.servers ?? []))
  }

  keys(): readonly KeyStatus[] | undefined {
    return joinKeys(
      [...this.#parts.values()].map((part) => part.keys ?? []),
      this.#past.keys,
    )
  }

  ping(): void {
    for (const worker of this.#serving()) worker.send({ kind: 'ping' })
  }

  hostCounters(): typeof NO_HOST_COUNTERS {
    return sumHost(
      [this.#past, ...this.#parts.values()].map((part) => part.host),
      NO_HOST_COUNTERS,
    )
  }
}
