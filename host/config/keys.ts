/** Rules about the entries of `keys`, and until when one counts. */

import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { type Config, type KeyConfig, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'
import schema from './schema.json' with { type: 'json' }

/** The most entries. */
export const KEYS_MAX = schema.properties.keys.maxItems

const NAME_PATTERN = new RegExp(schema.properties.keys.items.properties.name.pattern)

/** Days before its end in which `check` warns about a key. */
const SOON_DAYS = 30
const DAY_MS = 86_400_000

/** RFC 3339: full-date, or date-time, whose zone is required. */
const DATE = /^(\d{4})-(\d{2})-(\d{2})$/
const DATE_TIME =
  /^(\d{4})-(\d{2})-(\d{2})[Tt]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(\.\d+)?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))$/

/** Midnight of a date, UTC, ms; undefined if there is no such day. */
function midnight(year = '', month = '', day = ''): number | undefined {
  const date = new Date(`${year}-${month}-${day}T00:00:00Z`)
  // February 30 is March 1 or 2 to some
  const isReal = !Number.isNaN(date.getTime()) && date.toISOString().slice(0, 10) === `${year}-${month}-${day}`
  return isReal ? date.getTime() : undefined
}

/**
 * The time from which on a key does not count, as its `not_after` says: with a date the end of that day in UTC.
 * @returns ms since 1970; undefined if the text is malformed
 */
export function expiryOf(text: string): number | undefined {
  const date = DATE.exec(text)
  if (date !== null) {
    const start = midnight(date[1], date[2], date[3])
    return start === undefined ? undefined : start + DAY_MS
  }
  const time = DATE_TIME.exec(text)
  const start = time === null ? undefined : midnight(time[1], time[2], time[3])
  if (time === null || start === undefined) return undefined
  const [hours, minutes, seconds, fraction = '', sign, zoneHours = '0', zoneMinutes = '0'] = time.slice(4)
  const zone = (Number(zoneHours) * 60 + Number(zoneMinutes)) * (sign === '-' ? -1 : 1)
  const ms = Math.floor(Number(`0${fraction}`) * 1000)
  return start + (Number(hours) * 60 + Number(minutes) - zone) * 60_000 + Number(seconds) * 1000 + ms
}

/** Whether the key counts no more. @param now wall clock, ms */
export function isExpired({ not_after }: KeyConfig, now = Date.now()): boolean {
  const expiry = not_after === undefined ? undefined : expiryOf(not_after)
  return expiry !== undefined && now >= expiry
}

function checkNotAfter(path: string, text: string): void {
  if (expiryOf(text) !== undefined) return
  const reason =
    'must be a date, 2027-12-31 (which ends at midnight UTC), or a time with its zone, 2027-12-31T18:00:00Z or ...+01:00'
  throw new ConfigError(path, quote(text), reason)
}

/** @param path the key to name in the error @throws ConfigError */
export function checkName(name: string, path: string): void {
  if (NAME_PATTERN.test(name)) return
  const reason = 'must be 1 to 64 letters, digits and characters of ._-, the first a letter or digit'
  throw new ConfigError(path, quote(name), reason)
}

/** What each entry must have by itself. */
function checkEntry({ name, psk, password, not_after }: KeyConfig, path: string): void {
  if (name === '') throw new ConfigError(`${path}.name`, '', 'missing: the log and the figures name the user by it')
  checkName(name, `${path}.name`)
  if (psk !== undefined && password !== undefined)
    throw new ConfigError(`${path}.psk`, HIDDEN, 'conflicts with password')
  if (psk === undefined && password === undefined)
    throw new ConfigError(`${path}.psk`, '', 'missing: set it to a key from --genpsk (or set password)')
  if (not_after !== undefined) checkNotAfter(`${path}.not_after`, not_after)
}

/** @throws ConfigError for the first rule that is broken */
export function checkKeys({ keys, psk, password, mode }: Config): void {
  if (keys.length === 0) return
  const isDirect = (mode & MODE_RENDEZVOUS) === 0 && (mode & (MODE_SERVER | MODE_CLIENT)) !== 0
  if (keys.length > 1 && !isDirect)
    throw new ConfigError('keys', '[...]', 'several keys are for servers and clients without a rendezvous server')
  const other = psk !== undefined ? 'psk' : password !== undefined ? 'password' : undefined
  if (other !== undefined)
    throw new ConfigError('keys', '[...]', `conflicts with ${other}: make it one of the keys, under a name`)
  for (const [index, key] of keys.entries()) {
    const path = `keys[${index}]`
    checkEntry(key, path)
    const before = keys.slice(0, index)
    const named = before.findIndex(({ name }) => name === key.name)
    if (named >= 0) throw new ConfigError(`${path}.name`, quote(key.name), `is the name of keys[${named}] too`)
    const kind = key.psk === undefined ? 'password' : 'psk'
    const same = before.findIndex((one) => one[kind] !== undefined && one[kind] === key[kind])
    if (same < 0) continue
    const reason = `is the key of keys[${same}] too: whose session would it be?`
    throw new ConfigError(`${path}.${kind}`, HIDDEN, reason)
  }
}

/** Warnings about keys that count no more, of every start and reload. */
export const expiredKeys = ({ keys, method }: Config, now = Date.now()): string[] =>
  keys.flatMap((key, index) =>
    method !== undefined && isExpired(key, now)
      ? [
          `config key keys[${index}].not_after = ${quote(key.not_after ?? '')}: the key of ${key.name} has expired, it is not used`,
        ]
      : [],
  )

/** Further warnings and notes, for `check`. */
export function lintKeys(config: Config, now = Date.now()): { warnings: string[]; notes: string[] } {
  const { keys, method, mode } = config
  const warnings: string[] = []
  const notes: string[] = []
  if (method === undefined || keys.length === 0) return { warnings, notes }
  const isClient = (mode & MODE_CLIENT) !== 0
  for (const [index, { name, password, not_after }] of keys.entries()) {
    const path = `config key keys[${index}]`
    if (password !== undefined) {
      const text = 'key stretching is minimal, a weak password can be guessed; prefer psk, generated with --genpsk'
      warnings.push(`${path}.password = ${HIDDEN}: ${text}`)
    }
    const left = ((not_after === undefined ? undefined : expiryOf(not_after)) ?? 0) - now
    if (left <= 0 || left > SOON_DAYS * DAY_MS) continue
    const days = Math.ceil(left / DAY_MS)
    const when = days === 1 ? 'within a day' : `within ${days} days`
    warnings.push(`${path}.not_after = ${quote(not_after ?? '')}: the key of ${name} expires ${when}`)
  }
  if (isClient && keys.length > 1) {
    const first = keys.find((key) => !isExpired(key, now))?.name ?? ''
    notes.push(`config key keys: a client opens its sessions with the first one, ${first}`)
  }
  if (!isClient && keys.length === 1)
    notes.push('config key keys: with one entry there are no figures by user, and psk is enough')
  return { warnings, notes }
}
