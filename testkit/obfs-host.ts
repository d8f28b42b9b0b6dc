/** One engine with an obfuscator; the test passes its packets by hand. */

import {
  Core,
  ErrorCode,
  Event,
  EventType,
  Mode,
  NonceStrategy,
  Obfs,
  ObfsKind,
  ObfsRx,
  ObfsTx,
  Rx,
  Tx,
  UNSET,
} from '../host/engine/core.ts'
import { type SocketAddress, writeRecord } from '../host/net/address.ts'
import { freshEngine } from './checked-core.ts'

const TICKS_PER_SECOND = 8000

/** `10.77.0.3:1`, `[fd77::2]:1` or `[fe80::1%2]:1`. */
export function address(text: string): SocketAddress {
  const at = text.lastIndexOf(':')
  const [host = '', scope] = text.slice(0, at).replace(/[[\]]/g, '').split('%')
  return {
    family: host.includes(':') ? 6 : 4,
    address: host,
    port: Number(text.slice(at + 1)),
    scope: Number(scope ?? 0),
  }
}

export interface Payload {
  readonly bytes: Uint8Array
  readonly context: number
}

export class ObfsHost {
  readonly core = new Core(freshEngine())
  now = 1000

  constructor(kind: 'dpi/tcp-wnd' | 'dpi/tcp', role: 'server' | 'client', local: string, keepalive = 2) {
    const { core } = this
    core.fillEntropy()
    const kcp = {
      sndwnd: UNSET,
      rcvwnd: UNSET,
      nodelay: UNSET,
      interval: UNSET,
      resend: UNSET,
      nc: UNSET,
      flush: UNSET,
    }
    core.configure(
      {
        mode: role === 'server' ? Mode.SERVER : Mode.CLIENT,
        tagBytes: 16,
        nonceBytes: 24,
        nonceStrategy: NonceStrategy.RANDOM,
        kcpMtu: 1320,
        ...kcp,
        ...{ timeout: 60, linger: 5, keepalive, timeWait: 5 },
        ...{ memoryCeiling: 64 << 20, maxSessions: 64, replayCapacity: 0, maxHalfOpen: 0 },
        ...{ confirm: 0, sendOnce: 0, searchMtu: 0 },
      },
      this.now,
    )
    core.u32[core.calls.obfs_ptr() >>> 2] = kind === 'dpi/tcp' ? ObfsKind.TCP : ObfsKind.TCP_WND
    this.bind(local)
  }

  /** Sets the local address. */
  bind(local: string): void {
    const { core } = this
    writeRecord(address(local), core.u8, (core.calls.obfs_ptr() >>> 0) + Obfs.local)
    const result = core.calls.obfs_configure(this.now)
    if (result !== 0) throw new Error(`obfs_configure: ${result}`)
    core.refresh()
  }

  #setRemote(remote: string): void {
    writeRecord(address(remote), this.core.u8, (this.core.calls.obfs_ptr() >>> 0) + Obfs.remote)
  }

  accept(remote: string): number {
    this.#setRemote(remote)
    return this.core.calls.obfs_accept(this.now)
  }

  dial(remote: string): number {
    this.#setRemote(remote)
    return this.core.calls.obfs_dial(this.now)
  }

  /** The payload received before accept(). */
  early(): Uint8Array | undefined {
    const at = this.core.calls.obfs_early_ptr() >>> 2
    return this.#payload(at)?.bytes
  }

  #payload(at: number): Payload | undefined {
    const { u32, u8 } = this.core
    if (u32[at + ObfsRx.flags] !== ObfsRx.HAS_PAYLOAD) return undefined
    const from = u32[at + ObfsRx.payload] ?? 0
    return {
      bytes: u8.slice(from, from + (u32[at + ObfsRx.payloadLength] ?? 0)),
      context: u32[at + ObfsRx.context] ?? 0,
    }
  }

  /** Passes captured packets to the engine. @returns the payloads among them */
  capture(...packets: readonly Uint8Array[]): Payload[] {
    const { core } = this
    packets.forEach((packet, i) => {
      const at = (core.calls.obfs_rx_ptr() >>> 2) + i * ObfsRx.WORDS
      core.u8.set(packet.subarray(0, core.u32[at + ObfsRx.capacity]), core.u32[at + ObfsRx.ptr])
      core.u32[at + ObfsRx.length] = packet.length
    })
    const count = core.calls.obfs_handle_packets(packets.length, this.now)
    core.refresh()
    const payloads = packets.map((_, i) => this.#payload((core.calls.obfs_rx_ptr() >>> 2) + i * ObfsRx.WORDS))
    const found = payloads.filter((payload) => payload !== undefined)
    if (found.length !== count) throw new Error(`${count} payloads counted, ${found.length} found`)
    return found
  }

  /** Passes a datagram to the engine as opened by the AEAD. @returns whether it was accepted */
  open(from: string, plain: Uint8Array, sealed: Uint8Array): boolean {
    const { core } = this
    const at = core.rxWord
    const ptr = core.u32[at + Rx.ptr] ?? 0
    core.u8.set(sealed, ptr)
    core.u8.set(plain, ptr)
    core.u32[at + Rx.length] = sealed.length
    core.u32[at + Rx.flags] = Rx.OPENED
    writeRecord(address(from), core.u8, (at + Rx.address) * 4)
    const accepted = core.calls.handle_datagrams(1, this.now)
    core.refresh()
    return accepted === 1
  }

  /** Plaintexts of the queued datagrams. */
  plains(): Uint8Array[] {
    const { core } = this
    const count = core.calls.poll_transmit(core.txSlots, this.now)
    core.refresh()
    return Array.from({ length: Math.max(count, 0) }, (_, i) => {
      const at = core.txWord + i * Tx.WORDS
      const source = core.u32[at + Tx.source] ?? 0
      return core.u8.slice(source, source + (core.u32[at + Tx.length] ?? 0))
    })
  }

  /** The packet that carries a payload to an address; undefined if there is no context for it. */
  send(to: string, payload: Uint8Array): Uint8Array | undefined {
    const { core } = this
    const at = core.calls.obfs_tx_ptr() >>> 2
    core.u8.set(payload, core.u32[at + ObfsTx.ptr])
    core.u32[at + ObfsTx.length] = payload.length
    writeRecord(address(to), core.u8, (at + ObfsTx.address) * 4)
    return core.calls.obfs_transmit(1, this.now) === 1 ? this.#packet(at) : undefined
  }

  #packet(at: number): Uint8Array {
    const from = this.core.u32[at + ObfsTx.packet] ?? 0
    return this.core.u8.slice(from, from + (this.core.u32[at + ObfsTx.packetLength] ?? 0))
  }

  /** The queued packets without payload. */
  controls(): Uint8Array[] {
    const count = this.core.calls.obfs_control()
    const first = this.core.calls.obfs_control_ptr() >>> 2
    return Array.from({ length: count }, (_, i) => this.#packet(first + i * ObfsTx.WORDS))
  }

  /** Advances the time and runs the timers due. */
  sleep(seconds: number): void {
    for (const end = this.now + seconds * TICKS_PER_SECOND; this.now < end; ) {
      const wait = this.core.calls.next_timeout(this.now)
      this.now = Math.min(end, this.now + Math.max(1, wait < 0 ? end : wait))
      this.core.calls.handle_timeout(this.now)
      while (this.core.calls.poll_transmit(64, this.now) > 0) {}
      this.core.refresh()
    }
  }

  /** Types and arguments of the queued events. */
  events(): (readonly [type: number, argument: number])[] {
    const count = this.core.calls.poll_events()
    return Array.from({ length: count }, (_, i) => {
      const at = this.core.eventWord + i * Event.WORDS
      return [this.core.u32[at + Event.type] ?? 0, this.core.u32[at + Event.arg] ?? 0] as const
    })
  }

  /** Contexts that timed out. */
  ended(): number[] {
    const ids: number[] = []
    for (let id = this.core.calls.obfs_ended(); id !== 0; id = this.core.calls.obfs_ended()) ids.push(id)
    return ids
  }
}

export { ErrorCode, EventType }
