/**
 * The one error that a bad configuration raises. Its message names key, value and reason, so callers print it as it
 * is, without a stack trace, and exit with status 1. Values of secret keys never get in here: whoever throws passes
 * HIDDEN instead.
 */

/** Stands for the value of a secret key (psk, password). */
export const HIDDEN = '(hidden)'

/** Longer values are cut in messages, in characters. */
const VALUE_SHOWN_CHARS = 80

/** `key` is dotted (`kcp.mtu`), or '' when the whole file is meant; `value` is the text to show, '' for none. */
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
