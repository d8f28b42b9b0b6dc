/** Starts the engine's module, and explains a failure that a limit of the address space causes. */

import { messageOf, StartError } from '../errors.ts'
import { addressSpaceLimit, RAISE_LIMIT } from '../linux/address-space.ts'
import type { OperatingSystem } from '../runtime.ts'
import { type CoreExports, instantiate } from './core.ts'

/**
 * Starts a new instance of the engine.
 * @throws StartError if its memory cannot be reserved
 */
export function instantiateHere(os: OperatingSystem | undefined): CoreExports {
  try {
    return instantiate()
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    const limit = addressSpaceLimit(os)
    throw new StartError(
      `no address space for the memory of the engine (${messageOf(error)}): raise the limit${limit === undefined ? '' : ` of ${limit} KiB`} ` +
        `(${RAISE_LIMIT}), or start Node 20.15 or later with the environment ` +
        'variable NODE_OPTIONS=--disable-wasm-trap-handler',
    )
  }
}
