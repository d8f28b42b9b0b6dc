/** Formats numbers for display. */

export const NONE = '\u2013'

const RATE_UNITS = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'] as const
const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const
const DAY_S = 86_400

/** At most three significant digits, without exponent. */
function short(value: number): string {
  if (value === 0) return '0'
  if (value < 10) return value.toFixed(2)
  if (value < 100) return value.toFixed(1)
  return Math.round(value).toString()
}

/** Bits per second as number and unit. */
export function rate(bits: number): readonly [value: string, unit: string] {
  let value = bits
  let unit = 0
  while (value >= 999.5 && unit < RATE_UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return [unit === 0 ? Math.round(value).toString() : short(value), RATE_UNITS[unit] ?? '']
}

export const rateText = (bits: number): string => rate(bits).join(' ')

export function bytesIn(count: number): readonly [value: string, unit: string] {
  let value = count
  let unit = 0
  while (value >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return [unit === 0 ? value.toString() : short(value), BYTE_UNITS[unit] ?? '']
}

export const bytes = (count: number): string => bytesIn(count).join(' ')

export const count = (value: number): string => value.toLocaleString('en-US')

export function ms(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE
  return value < 10 ? value.toFixed(1) : Math.round(value).toString()
}

export function percent(share: number): string {
  const value = share * 100
  if (value === 0) return '0'
  if (value < 0.01) return '<0.01'
  return value < 10 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : '100'
}

/** `4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number): string {
  const s = Math.floor(seconds)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  if (s < DAY_S) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / DAY_S)} d ${Math.floor((s % DAY_S) / 3600)} h`
}

/** Replaces an empty or wildcard host by loopback, to get an address to connect to. */
export const reachable = (address: string): string =>
  address.replace(/^(?:0\.0\.0\.0|\[::\]|\*)?:(?=\d+$)/, '127.0.0.1:')
