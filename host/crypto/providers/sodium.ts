/**
 * Access to libsodium's compiled exports below its JavaScript wrappers: the wrappers allocate on every call and do not wipe what they copied.
 * They publish the compiled module as the untyped property `libsodium`; it is checked here, once, so that an incompatible release of the
 * package fails at start with the name of what is missing.
 */

type RawCall = (...args: number[]) => number

/** Compiled exports `Names`, plus the heap. 64-bit lengths take two arguments, low word first. */
export type RawSodium<Names extends string> = Readonly<Record<Names | '_malloc' | '_free', RawCall>> & {
  /** The whole heap. A new object after the heap grew, and the old one is then detached. */
  readonly HEAPU8: Uint8Array
}

/**
 * Takes the compiled module out of a libsodium-wrappers package that is ready.
 * @throws Error naming the first export that is missing
 */
export function rawSodium<Names extends string>(wrappers: object, names: readonly Names[]): RawSodium<Names> {
  const raw: unknown = Reflect.get(wrappers, 'libsodium')
  assertRaw(raw, names)
  return raw
}

/**
 * Copies bytes to a new allocation of the heap; `length` may be larger than the bytes.
 * @returns its address
 */
export function allocate(raw: RawSodium<never>, bytes: Uint8Array | null, length: number): number {
  const address = raw._malloc(length)
  if (address === 0) throw new Error(`libsodium: no memory for ${length} bytes`)
  raw.HEAPU8.fill(0, address, address + length)
  if (bytes !== null) raw.HEAPU8.set(bytes, address)
  return address
}

/** Zeroes an allocation and gives it back. */
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
