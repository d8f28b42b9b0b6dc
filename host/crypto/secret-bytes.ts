/** Memory for keys. */

/**
 * Allocates `length` zero bytes in a separate buffer. A small array without an explicit buffer is on V8's heap, where
 * the garbage collector moves it and leaves copies behind; a pooled Buffer shares its memory with others.
 */
export function secretBytes(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(length))
}

/** Copies bytes to a separate buffer that can be overwritten reliably. */
export function secretCopy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = secretBytes(bytes.length)
  copy.set(bytes)
  return copy
}
