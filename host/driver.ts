/**
 * The loop around one engine: datagrams in, drain, datagrams out, events, one host timer (docs/abi.md, "The rule").
 *
 * Sans-socket: UDP comes through `UdpHandlers`/`UdpSocket`, TCP through `streams.ts`. The hot path allocates nothing per
 * datagram but the short views that typed arrays need for copying. Start order, names and policy are endpoint.ts.
 */
import { formatAddress } from './address.ts'
import { Complaints } from './complaints.ts'
import {
  type Core,
  type CoreConfig,
  DATAGRAM_MAX,
  ErrorCode,
  Event,
  EventType,
  Info,
  Rx,
  TICKS_PER_MS,
  Tx,
} from './core.ts'
import type { Aead } from './crypto/aead.ts'
import { formatDuration } from './format.ts'
import { LOG_DEBUG, LOG_ERROR, LOG_NOTICE, type Log } from './log.ts'
import { PeerCache } from './peers.ts'
import type {
  Runtime,
  SocketAddress,
  SocketTuning,
  TcpConnection,
  TcpHandlers,
  TcpOptions,
  UdpOptions,
  UdpSocket,
} from './runtime.ts'
import { type StreamHost, Streams } from './streams.ts'
import { BlockViews } from './views.ts'

/** Longest delay of a host timer, ms: setTimeout takes a signed 32-bit number. */
const TIMER_MAX_MS = 0x7fffffff
/** Shortest delay of a host timer, ms. The engine's deadlines in the past are served at this pace at worst. */
const TIMER_MIN_MS = 1
/** A socket that took nothing is tried again after this time, ms, should onWritable not come. */
const BLOCKED_RETRY_MS = 1000
/** Rounds of one drain before the event loop gets a turn. */
const DRAIN_ROUNDS = 256
/** handle_timeout calls of one drain. */
const TIMEOUT_ROUNDS = 4
/** After ENOBUFS or EAGAIN nothing is sent for this time, ms. */
const BACKOFF_MS = 5
/** Send buffers asked for before the first poll_transmit of a drain; later rounds ask for a full array. */
const FIRST_BUFFERS = 8

export interface DriverOptions {
  readonly runtime: Runtime
  readonly core: Core
  /** Undefined: no method, datagrams are plaintext. */
  readonly aead: Aead | undefined
  readonly log: Log
  readonly tcp: TcpOptions
  /** Options of the UDP socket, of the configuration in force. */
  udpTuning?(): SocketTuning | undefined
  /** Server: where DIAL leads to. */
  target(): SocketAddress | undefined
  /** The engine heard nothing for T seconds (protocol.md 7.6). */
  onResolve(): void
  /** A rendezvous client found its peer, or found it elsewhere (protocol.md 8). */
  onPeerFound?(peer: SocketAddress): void
  /** The UDP socket reported an error: a hint. */
  onUdpError?(error: NodeJS.ErrnoException): void
  /** The engine trapped: everything is closed by now, this instance is over. */
  onFatal(error: Error): void
}

/** Drives one engine. Call `start` once, then `openUdp`. */
export class Driver implements StreamHost {
  readonly runtime: Runtime
  readonly core: Core
  readonly log: Log
  readonly streams: Streams
  readonly complaints: Complaints
  #options: DriverOptions
  #aead: Aead | undefined
  #peers = new PeerCache()
  #views = new BlockViews()
  #dead = false
  #udp: UdpSocket | null = null
  /** Receiver of everything, when the socket is connected. */
  #connected: SocketAddress | undefined
  /** Filled receive descriptors that the engine has not seen. */
  #filled = 0
  /** Buffers from acquire() that wait for a datagram. */
  #spare: Uint8Array[] = []
  /** Source of the last datagram, and of the last one that did not open, since the engine was told. */
  #lastFrom: SocketAddress | undefined
  #failedFrom: SocketAddress | undefined
  /** Client: where new sessions go. */
  #peer: SocketAddress | undefined
  /** Bytes of the longest datagram sent. */
  #longest = 0
  /** Runs while nothing is sent because the system asked for a pause. */
  #backoff: ReturnType<typeof setTimeout> | undefined
  /** acquire() gave null and onWritable has not come. */
  #blocked = false
  #pumping = false
  /** Something happened that needs another round. */
  #dirty = false
  #immediate: ReturnType<typeof setImmediate> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** When the host timer fires, ms of runtime.monotonic(). */
  #timerAt = 0
  /** How often what happened: for tests and the curious. */
  readonly counts = { drains: 0, timerWakes: 0, sent: 0 }

  constructor(options: DriverOptions) {
    this.#options = options
    this.runtime = options.runtime
    this.core = options.core
    this.log = options.log
    this.#aead = options.aead
    const clock = (): number => options.runtime.monotonic()
    this.complaints = new Complaints(options.core, options.log, options.aead !== undefined, clock)
    this.streams = new Streams(this, options.tcp, options.target)
  }

  get dead(): boolean {
    return this.#dead
  }

  /** The engine's clock: ticks of 1/8 ms, wrapping. */
  now(): number {
    return (this.runtime.monotonic() * TICKS_PER_MS) >>> 0
  }

  /**
   * First configuration of the engine.
   * @throws Error naming the field that is out of range
   */
  start(config: CoreConfig): void {
    this.core.fillEntropy()
    this.core.configure(config, this.now())
  }

  /** Later configuration: what docs/abi.md lets change. */
  reconfigure(config: CoreConfig): void {
    this.#guarded(() => this.core.configure(config, this.now()))
  }

  /**
   * Opens a UDP socket and takes it into use. The one before is closed first when it has the same port, else it serves
   * until the new one does.
   * @throws what Runtime.openUdp rejects with; without a socket what the engine sends is lost
   */
  async openUdp(options: UdpOptions): Promise<UdpSocket> {
    if (options.bind.port !== 0 && options.bind.port === this.#udp?.local.port) {
      this.#udp.close()
      this.#udp = null
    }
    let own: UdpSocket | undefined
    const current = (): boolean => !this.#dead && own !== undefined && own === this.#udp
    const socket = await this.runtime.openUdp(
      { ...options, tuning: this.#options.udpTuning?.() },
      {
        onDatagram: (data, from) => {
          if (current()) this.#receive(data, from)
        },
        onBatchEnd: () => {
          if (!current()) return
          this.#handleFilled()
          this.pump()
        },
        onWritable: () => {
          if (!current()) return
          this.#blocked = false
          this.pump()
        },
        onError: (error) => {
          if (!current()) return
          this.#udpError(error)
          this.#options.onUdpError?.(error)
        },
      },
    )
    if (this.#dead) {
      socket.close()
      throw new Error('closed')
    }
    own = socket
    this.#udp?.close()
    this.#udp = socket
    this.#connected = options.connect
    this.#spare = []
    this.#blocked = false
    this.#endBackoff()
    this.complaints.udpOpened()
    this.pump()
    return socket
  }

  /** The socket in use; none when the last one could not be opened. */
  get udp(): UdpSocket | undefined {
    return this.#udp ?? undefined
  }

  /** Client: where new sessions go; undefined = nowhere. */
  setPeer(peer: SocketAddress | undefined): void {
    this.#peer = peer
    this.#guarded(() => {
      const { core } = this
      core.refresh()
      const word = core.calls.peer_ptr() >>> 2
      if (peer === undefined) core.u32.fill(0, word, word + 6)
      else this.#peers.write(peer, core.u32, word)
      core.calls.set_peer(this.now())
    })
  }

  /**
   * With a rendezvous server: where it is, what our own socket is called locally, and the service; LISTEN or CONNECT
   * leaves at once (protocol.md 8).
   */
  setRendezvous(server: SocketAddress, local: SocketAddress, service: Uint8Array): void {
    this.#guarded(() => {
      const { core } = this
      core.refresh()
      this.#peers.write(server, core.u32, core.calls.rendezvous_ptr() >>> 2)
      this.#peers.write(local, core.u32, core.calls.local_ptr() >>> 2)
      core.u8.set(service, core.calls.service_ptr() >>> 0)
      core.calls.set_rendezvous(service.length, this.now())
    })
  }

  /** Client: whether the peer leaves pings unanswered. */
  get peerSilent(): boolean {
    return !this.#dead && this.core.counter('peer_silent_pings') > 0n
  }

  /** Counter nonces: draw the base again (protocol.md 7.6). */
  renewNonce(): void {
    this.#guarded(() => {
      if (this.core.calls.renew_nonce() === ErrorCode.ENTROPY) {
        this.core.fillEntropy()
        this.core.calls.renew_nonce()
      }
    })
  }

  /** For Runtime.listenTcp. */
  readonly accept = (connection: TcpConnection): TcpHandlers | null => this.streams.accept(connection)

  wake(): void {
    if (this.#dead || this.#pumping) {
      this.#dirty = true
      return
    }
    this.#immediate ??= setImmediate(this.#onImmediate)
  }

  wakeLate(): void {
    if (this.#dead || this.#pumping) {
      this.#dirty = true
      return
    }
    this.#immediate ??= setImmediate(this.#onEarlyImmediate)
  }

  /** What a callback threw. A trap of the engine ends everything. Result: whether it did. */
  caught(error: unknown): boolean {
    if (this.#dead) return true
    if (isTrap(error)) {
      this.#trap(error)
      return true
    }
    this.log.limited('unexpected', LOG_ERROR, () => `unexpected error: ${describe(error)}`)
    return false
  }

  /** Drains the engine and arms the timer. */
  pump(): void {
    if (this.#dead) return
    if (this.#pumping) {
      this.#dirty = true
      return
    }
    this.#pumping = true
    try {
      this.#drain()
    } catch (error) {
      if (!this.caught(error)) this.#arm(TIMER_MIN_MS)
    } finally {
      this.#pumping = false
    }
  }

  /** Stops: resets TCP, closes UDP, wipes the key. Sends nothing to the peer (protocol.md 6.8). */
  close(): void {
    if (this.#dead) return
    this.#dead = true
    this.#stop()
  }

  // Receive

  #receive(data: Uint8Array, from: SocketAddress): void {
    try {
      const { core } = this
      core.refresh()
      const at = core.rxWord + this.#filled * Rx.WORDS
      const { u8, u32 } = core
      const { length } = data
      const ptr = u32[at + Rx.ptr] ?? 0
      let flags = 0
      if (length <= DATAGRAM_MAX) {
        if (this.#aead === undefined) {
          u8.set(data, ptr)
          flags = Rx.OPENED
        } else if (this.#aead.openInto(data, length, u8, ptr) >= 0) {
          flags = Rx.OPENED
        } else {
          this.#failedFrom = from
        }
      }
      u32[at + Rx.length] = length
      u32[at + Rx.flags] = flags
      this.#peers.write(from, u32, at + Rx.address)
      this.#lastFrom = from
      this.#filled++
      if (this.#filled === core.rxSlots) {
        this.#handleFilled()
        this.pump()
      }
    } catch (error) {
      this.caught(error)
    }
  }

  #handleFilled(): void {
    const count = this.#filled
    if (count === 0) return
    this.#filled = 0
    try {
      const accepted = this.core.calls.handle_datagrams(count, this.now())
      this.core.refresh()
      if (accepted < count) this.complaints.dropped(this.#failedFrom, this.#lastFrom)
      this.#failedFrom = undefined
    } catch (error) {
      this.caught(error)
    }
  }

  // Drain

  #drain(): void {
    const { core } = this
    this.counts.drains++
    let timeouts = 0
    for (let round = 0; round < DRAIN_ROUNDS; round++) {
      this.#dirty = false
      const drained = this.#transmit()
      const events = this.#events()
      if (this.#dead) return
      if (events > 0 || this.#dirty) continue
      if (!drained) {
        // timers are for a drained engine (docs/abi.md, "The rule"); onWritable goes on
        this.#disarm()
        this.#arm(BLOCKED_RETRY_MS)
        return
      }
      const wait = core.calls.next_timeout(this.now())
      if (wait === 0 && timeouts < TIMEOUT_ROUNDS) {
        timeouts++
        core.calls.handle_timeout(this.now())
        core.refresh()
        continue
      }
      if (wait < 0) this.#disarm()
      else this.#arm(Math.ceil((wait >>> 0) / TICKS_PER_MS))
      return
    }
    // more to do, but others want the event loop too
    this.#immediate ??= setImmediate(this.#onImmediate)
  }

  /** Sends what the engine has. Result: whether that was all. Without a socket datagrams are lost, as on any bad network. */
  #transmit(): boolean {
    const udp = this.#udp
    const { core } = this
    let sent = false
    let drained = false
    let refills = 0
    let want = FIRST_BUFFERS
    for (;;) {
      if (this.#backoff !== undefined) break
      const max = udp === null ? core.txSlots : this.#stock(udp, want)
      if (max === 0) break
      const count = core.calls.poll_transmit(max, this.now())
      core.refresh()
      if (count === ErrorCode.ENTROPY) {
        if (++refills > 2) throw new Error('the engine wants more random bytes than fit')
        core.fillEntropy()
        continue
      }
      if (count < 0) throw new Error(`poll_transmit failed with code ${count}`)
      if (count === 0) {
        drained = true
        break
      }
      refills = 0
      want = core.txSlots
      if (udp === null) continue
      for (let i = 0; i < count; i++) this.#send(udp, core.txWord + i * Tx.WORDS)
      sent = true
    }
    if (sent) udp?.flush()
    return drained
  }

  /** Takes send buffers from the socket until there are `want` of them, or none is free. Result: how many there are. */
  #stock(udp: UdpSocket, want: number): number {
    const spare = this.#spare
    while (spare.length < want && !this.#blocked) {
      const buffer = udp.acquire()
      if (buffer === null) this.#blocked = true
      else spare.push(buffer)
    }
    return Math.min(spare.length, this.core.txSlots)
  }

  /** Seals and sends the datagram of one descriptor. */
  #send(udp: UdpSocket, at: number): void {
    const buffer = this.#spare.pop()
    if (buffer === undefined) return
    const { u8, u32 } = this.core
    const source = u32[at + Tx.source] ?? 0
    const length = u32[at + Tx.length] ?? 0
    let total = length
    let to = this.#connected
    try {
      to ??= this.#peers.read(u32, (u32[at + Tx.address] ?? 0) >>> 2)
      if (this.streams.unnamed > 0) this.#name(u32[at + Tx.handle] ?? 0, source, to)
      if (this.#aead === undefined) buffer.set(this.#views.at(u8, source, length))
      else total = this.#aead.seal(u8, source, length, u8, u32[at + Tx.nonce] ?? 0, buffer, 0)
    } catch (error) {
      // nothing went out: the buffer is still ours
      this.#spare.push(buffer)
      throw error
    }
    if (total > this.#longest) this.#longest = total
    udp.send(buffer, total, to)
    this.counts.sent++
  }

  /** conv is the first field of the plaintext (protocol.md 5.1). */
  #name(handle: number, source: number, peer: SocketAddress): void {
    if (handle === 0) return
    const { u8 } = this.core
    let conv = 0
    for (let i = 0; i < 4; i++) conv = (conv << 8) | (u8[source + i] ?? 0)
    this.streams.name(handle, conv >>> 0, peer)
  }

  /** Handles the engine's events once. Result: how many there were. */
  #events(): number {
    const { core } = this
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
      else if (type === EventType.PEER_FOUND) this.#peerFound()
      else if (type === EventType.MIGRATED) this.#migrated(handle)
      else if (type === EventType.MTU) this.#mtu(arg)
      else this.streams.handle(type, handle, arg)
      if (this.#dead) return 0
      core.refresh()
    }
    return count
  }

  #resolve(): void {
    this.complaints.silent(this.#peer)
    this.#options.onResolve()
  }

  #pong(ticks: number): void {
    this.complaints.answered()
    const ms = ticks / TICKS_PER_MS
    if (this.log.at(LOG_DEBUG)) this.log.debug(`roundtrip finished, rtt: ${formatDuration(ms)}`)
  }

  /** Large datagrams vanish and small ones pass: said once for each step down. */
  #mtu(bytes: number): void {
    this.log.warning(
      `datagrams of full size do not arrive, small ones do: going on with at most ${bytes} bytes; set kcp.mtu to spare the attempt`,
    )
  }

  #peerFound(): void {
    const { core } = this
    this.#peer = this.#peers.read(core.u32, core.calls.peer_ptr() >>> 2)
    this.#options.onPeerFound?.(this.#peer)
  }

  /** A NAT gave the peer of a session another address. A rebinding moves all sessions at once: the text is built for few. */
  #migrated(handle: number): void {
    const { streams } = this
    const before = streams.peerOf(handle)
    streams.setPeer(handle, undefined)
    this.log.limited('migrated', LOG_NOTICE, () => {
      const after = this.#peerOf(handle)
      streams.setPeer(handle, after)
      const from = before === undefined ? '' : ` from ${formatAddress(before)}`
      return `${streams.label(handle)} peer moved${from} to ${after === undefined ? '(unknown)' : formatAddress(after)}`
    })
  }

  /** Peer of a session as the engine has it. Looks at every session. */
  #peerOf(handle: number): SocketAddress | undefined {
    const { calls } = this.core
    const slots = calls.session_slots()
    for (let slot = 0; slot < slots; slot++) {
      if (calls.session_info(slot, this.now()) !== handle) continue
      this.core.refresh()
      return this.#peers.read(this.core.u32, (calls.info_ptr() + Info.address) >>> 2)
    }
    return undefined
  }

  // Errors of the socket

  #udpError(error: NodeJS.ErrnoException): void {
    if (this.complaints.udpError(error, this.#longest) === 'back off') {
      this.#backoff ??= setTimeout(this.#onBackoffEnd, BACKOFF_MS)
    }
  }

  readonly #onBackoffEnd = (): void => {
    this.#backoff = undefined
    this.pump()
  }

  #endBackoff(): void {
    clearTimeout(this.#backoff)
    this.#backoff = undefined
  }

  // Timer

  /** One host timer. One that is due earlier is left alone: it looks again when it fires, which is cheaper than re-arming. */
  #arm(delay: number): void {
    const wanted = Math.min(Math.max(delay, TIMER_MIN_MS), TIMER_MAX_MS)
    const at = this.runtime.monotonic() + wanted
    if (this.#timer !== undefined) {
      if (this.#timerAt <= at) return
      clearTimeout(this.#timer)
    }
    this.#timerAt = at
    this.#timer = setTimeout(this.#onTimer, wanted)
  }

  #disarm(): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    if (this.#dead) return
    this.counts.timerWakes++
    this.#blocked = false
    // the drain calls handle_timeout when it is due, and arms for the rest when this fired early
    this.pump()
  }

  readonly #onImmediate = (): void => {
    this.#immediate = undefined
    this.pump()
  }

  readonly #onEarlyImmediate = (): void => {
    this.#immediate = this.#dead ? undefined : setImmediate(this.#onImmediate)
  }

  // Errors and the end

  /** A mutator from outside the loop, with its drain. */
  #guarded(call: () => void): void {
    if (this.#dead) return
    try {
      call()
      this.core.refresh()
    } catch (error) {
      if (this.caught(error)) return
      throw error
    }
    this.pump()
  }

  #trap(error: Error): void {
    this.#dead = true
    const bytes = this.core.calls.memory.buffer.byteLength
    this.log.fatal(`the engine trapped: ${error.message}; ${this.streams.size} streams lost, memory ${bytes} bytes`)
    for (const line of (error.stack ?? '').split('\n').slice(1)) this.log.fatal(line.trim())
    this.#stop()
    this.#options.onFatal(error)
  }

  #stop(): void {
    this.#disarm()
    this.#endBackoff()
    this.complaints.close()
    if (this.#immediate !== undefined) clearImmediate(this.#immediate)
    this.#immediate = undefined
    this.streams.abortAll()
    this.#udp?.close()
    this.#udp = null
    this.#spare = []
    this.#aead?.wipe()
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

/** Whether an error is the engine's: a trap, or a stack that overflowed. */
function isTrap(error: unknown): error is Error {
  return error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message))
}
