/**
 * The engine's events (docs/abi.md, "Event"): those of streams go to stream-table.ts, what the others mean to the log and to
 * the owner of the driver is here.
 */

import { Event, EventType, TICKS_PER_MS } from '../engine/core.ts'
import type { Engine } from '../engine/engine.ts'
import { formatDuration } from '../format.ts'
import { LOG_DEBUG, LOG_NOTICE, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Diagnostics } from './diagnostics.ts'
import type { StreamTable } from './stream-table.ts'

/** What events lead to beyond streams and log. */
export interface EventHandlers {
  /** The engine received nothing for T seconds (protocol.md 7.6). */
  onResolve(): void
  /** A rendezvous client found its peer, or found it elsewhere (protocol.md 8). */
  onPeerFound?(peer: SocketAddress): void
  /** dpi/tcp client: a context can be used. */
  onObfsReady?(context: number): void
  /** A context of the obfuscator timed out. */
  onObfsEnded?(context: number): void
}

/** What events need from the driver. */
export interface EventHost {
  readonly streams: StreamTable
  readonly diagnostics: Diagnostics
  readonly log: Log
  /** Whether there is no engine to call. */
  readonly dead: boolean
}

export class Events {
  /** Client: round trip of the last ping that was answered, ms; undefined before the first. */
  pongRtt: number | undefined
  readonly #host: EventHost
  readonly #engine: Engine
  readonly #handlers: EventHandlers

  constructor(host: EventHost, engine: Engine, handlers: EventHandlers) {
    this.#host = host
    this.#engine = engine
    this.#handlers = handlers
  }

  /**
   * Handles the engine's events once.
   * @returns how many there were
   */
  handle(): number {
    const { core } = this.#engine
    const host = this.#host
    const count = core.calls.poll_events()
    core.refresh()
    for (let i = 0; i < count; i++) {
      // read anew each time: a handler calls the engine, which may grow its memory
      const at = core.eventWord + i * Event.WORDS
      const type = core.u32[at + Event.type] ?? 0
      const handle = core.u32[at + Event.handle] ?? 0
      const arg = core.u32[at + Event.arg] ?? 0
      if (type === EventType.PONG) this.#pong(arg)
      else if (type === EventType.RESOLVE) this.#resolve()
      else if (type === EventType.PEER_FOUND) this.#handlers.onPeerFound?.(this.#engine.readPeer())
      else if (type === EventType.MIGRATED) this.#migrated(handle)
      else if (type === EventType.MTU) this.#mtu(arg)
      else if (type === EventType.OBFS_READY) this.#handlers.onObfsReady?.(arg)
      else if (type === EventType.OBFS_ENDED) this.#obfsEnded()
      else host.streams.handle(type, handle, arg)
      if (host.dead) return 0
      core.refresh()
    }
    return count
  }

  #obfsEnded(): void {
    const { calls } = this.#engine.core
    for (let context = calls.obfs_ended(); context !== 0; context = calls.obfs_ended()) {
      this.#handlers.onObfsEnded?.(context)
      if (this.#host.dead) return
    }
  }

  #resolve(): void {
    this.#host.diagnostics.silent(this.#engine.peer)
    this.#handlers.onResolve()
  }

  #pong(ticks: number): void {
    const { diagnostics, log } = this.#host
    diagnostics.answered()
    const ms = ticks / TICKS_PER_MS
    this.pongRtt = ms
    if (log.at(LOG_DEBUG)) log.debug(`roundtrip finished, rtt: ${formatDuration(ms)}`)
  }

  /** Large datagrams are lost and small ones arrive: logged once for each reduction. */
  #mtu(bytes: number): void {
    this.#host.log.warning(
      `datagrams of full size do not arrive, small ones do: going on with at most ${bytes} bytes; set kcp.mtu to spare the attempt`,
    )
  }

  /** A NAT gave the peer of a session another address. A rebinding moves all sessions at once: the text is built for few. */
  #migrated(handle: number): void {
    const { streams, log } = this.#host
    const engine = this.#engine
    // a client follows its server
    if (engine.peer !== undefined) engine.readPeer()
    const before = streams.peerOf(handle)
    streams.setPeer(handle, undefined)
    log.limited('migrated', LOG_NOTICE, () => {
      const after = engine.peerOf(handle)
      streams.setPeer(handle, after)
      const from = before === undefined ? '' : ` from ${formatAddress(before)}`
      return `${streams.label(handle)} peer moved${from} to ${after === undefined ? '(unknown)' : formatAddress(after)}`
    })
  }
}
