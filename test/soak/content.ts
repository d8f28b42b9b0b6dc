/** What is sent over the connections of a soak: parts of one pseudo-random block, so that sending and checking cost little. */
import { patternBytes } from '../../testkit/tcp.ts'

const BLOCK_BYTES = 1 << 18
/** Longest part handed out at once. */
const PART_BYTES = 1 << 14

const block = patternBytes(BLOCK_BYTES, 1)

/** The content that belongs to a seed, read from its beginning. */
export class Content {
  /** Bytes read so far. */
  length = 0
  #at: number

  constructor(seed: number) {
    this.#at = (seed * 7919) % BLOCK_BYTES
  }

  /** The next bytes: at least one, at most `most`. */
  next(most: number): Buffer {
    const part = block.subarray(this.#at, this.#at + Math.min(most, PART_BYTES))
    this.#at = (this.#at + part.length) % BLOCK_BYTES
    this.length += part.length
    return part
  }

  /** Whether `bytes` are the next ones. */
  continues(bytes: Buffer): boolean {
    for (let done = 0; done < bytes.length; ) {
      const part = this.next(bytes.length - done)
      if (part.compare(bytes, done, done + part.length) !== 0) return false
      done += part.length
    }
    return true
  }
}
