/**
 * Test data whose bytes depend on their stream and offset, so that a wrong, missing or foreign byte is detected.
 */
import { Buffer } from 'node:buffer'
import { Random } from '../../testkit/sim/random.ts'

/** A fault of the engine, or a violated rule of docs/abi.md. */
export class Fault extends Error {}

/** @throws Fault */
export function fault(text: string): never {
  throw new Fault(text)
}

/** A prime, so that a shift by a power of two is detected. */
const PERIOD = 65521
/** Maximum bytes written or compared at once. */
const RUN_MAX = 16384

const table = new Random(0x7a61).bytes(PERIOD + RUN_MAX)
// runs near the end wrap around
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

  /** Grows by `more` bytes. @returns their offset */
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
