/**
 * Errors of the host: configuration errors, missing facilities, failed system calls, and helpers to read an error's
 * message and code.
 */

/** Placeholder for the value of a secret key (psk, password). */
export const HIDDEN = '(hidden)'

/** Longest value in a message, in characters; longer ones are truncated. */
const VALUE_SHOWN_CHARS = 80

/**
 * A configuration error. The message names key, value and reason: callers print it unchanged, without a stack trace,
 * and exit with status 1. It must not contain the value of a secret key; pass HIDDEN instead.
 * `key` is dotted (`kcp.mtu`), or '' for the whole file; `value` is the text to show, '' for none.
 */
export class ConfigError extends Error {
  /** Stable; the message is not. */
  readonly code = 'ERR_KCPTUN_CONFIG'
  /** Dotted, as `kcp.mtu`; '' for the whole file. */
  readonly key: string
  /** As text; '' for none. */
  readonly value: string
  /** What is wrong with it. */
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

/** Formats a string value for messages: quoted, control characters escaped. */
export function quote(text: string): string {
  return JSON.stringify(text)
}

/** An optional facility is not available. The message gives the reason and is meant for the user. */
export class NotAvailable extends Error {
  /** Stable; the message is not. */
  readonly code = 'ERR_KCPTUN_NOT_AVAILABLE'
  override readonly name = 'NotAvailable'
}

/** An error with the code of a system call, such as ECONNREFUSED. */
export interface SystemError extends Error {
  code?: string | undefined
  syscall?: string | undefined
}

/** Creates the error of a failed system call, in the runtimes' wording. */
export function systemError(code: string, message: string, syscall?: string): SystemError {
  const error: SystemError = new Error(`${code}: ${message}`)
  error.code = code
  if (syscall !== undefined) error.syscall = syscall
  return error
}

/** Converts any thrown or reported value to an Error. */
export function toError(reason: unknown): SystemError {
  return reason instanceof Error ? reason : new Error(String(reason))
}

/** Message of any thrown value. */
export const messageOf = (reason: unknown): string => (reason instanceof Error ? reason.message : String(reason))

/** Stack of an error, the text of any other thrown value. */
export const stackOf = (reason: unknown): string =>
  reason instanceof Error ? (reason.stack ?? reason.message) : String(reason)

/** Code of a system error, '' for anything else. */
export const codeOf = (reason: unknown): string =>
  reason instanceof Error && 'code' in reason && typeof reason.code === 'string' ? reason.code : ''

/** Codes of errors that can disappear without a change by the user: an address, interface or route is not there yet. */
const TEMPORARY: ReadonlySet<string> = new Set(['EADDRNOTAVAIL', 'EHOSTUNREACH', 'ENETDOWN', 'ENETUNREACH', 'ENODEV'])

/** A start failed for a reason outside the configuration: a name, a port. The message is meant for the user. */
export class StartError extends Error {
  /** Stable; the message is not. */
  readonly code = 'ERR_KCPTUN_START'
  override readonly name = 'StartError'
  /** Whether another attempt can succeed later: the program keeps running and retries. */
  readonly isTemporary: boolean

  constructor(message: string, isTemporary = false) {
    super(message)
    this.isTemporary = isTemporary
  }
}

/** A stream ended before both directions did: by the peer, by a time limit, or because the peer does not answer. */
export class ResetError extends Error {
  /** Stable; the message is not. */
  readonly code = 'ERR_KCPTUN_RESET'
  override readonly name = 'ResetError'
}

/** A stream could not be opened: too many sessions, out of memory, no peer yet. */
export class RefusedError extends Error {
  /** Stable; the message is not. */
  readonly code = 'ERR_KCPTUN_REFUSED'
  override readonly name = 'RefusedError'
}

/** The client, server or tunnel is closed. */
export class ClosedError extends Error {
  /** Stable; the message is not. */
  readonly code = 'ERR_KCPTUN_CLOSED'
  override readonly name = 'ClosedError'
}

/** Whether another attempt can succeed later, without a change by the user. */
export const isTemporary = (error: unknown): boolean => error instanceof StartError && error.isTemporary

/** Whether a system call may succeed later, without a change by the user. */
export const isTemporaryCode = (error: unknown): boolean => TEMPORARY.has(codeOf(error))

/** Runs one step of the start; its error names the step. */
export async function step<Result>(what: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action()
  } catch (error) {
    if (error instanceof ConfigError || error instanceof StartError) throw error
    throw new StartError(`${what}: ${messageOf(error)}`, isTemporaryCode(error))
  }
}
