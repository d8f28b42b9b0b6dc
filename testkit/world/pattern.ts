/** Bytes that depend on their stream and position, so that any wrong, missing or foreign byte is detected. */
import { Buffer } from 'node:buffer'
import { patternByte, Random } from '../sim/random.ts'

/** A prime, so that a shift by a power of two is detected. */
const PERIOD = 65521
/** Longest run of one call. */
export const RUN_BYTES = 16384

export interface Pattern {
  /** Bytes `index`.. of the stream `key`, at most RUN_BYTES; must not be modified. */
  run(key: number, index: number, length: number): Buffer
}

const table = Buffer.from(new Random(0x7a61).bytes(PERIOD + RUN_BYTES).buffer)
table.copyWithin(PERIOD, 0, RUN_BYTES)

/** Streams that start at different positions of one table. */
export const tablePattern: Pattern = {
  run(key, index, length) {
    const from = (key * 7919 + index) % PERIOD
    return table.subarray(from, from + length)
  },
}

const streams = new Map<number, Buffer>()

/** The streams that the model of kcptun-libev sends and expects. */
export const modelPattern: Pattern = {
  run(key, index, length) {
    let stream = streams.get(key)
    if (stream === undefined || stream.length < index + length) {
      stream = Buffer.alloc(2 * (index + length))
      for (let i = 0; i < stream.length; i++) stream[i] = patternByte(i, key)
      streams.set(key, stream)
    }
    return stream.subarray(index, index + length)
  },
}
