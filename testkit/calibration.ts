/** What a comparison with another program depends on: how the peer was built, and what ciphers cost. The texts. */

import { dirname, join } from 'node:path'

/** Names the flags where the build directory is not there. */
export const BUILD_VARIABLE = 'KCPTUN_LIBEV_BUILD'
/** Folders above the program in which its build may have left CMakeCache.txt. */
const LEVELS_UP = 3

/** Nanoseconds for one datagram. */
export interface AeadCost {
  readonly seal: number
  readonly open: number
}

/** One side's cost, or the reason why it is not known. */
export type Measured = (AeadCost & { readonly provider: string }) | { readonly unknown: string }

export interface Calibration {
  readonly method: string
  readonly plainBytes: number
  /** Build type and flags of kcptun-libev, `unknown`. */
  readonly peerBuild: string
  /** By name: node, bun, libsodium (the library of kcptun-libev). */
  readonly aead: Readonly<Record<string, Measured>>
}

/** Build type and flags in the text of a CMakeCache.txt. */
export function cmakeFlags(text: string): string {
  const value = (name: string): string => new RegExp(`^${name}:[A-Z]+=(.*)$`, 'm').exec(text)?.[1]?.trim() ?? ''
  const type = value('CMAKE_BUILD_TYPE')
  const flags = [value('CMAKE_C_FLAGS'), type === '' ? '' : value(`CMAKE_C_FLAGS_${type.toUpperCase()}`)]
  const lto = /^CMAKE_INTERPROCEDURAL_OPTIMIZATION:[A-Z]+=(ON|TRUE|1)$/m.test(text) ? ['LTO'] : []
  const found = [type === '' ? 'no build type' : type, ...flags, ...lto].filter((part) => part !== '')
  return found.join(' ')
}

/** How a program was built, as far as its environment and build directory tell. */
export function buildOf(
  program: string,
  environment: Readonly<Record<string, string | undefined>>,
  read: (path: string) => string | undefined,
): string {
  const given = environment[BUILD_VARIABLE]
  if (given !== undefined && given !== '') return given
  let folder = dirname(program)
  for (let level = 0; level < LEVELS_UP; level++) {
    const text = read(join(folder, 'CMakeCache.txt'))
    if (text !== undefined) return cmakeFlags(text)
    folder = dirname(folder)
  }
  return `unknown (name them in ${BUILD_VARIABLE})`
}

/** The libsodium in the output of ldd; undefined if the program contains it. */
export function sodiumOf(ldd: string): string | undefined {
  return /libsodium\.so\S* => (\S+)/.exec(ldd)?.[1]
}

/** Heading lines of a comparison. */
export function describeCalibration({ method, plainBytes, peerBuild, aead }: Calibration): string {
  const sides = Object.entries(aead).map(([name, cost]) => {
    if ('unknown' in cost) return `${name} unknown (${cost.unknown})`
    return `${name} ${cost.seal.toFixed(0)} + ${cost.open.toFixed(0)} (${cost.provider})`
  })
  return [
    `kcptun-libev's build: ${peerBuild}`,
    `${method}, ns to seal + open ${plainBytes} bytes, best of many rounds: ${sides.join('; ')}`,
  ].join('\n')
}
