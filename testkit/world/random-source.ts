/** Replaces the system's random source while a world runs. */
import type { Random } from '../sim/random.ts'

const system = crypto.getRandomValues.bind(crypto)

/** Makes `crypto.getRandomValues` return bytes of a generator; undefined restores the system's. */
export function seedRandomSource(random: Random | undefined): void {
  const fill = (target: Uint8Array): Uint8Array => {
    random?.fill(new Uint8Array(target.buffer, target.byteOffset, target.byteLength))
    return target
  }
  Object.defineProperty(crypto, 'getRandomValues', {
    configurable: true,
    writable: true,
    value: random === undefined ? system : fill,
  })
}
