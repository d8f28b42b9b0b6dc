/**
 * Bytes whose place in their stream is known, so that a wrong, missing or foreign byte shows wherever it comes out.
 */
import { Buffer } from 'node:buffer'
import { Random } from '../../testkit/sim/random.ts'

/** A fault of the engine, or a rule of docs/abi.md that it broke. */
export class Fault extends Error {}

/** Ends the run with a fault. */
export function fault(text: string): never {
  throw new Fault(text)
}

/** A prime, so that no shift by a power of two goes unseen. */
const PERIOD = 65521
/** Longest run that is written or compared at once. */
const RUN_MAX = 16384

const table = new Random(0x7a61).bytes(PERIOD + RUN_MAX)
// a run that begins near the end goes on with the beginning
table.copyWithin(PERIOD, 0, RUN_MAX)
const tableBuffer = Buffer.from(table.buffer)

/** Writes bytes `index`.. of the stream `key`. */
export function writePattern(target: Uint8Array, at: number, length: number, key: number, index: number): void {
  const from = (key + index) % PERIOD
  target.set(table.subarray(from, from + length), at)
}

/** True if the bytes are those of the stream `key` from `index` on. */
export function isPattern(bytes: Buffer, at: number, length: number, key: number, index: number): boolean {
  const from = (key + index) % PERIOD
  return tableBuffer.compare(bytes, at, at + length, from, from + length) === 0
}

/** A byte array that grows. */
export class Bytes {
  array = new Uint8Array(2048)
  buffer = Buffer.from(this.array.buffer)
  length = 0

  /** Makes room for `more` bytes; where they begin. */
  extend(more: number): number {
    const at = this.length
    this.length += more
    if (this.length > this.array.length) {
      const larger = new Uint8Array(Math.max(this.length, 2 * this.array.length))
      larger.set(this.array.subarray(0, at))
      this.array = larger
      this.buffer = Buffer.from(larger.buffer)
    }
    return at
  }
}
