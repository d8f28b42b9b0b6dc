/** Changes to byte strings, as those of AFL: flips, arithmetic, interesting values, blocks, words of a dictionary, splices. */
import type { Random } from '../../../testkit/sim/random.ts'
import { concat } from '../../../testkit/sim/wire.ts'

const INTERESTING: readonly number[] = [
  0, 1, 2, 3, 4, 7, 8, 16, 20, 23, 24, 25, 32, 40, 64, 100, 127, 128, 255, 256, 512, 1000, 1023, 1024, 1372, 1500, 1501,
  4095, 4096, 32767, 32768, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
]
/** Most changes to one input. */
const STACKED_MAX = 8

function writeNumber(bytes: Uint8Array, at: number, width: number, value: number, isLittle: boolean): void {
  for (let i = 0; i < width; i++) bytes[at + i] = value >>> (8 * (isLittle ? i : width - 1 - i))
}

function readNumber(bytes: Uint8Array, at: number, width: number, isLittle: boolean): number {
  let value = 0
  for (let i = 0; i < width; i++) value |= (bytes[at + i] ?? 0) << (8 * (isLittle ? i : width - 1 - i))
  return value
}

/** Replaces `removed` bytes at `at`. */
function put(bytes: Uint8Array, at: number, removed: number, inserted: Uint8Array): Uint8Array {
  return concat(bytes.subarray(0, at), inserted, bytes.subarray(at + removed))
}

function block(random: Random, bytes: Uint8Array): Uint8Array {
  const at = random.below(bytes.length)
  const most = random.chance(0.75) ? 16 : bytes.length
  return bytes.subarray(at, at + 1 + random.below(Math.min(most, bytes.length - at)))
}

export class Mutator {
  readonly #random: Random
  readonly #dictionary: readonly Uint8Array[]
  readonly #bytesMax: number

  constructor(random: Random, dictionary: readonly Uint8Array[], bytesMax: number) {
    this.#random = random
    this.#dictionary = dictionary
    this.#bytesMax = bytesMax
  }

  /** A changed copy; `pick` returns another input, for splices. */
  mutate(input: Uint8Array, pick: () => Uint8Array): Uint8Array {
    const random = this.#random
    let bytes: Uint8Array = input.slice()
    for (let n = 1 + random.below(STACKED_MAX) * random.below(2); n > 0; n--) {
      bytes = random.below(12) === 0 ? this.#splice(bytes, pick()) : this.#change(bytes)
      if (bytes.length > this.#bytesMax) bytes = bytes.subarray(0, this.#bytesMax)
    }
    return bytes
  }

  #splice(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    if (other.length === 0) return bytes
    const at = this.#random.below(bytes.length + 1)
    if (this.#random.chance(0.5)) return put(bytes, at, 0, block(this.#random, other))
    return concat(bytes.subarray(0, at), other.subarray(this.#random.below(other.length)))
  }

  #change(bytes: Uint8Array): Uint8Array {
    const random = this.#random
    const kind = random.below(8)
    if (bytes.length === 0 || kind === 0) return put(bytes, random.below(bytes.length + 1), 0, this.#insertion())
    const at = random.below(bytes.length)
    switch (kind) {
      case 1:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8))
        return bytes
      case 2:
        bytes[at] = random.below(256)
        return bytes
      case 3:
      case 4:
        return this.#number(bytes, at, kind === 3)
      case 5: {
        const copied = block(random, bytes)
        return put(bytes, at, random.chance(0.5) ? copied.length : 0, copied)
      }
      case 6:
        return put(bytes, at, block(random, bytes).length, new Uint8Array(0))
      default: {
        const word = this.#word()
        return put(bytes, at, word.length, word)
      }
    }
  }

  #number(bytes: Uint8Array, at: number, isSum: boolean): Uint8Array {
    const random = this.#random
    const width = random.pick(1, 2, 4)
    if (at + width > bytes.length) return bytes
    const isLittle = random.chance(0.5)
    const value = isSum
      ? readNumber(bytes, at, width, isLittle) + random.between(-35, 35)
      : (INTERESTING[random.below(INTERESTING.length)] ?? 0)
    writeNumber(bytes, at, width, value, isLittle)
    return bytes
  }

  #word(): Uint8Array {
    const { length } = this.#dictionary
    return this.#dictionary[this.#random.below(length)] ?? this.#random.bytes(this.#random.pick(1, 2, 4))
  }

  #insertion(): Uint8Array {
    return this.#random.chance(0.6) ? this.#word() : this.#random.bytes(1 + this.#random.below(4))
  }
}
