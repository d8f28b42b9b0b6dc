/**
 * The event stream of the dashboard (`/events`, docs/api.md): samples of a running endpoint as server-sent events.
 *
 * Without viewers there is no timer and nothing is read. With viewers each sample is read and formatted once for all of
 * them. A slow viewer misses samples, which are self-contained; a viewer that stops reading is disconnected. While a
 * viewer is connected that cannot be a page of another site, a client pings its peer whenever nothing was received
 * since the previous sample, so that the failure of an idle path is detected. The peer treats these pings like
 * keepalives.
 *
 * The statistics are defined in stats.ts, routes in app.ts, access control in access.ts.
 */

import type { PeerProblem } from '../driver/peer-log.ts'
import { SessionState } from '../engine/core.ts'
import type { RecentLine } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Clock, HttpConnection, Timer } from '../runtime.ts'
import type { ContextStats, ContextSteps } from '../transport/obfs/context-stats.ts'
import { oldestOfMost } from './crowd.ts'
import { HISTORY_COLUMNS, HISTORY_S, type HistoryRow } from './history.ts'
import type { Counters, SessionStats, SessionSteps, Snapshot } from './stats.ts'

/** Sample interval, ms. */
export const SAMPLE_MS = 500
/** Maximum number of viewers; a further one replaces an existing one. */
export const VIEWERS_MAX = 8
/** Maximum number of events queued for a viewer; further ones are dropped. */
const QUEUED_MAX = 2
/** A viewer that does not read for this time is disconnected, ms. */
const PATIENCE_MS = 15_000
/** Without datagrams for this time, while pings or data are outstanding, the peer counts as unreachable, ms. */
const SILENT_MS = 2000
/** Maximum number of sessions listed, the most active ones, and of obfuscator contexts. */
export const ROWS_MAX = 50
/** Maximum share of time spent iterating over sessions. */
const WALK_SHARE = 0.005
/** Maximum idle time of a session that is representative of the path, s. */
const FRESH_S = 3

/** Whether the peer answers. `checking`: not known yet. `idle`: a server without sessions. */
export type LinkState = 'checking' | 'up' | 'silent' | 'quiet' | 'idle' | 'pending' | 'serving'

/** Addresses of the path; undefined if unknown. */
export interface LinkStatus {
  readonly local: SocketAddress | undefined
  readonly peer: SocketAddress | undefined
  readonly rendezvous: SocketAddress | undefined
  /** Whether a rendezvous client has its peer. */
  readonly peerFound: boolean
  /** Round trip time of the last answered PING, ms. */
  readonly pongRtt: number | undefined
  /** Why the peer does not answer, as far as it is known. */
  readonly problem?: PeerProblem | undefined
}

/** Data source of the feed. */
export interface LiveSource {
  readonly client: boolean
  readonly server: boolean
  readonly clock: Clock
  /** If present, fetches statistics before a sample: those of /stats.json, or of /metrics, which are without sessions. */
  prepare?(target: string): Promise<void>
  snapshot(): Snapshot
  sessions(): SessionSteps
  /** The body of /stats.json without its sessions. */
  summary(snapshot: Snapshot): object
  /** A session as in /stats.json. */
  session(session: SessionStats): object
  /** The contexts of the obfuscator, if any. */
  contexts(): ContextSteps | undefined
  /** A context as in /stats.json. */
  context(context: ContextStats): object
  /** Settings to display; no secrets. */
  about(): object
  path(): LinkStatus
  /** Client: sends one PING in addition to keepalives. */
  ping(): void
  /** The last minutes, by HISTORY_COLUMNS. */
  history(): readonly HistoryRow[]
  /** Name, mode and state of each of several tunnels, of which this is one or the sum. */
  overview?(): readonly object[]
  /** The recent warnings and the total number of warnings. */
  warnings(): { readonly recent: readonly RecentLine[]; readonly remembered: number }
}

interface Viewer {
  readonly controller: ReadableStreamDefaultController<Uint8Array>
  readonly connection: HttpConnection
  /** It cannot be a page of another site. */
  readonly isKnown: boolean
  /** When an event was last queued, monotonic ms. */
  tookAt: number
}

/** Number of authentic datagrams received. */
function authentic(counters: Counters): number {
  const { pkt_received, drop_auth, drop_replay, drop_reflected, drop_oversize, drop_short, drop_malformed } = counters
  return pkt_received - drop_auth - drop_replay - drop_reflected - drop_oversize - drop_short - drop_malformed
}

const bytesOf = (session: SessionStats): number => session.tcpRead + session.tcpWritten

/** Orders sessions by activity: live sessions first, then by state, idle time and bytes. */
function livelier(a: SessionStats, b: SessionStats): number {
  const rank = ({ state }: SessionStats): number => (state <= SessionState.ESTABLISHED ? 0 : state)
  return rank(a) - rank(b) || a.idle - b.idle || bytesOf(b) - bytesOf(a)
}

const encoder = new TextEncoder()
const shown = (address: SocketAddress | undefined): string | null =>
  address === undefined ? null : formatAddress(address)

/** Formats a server-sent event. */
export const sseEvent = (name: string, data: object): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

/** Derives the link state from consecutive samples. */
class LinkWatch {
  readonly #source: LiveSource
  #received = 0
  #at = 0
  /** Time without authentic datagrams, excluding times in which the process was suspended, ms. */
  silent = 0
  #checked = false

  constructor(source: LiveSource) {
    this.#source = source
  }

  begin({ at, uptime, counters }: Snapshot): void {
    this.#received = authentic(counters)
    this.#at = at
    // the endpoint may know already that the peer does not answer
    const isLost = this.#source.client && counters.peer_silent_pings > 0
    this.silent = isLost ? Math.min(counters.last_received_age, uptime) : 0
    this.#checked = counters.last_received_age < SILENT_MS
  }

  /**
   * Processes the next sample.
   * @returns whether nothing was received since the previous one
   */
  look({ at, counters }: Snapshot): boolean {
    const received = authentic(counters)
    // a suspended process cannot receive datagrams
    const passed = Math.min(at - this.#at, 2 * SAMPLE_MS)
    this.#at = at
    this.silent = received === this.#received ? this.silent + passed : 0
    if (received !== this.#received) this.#checked = true
    this.#received = received
    return this.silent > 0
  }

  /** The current link state. @param pinged whether the peer is pinged during silence */
  state(counters: Counters, pending: boolean, pinged: boolean): LinkState {
    const { client, server } = this.#source
    const live = counters.sessions_connect + counters.sessions_established + counters.sessions_linger
    const late = this.silent >= SILENT_MS
    if (client) {
      if (pending) return 'pending'
      if (late) return pinged || counters.waitsnd > 0 ? 'silent' : 'quiet'
      return this.#checked ? 'up' : 'checking'
    }
    if (!server) return 'serving'
    if (live === 0) return 'idle'
    if (!late) return 'up'
    // a server does not ping: silence is only significant while data is unacknowledged
    return counters.waitsnd > 0 ? 'silent' : 'quiet'
  }
}

/** Sends samples to all viewers. */
export class LiveFeed {
  readonly #source: LiveSource
  readonly #viewers = new Set<Viewer>()
  readonly #link: LinkWatch
  #timer: Timer | undefined
  #rows: SessionStats[] = []
  /** An iteration over the sessions is in progress. */
  #walking = false
  /** Earliest start of the next iteration, monotonic ms. */
  #walkAt = 0
  #warned = 0
  /** Statistics are being fetched. */
  #preparing = false
  /** Duration of the last fetch with sessions, ms. */
  #fetchMs = 0

  constructor(source: LiveSource) {
    this.#source = source
    this.#link = new LinkWatch(source)
  }

  get viewers(): number {
    return this.#viewers.size
  }

  /**
   * Opens an event stream for a further viewer.
   * @param isKnown it cannot be a page of another site
   */
  open(connection: HttpConnection, isKnown: boolean): ReadableStream<Uint8Array> {
    if (this.#viewers.size >= VIEWERS_MAX) this.#makeRoom()
    let viewer: Viewer | undefined
    const source: UnderlyingDefaultSource<Uint8Array> = {
      start: (controller) => {
        connection.hold()
        const snapshot = this.#source.snapshot()
        const isFirst = this.#viewers.size === 0
        const isFirstToPing = isKnown && !this.#pings
        viewer = { controller, connection, isKnown, tookAt: snapshot.at }
        this.#viewers.add(viewer)
        if (isFirst) this.#begin()
        // silence is measured from the first ping
        if (isFirst || isFirstToPing) this.#link.begin(snapshot)
        controller.enqueue(encoder.encode(this.#hello(snapshot)))
        this.#step(snapshot)
      },
      cancel: () => {
        if (viewer !== undefined) this.#remove(viewer)
      },
    }
    return new ReadableStream(source, { highWaterMark: QUEUED_MAX })
  }

  /**
   * Ends one stream, preferably one that may belong to another site: the oldest one of the address with the most
   * streams, so that no client can lock others out.
   */
  #makeRoom(): void {
    const unknown = [...this.#viewers].filter(({ isKnown }) => !isKnown)
    const viewer = oldestOfMost(unknown.length > 0 ? unknown : this.#viewers, ({ connection }) => connection.remote)
    if (viewer === undefined) return
    this.#remove(viewer)
    // prevents an immediate reconnect, which would evict another viewer
    viewer.controller.enqueue(encoder.encode(sseEvent('crowded', { most: VIEWERS_MAX })))
    viewer.controller.close()
    viewer.connection.release?.()
  }

  /** Ends all streams, at shutdown or after a configuration change. */
  endAll(): void {
    for (const viewer of this.#viewers) {
      this.#remove(viewer)
      viewer.controller.close()
      viewer.connection.release?.()
    }
  }

  /** Whether the peer is pinged during silence: pages of other sites do not cause pings. */
  get #pings(): boolean {
    for (const { isKnown } of this.#viewers) if (isKnown) return true
    return false
  }

  #begin(): void {
    this.#rows = []
    this.#walkAt = 0
    this.#warned = this.#source.warnings().remembered
    this.#tickLater()
  }

  #tickLater(): void {
    this.#timer = this.#source.clock.setTimer(() => {
      this.#tickLater()
      void this.#tick()
    }, SAMPLE_MS)
  }

  async #tick(): Promise<void> {
    const { prepare } = this.#source
    if (prepare !== undefined) {
      if (this.#preparing) return
      this.#preparing = true
      const began = this.#source.clock.monotonic()
      const due = began >= this.#walkAt
      await prepare(due ? '/stats.json' : '/metrics')
      this.#preparing = false
      if (due) this.#fetchMs = this.#source.clock.monotonic() - began
      if (this.#viewers.size === 0) return
    }
    this.#step(this.#source.snapshot())
  }

  #remove(viewer: Viewer): void {
    this.#viewers.delete(viewer)
    if (this.#viewers.size > 0) return
    this.#source.clock.clearTimer(this.#timer)
    this.#timer = undefined
    this.#rows = []
  }

  #hello({ date, uptime }: Snapshot): string {
    const kept = Math.min(uptime / 1000, HISTORY_S)
    return sseEvent('hello', {
      about: this.#source.about(),
      sample_ms: SAMPLE_MS,
      rows_max: ROWS_MAX,
      warnings: this.#source.warnings().recent,
      history: {
        seconds: HISTORY_S,
        since: Math.round(date.getTime() / 1000 - kept),
        columns: HISTORY_COLUMNS,
        rows: this.#source.history(),
      },
    })
  }

  #step(snapshot: Snapshot): void {
    const { counters } = snapshot
    const { rendezvous, peer, local, peerFound, pongRtt, problem } = this.#source.path()
    const pending = rendezvous !== undefined && !peerFound
    const pings = this.#pings
    if (this.#link.look(snapshot) && pings && this.#source.client && !pending) this.#source.ping()
    this.#walk(snapshot.at)
    const busiest = this.#rows.find(({ idle, rtt }) => idle <= FRESH_S && rtt > 0)
    const { recent, remembered } = this.#source.warnings()
    const text = sseEvent('sample', {
      ...this.#source.summary(snapshot),
      link: {
        state: this.#link.state(counters, pending, pings),
        silent_ms: Math.round(this.#link.silent),
        // the round trip time of an idle session is that of its last data
        rtt_ms: busiest?.rtt ?? pongRtt ?? this.#rows.find(({ rtt }) => rtt > 0)?.rtt ?? null,
        local: shown(local),
        peer: shown(peer),
        rendezvous: shown(rendezvous),
        peer_found: peerFound,
        problem: problem?.kind ?? null,
        problem_text: problem?.text ?? null,
      },
      path: busiest === undefined ? null : this.#source.session(busiest),
      sessions: this.#rows.map((row) => this.#source.session(row)),
      tunnels: this.#source.overview?.(),
      ...this.#contexts(),
      ...(remembered === this.#warned ? {} : { warnings: recent }),
    })
    this.#warned = remembered
    this.#send(encoder.encode(text), snapshot.at)
  }

  /** The first contexts of the obfuscator, if any. */
  #contexts(): { contexts?: object[] } {
    const steps = this.#source.contexts()
    if (steps === undefined) return {}
    const contexts: object[] = []
    for (const step of steps) {
      for (const context of step.slice(0, ROWS_MAX - contexts.length)) contexts.push(this.#source.context(context))
      if (contexts.length === ROWS_MAX) break
    }
    return { contexts }
  }

  #send(bytes: Uint8Array, at: number): void {
    for (const viewer of this.#viewers) {
      if ((viewer.controller.desiredSize ?? 0) > 0) {
        viewer.tookAt = at
        viewer.controller.enqueue(bytes)
      } else if (at - viewer.tookAt > PATIENCE_MS) {
        this.#remove(viewer)
        viewer.controller.error(new Error('the viewer stopped reading'))
        viewer.connection.cut()
      }
    }
  }

  /** Finds the most active sessions: at once if there are few, otherwise in steps that yield to the event loop. */
  #walk(at: number): void {
    if (this.#walking || at < this.#walkAt) return
    this.#walking = true
    const steps = this.#source.sessions()[Symbol.iterator]()
    let rows: SessionStats[] = []
    let spent = this.#fetchMs
    this.#fetchMs = 0
    const turn = (first: boolean): void => {
      const began = this.#source.clock.monotonic()
      const step = this.#viewers.size === 0 ? undefined : steps.next()
      if (step !== undefined && step.done !== true) {
        for (const session of step.value) rows.push(session)
        if (rows.length > ROWS_MAX) rows = rows.sort(livelier).slice(0, ROWS_MAX)
        spent += this.#source.clock.monotonic() - began
        if (first) turn(false)
        else this.#source.clock.defer(() => turn(false))
        return
      }
      this.#walking = false
      this.#rows = rows.sort(livelier)
      this.#walkAt = at + spent / WALK_SHARE
    }
    turn(true)
  }
}
