/**
 * The loop around one engine: datagrams in, drain, datagrams out, events, one host timer (docs/abi.md, "The rule").
 *
 * Sans-socket: UDP comes through `UdpHandlers`/`UdpSocket`, datagrams go in by receiver.ts and out by transmitter.ts, TCP is streams.ts. Start
 * order, names and policy are endpoint.ts.
 */
import { formatAddress } from './address.ts'
import { Complaints } from './complaints.ts'
import { type Core, type CoreConfig, ErrorCode, Event, EventType, Info, TICKS_PER_MS } from './core.ts'
import type { Aead } from './crypto/aead.ts'
import { formatDuration } from './format.ts'
import { LOG_DEBUG, LOG_ERROR, LOG_NOTICE, type Log } from './log.ts'
import { PeerCache } from './peers.ts'
import { type ReceiveHost, Receiver } from './receiver.ts'
import type {
  Runtime,
  SocketAddress,
  SocketTuning,
  TcpConnection,
  TcpHandlers,
  TcpOptions,
  UdpHandlers,
  UdpOptions,
  UdpSocket,
} from './runtime.ts'
import { type StreamHost, Streams } from './streams.ts'
import { type TransmitHost, Transmitter } from './transmitter.ts'

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
  /** dpi/tcp client: a context can be used. */
  onObfsReady?(context: number): void
  /** A context of the obfuscator timed out. */
  onObfsEnded?(context: number): void
  /** The engine trapped: everything is closed by now, this instance is over. */
  onFatal(error: Error): void
}

/** Drives one engine. Call `start` once, then `openUdp`. */
export class Driver implements StreamHost, ReceiveHost, TransmitHost {
  readonly runtime: Runtime
  readonly core: Core
  readonly log: Log
  readonly streams: Streams
  readonly complaints: Complaints
  #options: DriverOptions
  #aead: Aead | undefined
  #peers = new PeerCache()
  #receiver: Receiver
  #transmitter: Transmitter
  #dead = false
  #udp: UdpSocket | null = null
  /** Client: where new sessions go. */
  #peer: SocketAddress | undefined
  #pumping = false
  /** Something happened that needs another round. */
  #dirty = false
  #immediate: ReturnType<typeof setImmediate> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** When the host timer fires, ms of runtime.monotonic(). */
  #timerAt = 0
  /** Client: round trip of the last ping that was answered, ms; undefined before the first. */
  pongRtt: number | undefined
  /** How often what happened: for tests and the curious. */
  readonly counts = { drains: 0, timerWakes: 0 }

  constructor(options: DriverOptions) {
    this.#options = options
    this.runtime = options.runtime
    this.core = options.core
    this.log = options.log
    this.#aead = options.aead
    const clock = (): number => options.runtime.monotonic()
    this.complaints = new Complaints(options.core, options.log, options.aead !== undefined, clock)
    this.streams = new Streams(this, options.tcp, options.target)
    this.#receiver = new Receiver(this, options.aead, this.#peers)
    this.#transmitter = new Transmitter(this, options.aead, this.#peers)
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
      this.#use(null, undefined)
    }
    const tuned = { ...options, tuning: this.#options.udpTuning?.() }
    return this.open((handlers) => this.runtime.openUdp(tuned, handlers), options.connect)
  }

  /**
   * Takes what `openSocket` gives into use. The socket before serves until then.
   * @param connected the only peer of the socket, if it has just one
   * @throws what `openSocket` rejects with
   */
  async open(openSocket: (handlers: UdpHandlers) => Promise<UdpSocket>, connected?: SocketAddress): Promise<UdpSocket> {
    let own: UdpSocket | undefined
    const current = (): boolean => !this.#dead && own !== undefined && own === this.#udp
    const socket = await openSocket({
      onDatagram: (data, from) => {
        if (current()) this.#receive(data, from)
      },
      onBatchEnd: () => {
        if (current()) this.#batch()
      },
      onWritable: () => {
        if (!current()) return
        this.#transmitter.unblock()
        this.pump()
      },
      onError: (error) => {
        if (!current()) return
        this.#udpError(error)
        this.#options.onUdpError?.(error)
      },
    })
    if (this.#dead) {
      socket.close()
      throw new Error('closed')
    }
    own = socket
    this.#udp?.close()
    this.#use(socket, connected)
    this.complaints.udpOpened()
    this.pump()
    return socket
  }

  #use(socket: UdpSocket | null, connected: SocketAddress | undefined): void {
    this.#udp = socket
    this.#transmitter.attach(socket, connected)
  }

  /** The socket in use; none when the last one could not be opened. */
  get udp(): UdpSocket | undefined {
    return this.#udp ?? undefined
  }

  /** Client: where new sessions go; undefined = nowhere. */
  get peer(): SocketAddress | undefined {
    return this.#peer
  }

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

  /** Client: one PING to the peer now, beside the keepalive. */
  pingPeer(): void {
    this.#guarded(() => this.core.calls.ping_peer(this.now()))
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
      if (this.#receiver.receive(data, from)) this.#batch()
    } catch (error) {
      this.caught(error)
    }
  }

  /** The end of a receive batch. */
  #batch(): void {
    try {
      this.#receiver.handle()
    } catch (error) {
      this.caught(error)
    }
    this.pump()
  }

  // Drain

  #drain(): void {
    const { core } = this
    this.counts.drains++
    let timeouts = 0
    for (let round = 0; round < DRAIN_ROUNDS; round++) {
      this.#dirty = false
      const drained = this.#transmitter.transmit()
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
      else if (type === EventType.OBFS_READY) this.#options.onObfsReady?.(arg)
      else if (type === EventType.OBFS_ENDED) this.#obfsEnded()
      else this.streams.handle(type, handle, arg)
      if (this.#dead) return 0
      core.refresh()
    }
    return count
  }

  #obfsEnded(): void {
    for (let context = this.core.calls.obfs_ended(); context !== 0; context = this.core.calls.obfs_ended()) {
      this.#options.onObfsEnded?.(context)
    }
  }

  #resolve(): void {
    this.complaints.silent(this.#peer)
    this.#options.onResolve()
  }

  #pong(ticks: number): void {
    this.complaints.answered()
    const ms = ticks / TICKS_PER_MS
    this.pongRtt = ms
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
    if (this.complaints.udpError(error, this.#transmitter.longest) === 'back off') this.#transmitter.backOff()
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
    this.#transmitter.unblock()
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

  /** Calls of the engine from outside the loop, with the drain that must follow. */
  run(call: () => void): void {
    this.#guarded(call)
  }

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
    this.complaints.close()
    if (this.#immediate !== undefined) clearImmediate(this.#immediate)
    this.#immediate = undefined
    this.streams.abortAll()
    this.#udp?.close()
    this.#use(null, undefined)
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
