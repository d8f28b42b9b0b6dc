/**
 * Whether native code is loaded: packages with a binary (koffi, sodium-native), and functions bound by FFI. Where such
 * code ends the process when it is loaded, the environment variable or the key `native` keeps it out.
 */
import { NotAvailable } from '../host/errors.ts'
import type { NativeCode } from '../host/runtime.ts'

const VARIABLE = 'KCPTUN_NATIVE'
const OFF = /^(0|off|no|false)$/i

const value = process.env[VARIABLE] ?? ''

let refusal = OFF.test(value) ? `not available: ${VARIABLE}=${value}` : undefined

/** @throws NotAvailable if no native code is to be loaded. Call it before each way to load some. */
export function assertNative(): void {
  if (refusal !== undefined) throw new NotAvailable(refusal)
}

export const native: NativeCode = {
  get refusal() {
    return refusal
  },
  forbid(why) {
    refusal ??= `not available: ${why}`
  },
}
