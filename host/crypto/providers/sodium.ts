/**
 * Access to the compiled exports of libsodium. Its JavaScript wrappers allocate on every call and do not wipe their
 * copies. They publish the compiled module as the untyped property `libsodium`, which is checked once, so that an
 * incompatible release of the package fails at startup with the name of the missing export.
 */

type RawCall = (...args: number[]) => number

/** The compiled exports `Names` and the heap. 64-bit lengths take two arguments, low word first. */
export type RawSodium<Names extends string> = Readonly<Record<Names | '_malloc' | '_free', RawCall>> & {
  /** The whole heap. A new object after the heap grew; the old one is then detached. */
  readonly HEAPU8: Uint8Array
}

/**
 * Returns the compiled module of a libsodium-wrappers package that is ready.
 * @throws Error naming the first missing export
 */
export function rawSodium<Names extends string>(wrappers: object, names: readonly Names[]): RawSodium<Names> {
  const raw: unknown = Reflect.get(wrappers, 'libsodium')
  assertRaw(raw, names)
  return raw
}

/**
 * Allocates `length` bytes on the heap and copies `bytes`, which may be shorter, to it.
 * @returns the address
 */
export function allocate(raw: RawSodium<never>, bytes: Uint8Array | null, length: number): number {
  const address = raw._malloc(length)
  if (address === 0) throw new Error(`libsodium: cannot allocate ${length} bytes`)
  raw.HEAPU8.fill(0, address, address + length)
  if (bytes !== null) raw.HEAPU8.set(bytes, address)
  return address
}

/** Zeroes and frees an allocation. */
export function release(raw: RawSodium<never>, address: number, length: number): void {
  raw.HEAPU8.fill(0, address, address + length)
  raw._free(address)
}

function assertRaw<Names extends string>(raw: unknown, names: readonly Names[]): asserts raw is RawSodium<Names> {
  if (typeof raw !== 'object' || raw === null) throw new Error('libsodium: the compiled module is not published')
  if (!(Reflect.get(raw, 'HEAPU8') instanceof Uint8Array)) throw new Error('libsodium: HEAPU8 is missing')
  for (const name of [...names, '_malloc', '_free']) {
    if (typeof Reflect.get(raw, name) !== 'function') throw new Error(`libsodium: ${name} is missing`)
  }
}
