/**
 * Formats numbers and times as kcptun-libev does, for log lines and /stats (protocol.md 10.6, 11.2). Pure functions,
 * except that they read the local time zone. Addresses are formatted in `address.ts`.
 */

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB'] as const
/** A unit is used from twice its size on: 2048 bytes are 2.00KiB, 2047 are 2047B. */
const BYTE_UNIT_SWITCH = 2048

const NS_PER_MS = 1e6
const MINUTES_PER_HOUR = 60

/** Fixed decimals, ties to even like C's printf (toFixed rounds ties up). */
function fixed(value: number, decimals: number): string {
  const scale = 10 ** decimals
  const scaled = value * scale
  const below = Math.floor(scaled)
  const tie = scaled - below === 0.5
  return tie && scaled / scale === value ? ((below + (below % 2)) / scale).toFixed(decimals) : value.toFixed(decimals)
}

const two = (value: number) => String(value).padStart(2, '0')

/** Formats bytes (protocol.md 11.2): 0 is `0`, 1864 is `1864B`, 2048 is `2.00KiB`. Fractions (rates) are allowed. */
export function formatBytes(bytes: number): string {
  if (bytes === 0) {
    return '0'
  }
  let value = Math.abs(bytes)
  let exponent = 0
  while (value >= BYTE_UNIT_SWITCH && exponent < BYTE_UNITS.length - 1) {
    value /= 1024
    exponent += 1
  }
  const decimals = exponent === 0 || value >= 100 ? 0 : value < 10 ? 2 : 1
  return `${bytes < 0 ? '-' : ''}${fixed(value, decimals)}${BYTE_UNITS[exponent]}`
}

interface DurationRange {
  /** Exclusive upper limit of the rounded duration, in units of the resolution. */
  readonly limit: number
  /** ns */
  readonly resolution: number
  /** @param count the duration in units of the resolution */
  print(count: number): string
}

const small = (unit: string, limit: number, decimals: number, unitNs: number): DurationRange => ({
  limit: limit * 10 ** decimals,
  resolution: unitNs / 10 ** decimals,
  print: (count) => `${(count / 10 ** decimals).toFixed(decimals)}${unit}`,
})

/** `H:MM:SS` of whole seconds. */
const clock = (seconds: number) =>
  `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`

/**
 * Finest first. The first range whose limit exceeds the rounded value formats it, so rounding never shows 60.0 or
 * 1000.0.
 */
const DURATION_RANGES: readonly DurationRange[] = [
  small('ns', 10, 3, 1),
  small('ns', 100, 2, 1),
  small('ns', 1000, 1, 1),
  small('µs', 10, 3, 1e3),
  small('µs', 100, 2, 1e3),
  small('µs', 1000, 1, 1e3),
  small('ms', 10, 3, 1e6),
  small('ms', 100, 2, 1e6),
  small('ms', 1000, 1, 1e6),
  small('ms', 10_000, 0, 1e6),
  small('s', 60, 2, 1e9),
  {
    limit: 6000,
    resolution: 1e8,
    print: (count) => `${Math.floor(count / 600)}:${two(Math.floor(count / 10) % 60)}.${count % 10}`,
  },
  { limit: 3600, resolution: 1e9, print: (count) => `${Math.floor(count / 60)}:${two(count % 60)}` },
  { limit: 86_400, resolution: 1e9, print: clock },
  {
    limit: Number.POSITIVE_INFINITY,
    resolution: 1e9,
    print: (count) => `${Math.floor(count / 86_400)}d${clock(count % 86_400).padStart(8, '0')}`,
  },
]

/**
 * Formats a duration for a sentence: `0.4 ms`, `52 ms`, `12 s`, `5 min`, `3 h`, `2 d`.
 * @param ms milliseconds, not negative
 */
export function roundDuration(ms: number): string {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`
  if (ms < 999.5) return `${Math.round(ms)} ms`
  const s = ms / 1000
  if (s < 9.95) return `${s.toFixed(1)} s`
  if (s < 119.5) return `${Math.round(s)} s`
  if (s < 7170) return `${Math.round(s / 60)} min`
  return s < 171_000 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} d`
}

/**
 * Formats a duration (protocol.md 11.2).
 * @param ms milliseconds with a fraction
 */
export function formatDuration(ms: number): string {
  const ns = Math.abs(ms) * NS_PER_MS
  for (const range of DURATION_RANGES) {
    const count = Math.round(ns / range.resolution)
    if (count === 0) {
      return '0'
    }
    if (count < range.limit) {
      return (ms < 0 ? '-' : '') + range.print(count)
    }
  }
  return String(ms)
}

function localTime(date: Date): string {
  const day = `${String(date.getFullYear()).padStart(4, '0')}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

function zone(date: Date, separator: string): string {
  const minutes = Math.abs(date.getTimezoneOffset())
  const sign = date.getTimezoneOffset() > 0 ? '-' : '+'
  return `${sign}${two(Math.floor(minutes / MINUTES_PER_HOUR))}${separator}${two(minutes % MINUTES_PER_HOUR)}`
}

/** RFC 3339 local time with seconds. The zone is `+hh:mm`, or `Z` if the offset is 0 (protocol.md 10.6). */
export function formatTimestamp(date: Date): string {
  return localTime(date) + (date.getTimezoneOffset() === 0 ? 'Z' : zone(date, ':'))
}

/** Local time with the zone as `+hhmm`: the `server time` of /stats (protocol.md 11.2). */
export function formatServerTime(date: Date): string {
  return localTime(date) + zone(date, '')
}

/** Formats a conv as 8 upper-case hex digits. */
export function formatConv(conv: number): string {
  return (conv >>> 0).toString(16).toUpperCase().padStart(8, '0')
}

/** Names of the session states, by state number (docs/api.md). */
export const SESSION_STATES = ['unknown', 'connect', 'established', 'linger', 'time_wait'] as const
/** States of existing sessions. */
export const LIVE_STATES = SESSION_STATES.slice(1)
