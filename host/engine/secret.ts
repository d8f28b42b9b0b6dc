/**
 * The secret shared by the engines of one endpoint, consecutive ones and those of all workers (docs/abi.md,
 * `secret_ptr`): the key that marks its random nonces, and the bases of its counter nonces. Each engine gets an unused
 * slot of a base, so that no nonce is reused. The secret belongs to the endpoint, not to the process: a client and a
 * server with the same key may run in one process.
 */

/** Size of the block at `secret_ptr`. */
export const SECRET_BYTES = 32
const KEY_BYTES = 16
const BASE_BYTES = 12
const SLOT_AT = 28
/** Slots per base. */
export const SLOTS = 1 << 16
/** Number of bases that an engine remembers. */
const BASES_MAX = 8

/** The part of an endpoint's secret for a worker, as JSON: bytes in hexadecimal, slots of the last base. */
export interface SecretPart {
  readonly key: string
  readonly bases: readonly string[]
  readonly slot: number
  readonly slots: number
}

const toHex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

const fromHex = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(text.match(/../g) ?? [], (digits) => Number.parseInt(digits, 16))

const draw = (length: number): Uint8Array<ArrayBuffer> => crypto.getRandomValues(new Uint8Array(length))

export class EndpointSecret {
  readonly #key: Uint8Array<ArrayBuffer>
  /** The last one is in use. */
  readonly #bases: Uint8Array<ArrayBuffer>[]
  /** The next free slot of the last base, and the end of our slots (exclusive). */
  #slot: number
  #end: number

  /** @param part the part received from the first process; default: a new random secret */
  constructor(part?: SecretPart) {
    this.#key = part === undefined ? draw(KEY_BYTES) : fromHex(part.key)
    this.#bases = part === undefined ? [draw(BASE_BYTES)] : part.bases.map(fromHex)
    this.#slot = part?.slot ?? 0
    this.#end = part === undefined ? SLOTS : part.slot + part.slots
  }

  /**
   * Takes a slot for the next engine.
   * @returns blocks for `secret_ptr`: the first before the start, each of the others before a `renew_nonce`
   */
  next(): Uint8Array<ArrayBuffer>[] {
    const slot = this.#take(1)
    const last = this.#bases.length - 1
    return this.#bases.map((base, i) => this.#block(base, i === last ? slot : 0))
  }

  /**
   * Draws a new base, for a machine that may have been cloned.
   * @returns block for `secret_ptr` before `renew_nonce`
   */
  renew(): Uint8Array<ArrayBuffer> {
    const base = this.#drawBase()
    return this.#block(base, this.#take(1))
  }

  /** Reserves `count` slots for a worker. */
  part(count: number): SecretPart {
    const slot = this.#take(count)
    return { key: toHex(this.#key), bases: this.#bases.map(toHex), slot, slots: count }
  }

  /** Overwrites the secret. */
  wipe(): void {
    this.#key.fill(0)
    for (const base of this.#bases) base.fill(0)
  }

  /**
   * Reserves slots; draws a new base if the last one has too few left.
   * @returns the first of `count` slots of the last base
   */
  #take(count: number): number {
    if (this.#slot + count > this.#end) this.#drawBase()
    const slot = this.#slot
    this.#slot += count
    return slot
  }

  #drawBase(): Uint8Array<ArrayBuffer> {
    const base = draw(BASE_BYTES)
    this.#bases.push(base)
    if (this.#bases.length > BASES_MAX) this.#bases.shift()
    this.#slot = 0
    this.#end = SLOTS
    return base
  }

  #block(base: Uint8Array, slot: number): Uint8Array<ArrayBuffer> {
    const block = new Uint8Array(SECRET_BYTES)
    block.set(this.#key)
    block.set(base, KEY_BYTES)
    new DataView(block.buffer).setUint16(SLOT_AT, slot, true)
    return block
  }
}
