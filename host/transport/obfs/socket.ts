/**
 * The driver's socket of an obfuscated transport (protocol.md 9): passes captured packets to the engine and their
 * payloads to the driver; adds the engine's headers to the driver's datagrams and sends them through a raw socket.
 * Connections, dials and names are in server.ts and client.ts.
 */

import { type Core, Obfs, ObfsRx, ObfsTx } from '../../engine/core.ts'
import type { SocketAddress } from '../../net/address.ts'
import { AddressCache } from '../../net/address-cache.ts'
import type { Clock, Timer, UdpHandlers, UdpSocket } from '../../runtime.ts'

/** Size of a send buffer, bytes. The engine's slots are larger. */
const BUFFER_BYTES = 1536
/** Maximum number of queued datagrams; a power of two. */
const QUEUE_SLOTS = 256
/** A full raw socket is retried after this time, ms. */
const FULL_RETRY_MS = 1
/** Maximum batches of packets without payload sent at once. */
const CONTROL_ROUNDS = 8

/** Source of captured packets, see PacketSocket. */
export interface PacketSide {
  attach(ifindex: number, filterPtr: number, count: number): void
  close(): void
}

/** Sink of outgoing packets, see RawSocket. */
export interface RawSide {
  send(descriptorsPtr: number, from: number, count: number): number
  close(): void
}

export interface ObfsSocketOptions {
  /** The engine in use. */
  readonly core: Core
  /** Whether no engine may be called. */
  readonly dead: boolean
  readonly clock: Clock
  /** See ObfsKind. */
  readonly kind: number
  readonly handlers: UdpHandlers
  /** Current time of the engine's clock. */
  now(): number
  /** Handles an exception thrown by a callback. */
  caught(error: unknown): void
  openPacket(onBatch: (count: number) => void): PacketSide
  openRaw(): RawSide
}

const NOWHERE: SocketAddress = { family: 4, address: '0.0.0.0', port: 0, scope: 0 }

export class ObfsSocket implements UdpSocket {
  #local = NOWHERE
  readonly #options: ObfsSocketOptions
  readonly #packet: PacketSide
  readonly #raw: RawSide
  readonly #slots: number
  readonly #peers = new AddressCache()
  /** Cached views of the payload of each receive descriptor, the early one last; most payloads have the same length. */
  readonly #views: (Uint8Array | undefined)[]
  readonly #free: Uint8Array[] = []
  /** Buffers held by the driver or queued here. */
  #taken = 0
  /** acquire() returned null and onWritable has not been called since. */
  #starved = false
  /** Ring of queued datagrams. */
  readonly #buffers: (Uint8Array | undefined)[] = new Array<undefined>(QUEUE_SLOTS).fill(undefined)
  readonly #lengths = new Uint32Array(QUEUE_SLOTS)
  readonly #receivers: SocketAddress[] = new Array<SocketAddress>(QUEUE_SLOTS).fill(NOWHERE)
  #first = 0
  #waiting = 0
  /** Descriptors of packets not yet accepted by the raw socket: from `#sent` to `#ready`. */
  #ready = 0
  #sent = 0
  #retry: Timer | undefined
  #closed = false

  /** Opens both sockets. @throws NotAvailable */
  constructor(options: ObfsSocketOptions) {
    this.#options = options
    this.#slots = options.core.calls.obfs_slots()
    this.#views = new Array<undefined>(this.#slots + 1).fill(undefined)
    this.#packet = options.openPacket((count) => this.#onBatch(count))
    try {
      this.#raw = options.openRaw()
    } catch (error) {
      this.#packet.close()
      throw error
    }
  }

  get local(): SocketAddress {
    return this.#local
  }

  /**
   * Sets the local address; only packets to it are received afterwards.
   * @param local port 0 and the wildcard address match any
   * @param ifindex 0: all interfaces
   */
  attach(local: SocketAddress, ifindex: number): void {
    const { core, kind, now } = this.#options
    const block = core.calls.obfs_ptr() >>> 0
    core.refresh()
    core.u32[(block + Obfs.kind) >>> 2] = kind
    this.#peers.write(local, core.u32, (block + Obfs.local) >>> 2)
    const result = core.calls.obfs_configure(now())
    core.refresh()
    if (result !== 0) throw new Error(`engine: obfs_configure failed with code ${result}`)
    this.#packet.attach(ifindex, block + Obfs.filter, core.u32[(block + Obfs.filterLength) >>> 2] ?? 0)
    this.#local = local
  }

  /** Another engine is in use, without contexts: drops the queued datagrams. The caller must then call attach(). */
  engineReplaced(): void {
    this.#options.clock.clearTimer(this.#retry)
    this.#retry = undefined
    this.#ready = 0
    this.#sent = 0
    this.#views.fill(undefined)
    while (this.#waiting > 0) {
      const buffer = this.#buffers[this.#first]
      if (buffer !== undefined) this.#free.push(buffer)
      this.#first = (this.#first + 1) & (QUEUE_SLOTS - 1)
      this.#waiting--
      this.#taken--
    }
  }

  /**
   * Server: creates the context of a TCP connection from `remote` and delivers a payload received before it.
   * @returns the context; 0 = refuse the connection
   */
  accept(remote: SocketAddress): number {
    const { core, now } = this.#options
    const context = this.#withRemote(remote, () => core.calls.obfs_accept(now()))
    if (context <= 0) return 0
    if (this.#deliver((core.calls.obfs_early_ptr() >>> 0) >>> 2, this.#slots)) this.#options.handlers.onBatchEnd()
    return context
  }

  /**
   * Client: creates a new context for `remote`.
   * @returns the context
   * @throws Error if the engine refuses
   */
  dial(remote: SocketAddress): number {
    const { core, now } = this.#options
    const context = this.#withRemote(remote, () => core.calls.obfs_dial(now()))
    if (context <= 0) throw new Error(`engine: obfs_dial failed with code ${context}`)
    return context
  }

  /** Ends a context and its sessions. */
  release(context: number): void {
    const { core, now } = this.#options
    core.calls.obfs_release(context, now())
    core.refresh()
  }

  #withRemote(remote: SocketAddress, call: () => number): number {
    const { core } = this.#options
    core.refresh()
    this.#peers.write(remote, core.u32, ((core.calls.obfs_ptr() >>> 0) + Obfs.remote) >>> 2)
    const result = call()
    core.refresh()
    this.#control()
    return result
  }

  acquire(): Uint8Array | null {
    if (this.#taken === QUEUE_SLOTS) {
      this.#starved = true
      return null
    }
    this.#taken++
    return this.#free.pop() ?? new Uint8Array(BUFFER_BYTES)
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress): void {
    if (this.#closed) return
    const at = (this.#first + this.#waiting) & (QUEUE_SLOTS - 1)
    this.#buffers[at] = buffer
    this.#lengths[at] = length
    this.#receivers[at] = to
    this.#waiting++
  }

  flush(): void {
    const { core, now } = this.#options
    while (this.#push() && this.#waiting > 0) {
      const count = this.#fill()
      core.calls.obfs_transmit(count, now())
      core.refresh()
      this.#ready = count
      this.#sent = 0
    }
    if (!this.#starved || this.#taken > QUEUE_SLOTS / 2) return
    this.#starved = false
    this.#options.clock.defer(() => {
      if (!this.#closed) this.#options.handlers.onWritable()
    })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#options.clock.clearTimer(this.#retry)
    this.#packet.close()
    this.#raw.close()
  }

  /**
   * Moves queued datagrams into the engine's slots.
   * @returns number of datagrams moved
   */
  #fill(): number {
    const { core } = this.#options
    const base = (core.calls.obfs_tx_ptr() >>> 0) >>> 2
    const count = Math.min(this.#waiting, this.#slots)
    for (let i = 0; i < count; i++) {
      const buffer = this.#buffers[this.#first]
      const at = base + i * ObfsTx.WORDS
      core.u32[at + ObfsTx.length] = this.#lengths[this.#first] ?? 0
      this.#peers.write(this.#receivers[this.#first] ?? NOWHERE, core.u32, at + ObfsTx.address)
      if (buffer !== undefined) {
        // copies the whole buffer: a view of the datagram would cost more than copying the rest
        core.u8.set(buffer, core.u32[at + ObfsTx.ptr] ?? 0)
        this.#free.push(buffer)
      }
      this.#first = (this.#first + 1) & (QUEUE_SLOTS - 1)
    }
    this.#waiting -= count
    this.#taken -= count
    return count
  }

  /**
   * Passes packets to the raw socket.
   * @returns whether it accepted all of them
   */
  #push(): boolean {
    if (this.#retry !== undefined) return false
    if (this.#sent < this.#ready) {
      const { calls } = this.#options.core
      this.#sent += this.#raw.send(calls.obfs_tx_ptr() >>> 0, this.#sent, this.#ready - this.#sent)
    }
    if (this.#sent >= this.#ready) return true
    this.#retry = this.#options.clock.setTimer(() => {
      this.#retry = undefined
      if (!this.#options.dead) this.#guarded(() => this.flush())
    }, FULL_RETRY_MS)
    return false
  }

  /** Sends the engine's packets without payload. They are dropped if the raw socket is full. */
  #control(): void {
    const { core } = this.#options
    for (let round = 0; round < CONTROL_ROUNDS; round++) {
      const count = core.calls.obfs_control()
      core.refresh()
      if (count <= 0) return
      this.#raw.send(core.calls.obfs_control_ptr() >>> 0, 0, count)
    }
  }

  #onBatch(count: number): void {
    if (this.#closed || this.#options.dead) return
    const { core, now, handlers } = this.#options
    this.#guarded(() => {
      core.calls.obfs_handle_packets(count, now())
      core.refresh()
      const base = (core.calls.obfs_rx_ptr() >>> 0) >>> 2
      for (let i = 0; i < count && !this.#closed; i++) this.#deliver(base + i * ObfsRx.WORDS, i)
      if (this.#closed || this.#options.dead) return
      this.#control()
      handlers.onBatchEnd()
    })
  }

  /**
   * Delivers the payload of a receive descriptor.
   * @returns whether there was one
   */
  #deliver(at: number, slot: number): boolean {
    const { core, handlers } = this.#options
    // read the views again each time: a handler may call the engine, which may grow its memory
    const { u8, u32 } = core
    if (((u32[at + ObfsRx.flags] ?? 0) & ObfsRx.HAS_PAYLOAD) === 0) return false
    const start = u32[at + ObfsRx.payload] ?? 0
    const length = u32[at + ObfsRx.payloadLength] ?? 0
    let view = this.#views[slot]
    if (view?.buffer !== u8.buffer || view.byteOffset !== start || view.length !== length) {
      view = u8.subarray(start, start + length)
      this.#views[slot] = view
    }
    handlers.onDatagram(view, this.#peers.read(u32, (u32[at + ObfsRx.address] ?? 0) >>> 2))
    return true
  }

  #guarded(call: () => void): void {
    try {
      call()
    } catch (error) {
      this.#options.caught(error)
    }
  }
}
