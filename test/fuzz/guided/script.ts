/** Host calls written as bytes: what the engine's targets take as input. Every byte string is a script. */
import { concat } from '../../../testkit/sim/wire.ts'

/** Calls, by their byte modulo their number. Numbers behind them are big endian; `which` counts the streams of the script. */
export const Op = {
  /** from: u8, length: u16, bytes */
  DATAGRAM: 0,
  /** ticks as a power of two: u8 */
  TIME: 1,
  /** stream_open */
  OPEN: 2,
  /** which: u8, length: u16 */
  WRITE: 3,
  READ: 4,
  SHUTDOWN: 5,
  ABORT: 6,
  /** which: u8, ok in its highest bit */
  CONNECTED: 7,
  /** set_peer. address: u8 */
  PEER: 8,
  /** set_rendezvous. length: u8, bytes */
  RENDEZVOUS: 9,
  PING: 10,
  NONCE: 11,
  /** configure. field: u8, value: u32 */
  CONFIGURE: 12,
  /** Any call with a number for a handle. call: u8, handle: u32, argument: u32 */
  HANDLE: 13,
  /** A captured packet. flags: u8, length: u16, bytes */
  PACKET: 14,
  /** obfs_accept, obfs_dial, obfs_release, obfs_configure. call and address: u8 */
  OBFUSCATOR: 15,
  DRAIN: 16,
} as const
export const OPS = 17

/** Bits of the first byte: what the application does by itself. */
export const Habit = { ACCEPT: 1, REFUSE: 2, READ: 4, ECHO: 8 } as const

/** Reads a script; behind its end are zeros. */
export class ScriptReader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get more(): boolean {
    return this.#at < this.#bytes.length
  }

  u8(): number {
    return this.#bytes[this.#at++] ?? 0
  }

  u16(): number {
    return (this.u8() << 8) | this.u8()
  }

  u32(): number {
    return ((this.u16() << 16) | this.u16()) >>> 0
  }

  /** As many of `length` bytes as there are. */
  take(length: number): Uint8Array {
    const bytes = this.#bytes.subarray(this.#at, this.#at + length)
    this.#at += bytes.length
    return bytes
  }
}

const u16 = (value: number): number[] => [(value >> 8) & 255, value & 255]

/** The bytes of a call with its numbers. */
export const call = (op: number, ...bytes: readonly number[]): Uint8Array => Uint8Array.from([op, ...bytes])

/** A datagram, or with PACKET a captured packet. */
export const deliver = (bytes: Uint8Array, from = 0, op: number = Op.DATAGRAM): Uint8Array =>
  concat(call(op, from, ...u16(bytes.length)), bytes)

export const script = (habits: number, ...calls: readonly Uint8Array[]): Uint8Array =>
  concat(Uint8Array.of(habits), ...calls)
