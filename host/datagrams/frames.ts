/**
 * Datagrams in a byte stream: each has its length in front, two bytes, big-endian. Every length is legal, 0 included,
 * so a stream cannot be malformed; it can only end within a datagram.
 */

/** Bytes of the length. */
export const LENGTH_BYTES = 2
/** Longest frame: more than a UDP datagram can have. */
const FRAME_BYTES_MAX = LENGTH_BYTES + 0xffff
const FIRST_BYTES = 2048

/** Receives datagrams. They are only valid during the call. */
export type TakeDatagram = (bytes: Uint8Array, start: number, length: number) => void

/** Finds the datagrams in the bytes of one stream. */
export class FrameReader {
  /** The beginning of a frame whose rest has not arrived. */
  #begun: Uint8Array | undefined
  #held = 0

  /** Whether the stream ended within a datagram, if it ends now. */
  get isWithin(): boolean {
    return this.#held > 0
  }

  /** Takes the first `length` bytes. Frames that are whole in them are not copied. */
  take(bytes: Uint8Array, length: number, onDatagram: TakeDatagram): void {
    let at = this.#held > 0 ? this.#complete(bytes, length, onDatagram) : 0
    while (length - at >= LENGTH_BYTES) {
      const size = lengthAt(bytes, at)
      if (at + LENGTH_BYTES + size > length) break
      onDatagram(bytes, at + LENGTH_BYTES, size)
      at += LENGTH_BYTES + size
    }
    if (at < length) this.#hold(bytes, at, length)
  }

  /** @returns how many bytes belong to the frame that has begun */
  #complete(bytes: Uint8Array, length: number, onDatagram: TakeDatagram): number {
    let at = 0
    if (this.#held < LENGTH_BYTES) {
      this.#hold(bytes, 0, 1)
      at = 1
    }
    const frame = LENGTH_BYTES + lengthAt(this.#begun ?? NOTHING, 0)
    const end = Math.min(length, at + frame - this.#held)
    this.#hold(bytes, at, end)
    if (this.#held < frame) return end
    this.#held = 0
    onDatagram(this.#begun ?? NOTHING, LENGTH_BYTES, frame - LENGTH_BYTES)
    // large ones are rare, and flows many
    if (frame > FIRST_BYTES) this.#begun = undefined
    return end
  }

  #hold(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#held + end - start
    if (this.#begun === undefined || this.#begun.length < needed) {
      const grown = new Uint8Array(needed <= FIRST_BYTES ? FIRST_BYTES : FRAME_BYTES_MAX)
      if (this.#begun !== undefined) grown.set(this.#begun.subarray(0, this.#held))
      this.#begun = grown
    }
    this.#begun.set(bytes.subarray(start, end), this.#held)
    this.#held = needed
  }
}

const NOTHING = new Uint8Array(LENGTH_BYTES)

const lengthAt = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)

/** Writes the length of a datagram. */
export function writeLength(bytes: Uint8Array, at: number, length: number): void {
  bytes[at] = length >>> 8
  bytes[at + 1] = length & 0xff
}
