/**
 * The stream behind the dashboard (`/events`, docs/api.md): samples of a running endpoint for everybody who watches, by
 * server-sent events.
 *
 * Without viewers there is no timer and nothing is read. With them everything is read and put into text once, whatever
 * their number. A viewer that reads slowly misses samples, each of which stands for itself; one that reads nothing for
 * long is cut. While somebody watches who is no page of another site, a client pings its peer whenever it heard
 * nothing since the sample before, so that a link that dies while idle is seen too; to the peer these are the pings of a
 * keepalive.
 *
 * What the figures mean is stats.ts; routes are app.ts, access is access.ts.
 */

import { SessionState } from '../engine/core.ts'
import type { RecentLine } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Clock, HttpConnection, Timer } from '../runtime.ts'
import type { ContextStats, ContextSteps } from '../transport/obfs/context-stats.ts'
import { oldestOfMost } from './crowd.ts'
import type { Counters, SessionStats, SessionSteps, Snapshot } from './stats.ts'

/** Time between two samples, ms. */
export const SAMPLE_MS = 500
/** Watching dashboards at a time; one makes room for the next. */
export const VIEWERS_MAX = 8
/** Events that wait for a viewer; more are left out. */
const QUEUED_MAX = 2
/** A viewer that takes nothing for so long is cut, ms. */
const PATIENCE_MS = 15_000
/** A peer that sends nothing for so long while it is pinged, or an answer is due, counts as lost, ms. */
const SILENT_MS = 2000
/** Sessions that are shown one by one, the liveliest ones, and contexts of an obfuscator. */
export const ROWS_MAX = 50
/** Looking through the sessions takes at most this share of the time. */
const WALK_SHARE = 0.005
/** A session whose last activity is older says nothing about the path now, s. */
const FRESH_S = 3

/** Whether the peer answers. `checking`: it is not known yet. `idle`: a server without sessions. */
export type LinkState = 'checking' | 'up' | 'silent' | 'quiet' | 'idle' | 'pending' | 'serving'

/** The ends of the path; what is not known is undefined. */
export interface LinkStatus {
  readonly local: SocketAddress | undefined
  readonly peer: SocketAddress | undefined
  readonly rendezvous: SocketAddress | undefined
  /** Whether a rendezvous client has its peer. */
  readonly peerFound: boolean
  /** Round trip of the last PING that was answered, ms. */
  readonly pongRtt: number | undefined
}

/** What the feed reads. */
export interface LiveSource {
  readonly client: boolean
  readonly server: boolean
  readonly clock: Clock
  /** Called before a sample when figures, or with the target /stats.json sessions, must be fetched first. */
  prepare?(target: string): Promise<void>
  snapshot(): Snapshot
  sessions(): SessionSteps
  /** The body of /stats.json without its sessions. */
  summary(snapshot: Snapshot): object
  /** A session as in /stats.json. */
  session(session: SessionStats): object
  /** With an obfuscator: its contexts. */
  contexts(): ContextSteps | undefined
  /** A context as in /stats.json. */
  context(context: ContextStats): object
  /** Settings for people to see; no secrets. */
  about(): object
  path(): LinkStatus
  /** Client: sends one PING beside the keepalive. */
  ping(): void
  /** The last warnings, and how many there were ever. */
  warnings(): { readonly recent: readonly RecentLine[]; readonly remembered: number }
}

interface Viewer {
  readonly controller: ReadableStreamDefaultController<Uint8Array>
  readonly connection: HttpConnection
  /** It can be no page of another site. */
  readonly isKnown: boolean
  /** When it last had room, monotonic ms. */
  tookAt: number
}

/** Authentic datagrams received so far. */
function authentic(counters: Counters): number {
  const { pkt_received, drop_auth, drop_replay, drop_reflected, drop_oversize, drop_short, drop_malformed } = counters
  return pkt_received - drop_auth - drop_replay - drop_reflected - drop_oversize - drop_short - drop_malformed
}

const bytesOf = (session: SessionStats): number => session.tcpRead + session.tcpWritten

/** The liveliest first: sessions that carry data, then by their last activity, then by their bytes. */
function livelier(a: SessionStats, b: SessionStats): number {
  const rank = ({ state }: SessionStats): number => (state <= SessionState.ESTABLISHED ? 0 : state)
  return rank(a) - rank(b) || a.idle - b.idle || bytesOf(b) - bytesOf(a)
}

const encoder = new TextEncoder()
const shown = (address: SocketAddress | undefined): string | null =>
  address === undefined ? null : formatAddress(address)

/** One server-sent event. */
export const sseEvent = (name: string, data: object): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

/** Looks at the peer's answers from sample to sample. */
class LinkWatch {
  readonly #source: LiveSource
  #received = 0
  #at = 0
  /** ms without an authentic datagram, while the process was able to receive one. */
  silent = 0
  #checked = false

  constructor(source: LiveSource) {
    this.#source = source
  }

  begin({ at, counters }: Snapshot): void {
    this.#received = authentic(counters)
    this.#at = at
    this.silent = 0
    this.#checked = counters.last_received_age < SILENT_MS
  }

  /**
   * Takes the next sample.
   * @returns whether nothing was received since the one before
   */
  look({ at, counters }: Snapshot): boolean {
    const received = authentic(counters)
    // a process that did not run for long could not receive anything
    const passed = Math.min(at - this.#at, 2 * SAMPLE_MS)
    this.#at = at
    this.silent = received === this.#received ? this.silent + passed : 0
    if (received !== this.#received) this.#checked = true
    this.#received = received
    return this.silent > 0
  }

  /** @param pinged whether silence is met by pings */
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
    // a server does not ping: silence means something only when an answer is due
    return counters.waitsnd > 0 ? 'silent' : 'quiet'
  }
}

export class LiveFeed {
  readonly #source: LiveSource
  readonly #viewers = new Set<Viewer>()
  readonly #link: LinkWatch
  #timer: Timer | undefined
  #rows: SessionStats[] = []
  /** A walk through the sessions is under way, and when the next may begin, monotonic ms. */
  #walking = false
  #walkAt = 0
  #warned = 0
  /** Figures are being fetched; what it took with sessions, ms. */
  #preparing = false
  #fetchMs = 0

  constructor(source: LiveSource) {
    this.#source = source
    this.#link = new LinkWatch(source)
  }

  get viewers(): number {
    return this.#viewers.size
  }

  /**
   * A stream of events for one more viewer.
   * @param isKnown it can be no page of another site
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
        // silence counts from where it is met by pings
        if (isFirst || isFirstToPing) this.#link.begin(snapshot)
        controller.enqueue(encoder.encode(this.#hello()))
        this.#step(snapshot)
      },
      cancel: () => {
        if (viewer !== undefined) this.#remove(viewer)
      },
    }
    return new ReadableStream(source, { highWaterMark: QUEUED_MAX })
  }

  /**
   * Ends a stream, one that may be another site's if there is one; of the address that has most of them the oldest. So
   * no client can lock others out.
   */
  #makeRoom(): void {
    const strangers = [...this.#viewers].filter(({ isKnown }) => !isKnown)
    const viewer = oldestOfMost(strangers.length > 0 ? strangers : this.#viewers, ({ connection }) => connection.remote)
    if (viewer === undefined) return
    this.#remove(viewer)
    // so that it does not come again at once and drive out another one
    viewer.controller.enqueue(encoder.encode(sseEvent('crowded', { most: VIEWERS_MAX })))
    viewer.controller.close()
    viewer.connection.release?.()
  }

  /** Ends all streams: we stop, or what they show has changed. */
  endAll(): void {
    for (const viewer of this.#viewers) {
      this.#remove(viewer)
      viewer.controller.close()
      viewer.connection.release?.()
    }
  }

  /** Whether silence is met by pings: a page of another site causes none. */
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
      await prepare(due ? '/stats.json' : '/events')
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

  #hello(): string {
    return sseEvent('hello', {
      about: this.#source.about(),
      sample_ms: SAMPLE_MS,
      rows_max: ROWS_MAX,
      warnings: this.#source.warnings().recent,
    })
  }

  #step(snapshot: Snapshot): void {
    const { counters } = snapshot
    const { rendezvous, peer, local, peerFound, pongRtt } = this.#source.path()
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
        // an idle session's round trip is that of its last data
        rtt_ms: busiest?.rtt ?? pongRtt ?? this.#rows.find(({ rtt }) => rtt > 0)?.rtt ?? null,
        local: shown(local),
        peer: shown(peer),
        rendezvous: shown(rendezvous),
        peer_found: peerFound,
      },
      path: busiest === undefined ? null : this.#source.session(busiest),
      sessions: this.#rows.map((row) => this.#source.session(row)),
      ...this.#contexts(),
      ...(remembered === this.#warned ? {} : { warnings: recent }),
    })
    this.#warned = remembered
    this.#send(encoder.encode(text), snapshot.at)
  }

  /** The first contexts of the obfuscator, if there is one. */
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
        viewer.controller.error(new Error('the viewer does not read'))
        viewer.connection.cut()
      }
    }
  }

  /** Looks for the liveliest sessions: at once when there are few, else a part in each turn of the event loop. */
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
