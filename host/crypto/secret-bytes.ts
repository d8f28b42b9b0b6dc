/** Memory for keys. */

/**
 * `length` bytes of 0 in memory of their own. A small array that is made without a buffer lies in V8's heap, where the garbage collector moves it and
 * leaves copies behind; a pooled Buffer shares its memory with others.
 */
export function secretBytes(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(length))
}

/** A copy that may be overwritten for good. */
export function secretCopy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = secretBytes(bytes.length)
  copy.set(bytes)
  return copy
}
