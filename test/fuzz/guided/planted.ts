/** A target with a planted crash: it shows that guidance finds what chance does not. */

/** @throws Error for inputs that begin with the four bytes */
export function planted(input: Uint8Array): void {
  if (input[0] !== 0xca) return
  if (input[1] !== 0x5e) return
  if (input[2] !== 0x19) return
  if (input[3] !== 0xd4) return
  throw new Error('the planted crash')
}
