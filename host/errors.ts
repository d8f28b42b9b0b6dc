/**
 * Errors of the host: what a bad configuration raises, what a missing facility raises, and the parts of an error that
 * messages and decisions need.
 */

/** Stands for the value of a secret key (psk, password). */
export const HIDDEN = '(hidden)'

/** Longer values are cut in messages, in characters. */
const VALUE_SHOWN_CHARS = 80

/**
 * The error that a bad configuration raises. Its message names key, value and reason: callers print it as it is,
 * without a stack trace, and exit with status 1. Values of secret keys never get in here; pass HIDDEN instead.
 * `key` is dotted (`kcp.mtu`), or '' when the whole file is meant; `value` is the text to show, '' for none.
 */
export class ConfigError extends Error {
  readonly key: string
  readonly value: string
  readonly reason: string

  constructor(key: string, value: string, reason: string) {
    const shown = value.length > VALUE_SHOWN_CHARS ? `${value.slice(0, VALUE_SHOWN_CHARS)}...` : value
    const subject = key === '' ? 'config file' : `config key ${key}`
    super(shown === '' ? `${subject}: ${reason}` : `${subject} = ${shown}: ${reason}`)
    this.name = 'ConfigError'
    this.key = key
    this.value = value
    this.reason = reason
  }
}

/** A string value as it is shown in messages: quoted, control characters escaped. */
export function quote(text: string): string {
  return JSON.stringify(text)
}

/** Why a facility that this program could use is not available. The message is meant for the user. */
export class NotAvailable extends Error {
  override readonly name = 'NotAvailable'
}

/** An error with the code of a system call, such as ECONNREFUSED. */
export interface SystemError extends Error {
  code?: string | undefined
  syscall?: string | undefined
}

/** The error of a failed system call, worded as the runtimes do. */
export function systemError(code: string, message: string, syscall?: string): SystemError {
  const error: SystemError = new Error(`${code}: ${message}`)
  error.code = code
  if (syscall !== undefined) error.syscall = syscall
  return error
}

/** Anything thrown or reported, as an Error. */
export function toError(reason: unknown): SystemError {
  return reason instanceof Error ? reason : new Error(String(reason))
}

/** The message of anything thrown. */
export const messageOf = (reason: unknown): string => (reason instanceof Error ? reason.message : String(reason))

/** The code of a system error, '' for anything else. */
export const codeOf = (reason: unknown): string =>
  reason instanceof Error && 'code' in reason && typeof reason.code === 'string' ? reason.code : ''

/** A start that failed for a reason outside the configuration: a name, a port. The message is meant for the user. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** Runs one step of the start; its failure names the step. */
export async function step<Result>(what: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action()
  } catch (error) {
    if (error instanceof ConfigError || error instanceof StartError) throw error
    throw new StartError(`${what}: ${messageOf(error)}`)
  }
}
