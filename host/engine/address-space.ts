/** Starts the engine's module, and explains a failure that a limit of the address space causes. */

import { messageOf, StartError } from '../errors.ts'
import type { OperatingSystem } from '../runtime.ts'
import { type CoreExports, instantiate } from './core.ts'

const LIMITS = '/proc/self/limits'

/** The limit of the address space as text, with a space before it. */
function limitOf(os: OperatingSystem | undefined): string {
  try {
    const [, bytes] = /^Max address space +(\d+)/m.exec(os?.readText(LIMITS) ?? '') ?? []
    return bytes === undefined ? '' : ` of ${Math.floor(Number(bytes) / 1024)} KiB`
  } catch {
    return ''
  }
}

/**
 * Starts a new instance of the engine.
 * @throws StartError if its memory cannot be reserved
 */
export function instantiateHere(os: OperatingSystem | undefined): CoreExports {
  try {
    return instantiate()
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new StartError(
      `no address space for the memory of the engine (${messageOf(error)}): raise the limit${limitOf(os)} ` +
        '(ulimit -v unlimited, LimitAS=infinity of systemd), or start Node 20.15 or later with the environment ' +
        'variable NODE_OPTIONS=--disable-wasm-trap-handler',
    )
  }
}
