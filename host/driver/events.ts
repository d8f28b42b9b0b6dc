/**
 * Dispatches the engine's events (docs/abi.md, "Event"): stream events to stream-table.ts, all others to the log and to
 * the owner of the driver.
 */

import { MODE_CLIENT } from '../config/config.ts'
import { Event, EventType, TICKS_PER_MS } from '../engine/core.ts'
import type { Engine } from '../engine/engine.ts'
import { formatDuration } from '../format.ts'
import { LOG_DEBUG, LOG_NOTICE, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { PeerKind, PeerLog } from './peer-log.ts'
import type { StreamTable } from './stream-table.ts'

/** Callbacks for events that concern neither streams nor the log. */
export interface EventHandlers {
  /** The engine received nothing for T seconds (protocol.md 7.6). */
  onResolve(): void
  /** The peer answered at the probing socket. */
  onProbed?(): void
  /** A rendezvous client found its peer, or found it at a new address (protocol.md 8). */
  onPeerFound?(peer: SocketAddress): void
  /** Client: the peer became silent, answered, or was found. */
  onPeerState?(): void
  /** A session follows its peer to another address. */
  onMigrated?(handle: number): void
  /** dpi/tcp client: a context is ready. */
  onObfsReady?(context: number): void
  /** A context of the obfuscator timed out. */
  onObfsEnded?(context: number): void
}

/** The part of the driver used by Events. */
export interface EventHost {
  readonly streams: StreamTable
  readonly peerLog: PeerLog
  readonly log: Log
  /** Whether no engine may be called. */
  readonly dead: boolean
  /** Whether the sending socket merges datagrams. */
  readonly isMerging: boolean
  /** Client: the peer became silent, answered, or was found. */
  onPeerState(): void
}

export class Events {
  /** Client: round-trip time of the last answered ping, ms; undefined before the first. */
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
   * Polls the engine once and handles its events.
   * @returns number of events; 0 if the engine trapped
   */
  handle(): number {
    const { core } = this.#engine
    const host = this.#host
    const count = core.calls.poll_events()
    let pong: number | undefined
    core.refresh()
    for (let i = 0; i < count; i++) {
      // read the views again each time: a handler may call the engine, which may grow its memory
      const at = core.eventWord + i * Event.WORDS
      const type = core.u32[at + Event.type] ?? 0
      const handle = core.u32[at + Event.handle] ?? 0
      const arg = core.u32[at + Event.arg] ?? 0
      // last: who answered may be a peer that PEER_FOUND, a later event, is about
      if (type === EventType.PONG) pong = arg
      else if (type === EventType.RESOLVE) this.#resolve()
      else if (type === EventType.PROBED) this.#handlers.onProbed?.()
      else if (type === EventType.PEER_FOUND) this.#found()
      else if (type === EventType.MIGRATED) this.#migrated(handle)
      else if (type === EventType.MTU) this.#mtu(arg)
      else if (type === EventType.RUNS_LOST) this.#runsLost(arg)
      else if (type === EventType.OBFS_READY) this.#handlers.onObfsReady?.(arg)
      else if (type === EventType.OBFS_ENDED) this.#obfsEnded()
      else host.streams.handle(type, handle, arg)
      if (host.dead) return 0
      core.refresh()
    }
    if (pong !== undefined) {
      this.#pong(pong)
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

  #found(): void {
    this.#host.peerLog.found()
    this.#handlers.onPeerFound?.(this.#engine.readPeer())
    this.#host.onPeerState()
  }

  #resolve(): void {
    const { core } = this.#engine
    const pings = Number(core.counter('peer_silent_pings'))
    const pinged = this.#pinged()
    if (pings !== 0 && pinged !== undefined) {
      this.#host.peerLog.silent(pinged, this.#kind, pings, core.receivedAge(this.#engine.now()))
    }
    this.#host.onPeerState()
    this.#handlers.onResolve()
  }

  /** Who is pinged: the peer, or without one the rendezvous server. */
  #pinged(): SocketAddress | undefined {
    return this.#engine.peer ?? this.#engine.announcement?.server
  }

  get #kind(): PeerKind {
    return this.#engine.peer === undefined ? 'rendezvous server' : 'peer'
  }

  #pong(ticks: number): void {
    const { peerLog, log } = this.#host
    const ms = ticks / TICKS_PER_MS
    const pinged = this.#pinged()
    const isBack = pinged !== undefined && peerLog.answered(pinged, this.#kind, ms)
    if (this.#kind === 'rendezvous server') this.#onRendezvous(isBack)
    if (this.#engine.peer !== undefined) this.pongRtt = ms
    this.#host.onPeerState()
    if (log.at(LOG_DEBUG)) log.debug(`roundtrip finished, rtt: ${formatDuration(ms)}`)
  }

  /** The rendezvous server answers. What was announced while it did not is lost: the next time is up to `keepalive` away. */
  #onRendezvous(isBack: boolean): void {
    const { announcement, config } = this.#engine
    if (announcement === undefined || config === undefined) return
    if (isBack) this.#engine.announce()
    if ((config.mode & MODE_CLIENT) !== 0) this.#host.peerLog.searching(new TextDecoder().decode(announcement.service))
  }

  /** The engine reduced the datagram size: large datagrams are lost while small ones arrive. */
  #mtu(bytes: number): void {
    this.#host.log.warning(
      `full-size datagrams are lost, small ones arrive: limiting them to ${bytes} bytes; set kcp.mtu to avoid this`,
    )
  }

  /** The engine gives up merged datagrams to the peer of a session. Without them, something else lost the datagrams. */
  #runsLost(handle: number): void {
    if (!this.#host.isMerging) return
    const peer = this.#engine.peerOf(handle)
    this.#host.log.warning(
      `datagrams that are passed to the kernel merged (UDP_SEGMENT) are lost, single ones arrive: sending single ones${
        peer === undefined ? '' : ` to ${formatAddress(peer)}`
      } for an hour; look for a firewall rule that matches the length of packets, or set udp.gso = off`,
    )
  }

  /** The peer's address changed (NAT rebinding). All sessions migrate at once, so the log line is rate-limited. */
  #migrated(handle: number): void {
    const { streams, log } = this.#host
    const engine = this.#engine
    // a client adopts its server's new address
    if (engine.peer !== undefined) engine.readPeer()
    const before = streams.peerOf(handle)
    streams.setPeer(handle, undefined)
    this.#handlers.onMigrated?.(handle)
    log.limited('migrated', LOG_NOTICE, () => {
      const after = engine.peerOf(handle)
      streams.setPeer(handle, after)
      const from = before === undefined ? '' : ` from ${formatAddress(before)}`
      return `${streams.label(handle)} peer moved${from} to ${after === undefined ? '(unknown)' : formatAddress(after)}`
    })
  }
}
