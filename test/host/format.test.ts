/** Byte amounts, durations, times and convs, formatted as by kcptun-libev (protocol.md 10.6, 11.2). */

import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { formatBytes, formatConv, formatDuration, formatServerTime, formatTimestamp } from '../../host/format.ts'

const test = suite('format')

const KIB = 1024
const MIB = KIB * 1024

test('MUST 76: byte amounts change their unit at 2048 and have three digits', () => {
  const table: readonly (readonly [number, string])[] = [
    [0, '0'],
    [1, '1B'],
    [797, '797B'],
    [1023, '1023B'],
    [1024, '1024B'],
    [1230, '1230B'],
    [1864, '1864B'],
    [2047, '2047B'],
    [2048, '2.00KiB'],
    [3000, '2.93KiB'],
    [10 * KIB - 1, '10.00KiB'],
    [10 * KIB, '10.0KiB'],
    [100 * KIB, '100KiB'],
    [249856, '244KiB'],
    [1461 * KIB, '1461KiB'],
    [2 * MIB - 1, '2048KiB'],
    [2 * MIB, '2.00MiB'],
    [2 * KIB * MIB, '2.00GiB'],
    [2 * MIB * MIB, '2.00TiB'],
    [2 ** 51, '2.00PiB'],
    [2 ** 61, '2.00EiB'],
    [2 ** 71, '2.00ZiB'],
    [2 ** 81, '2.00YiB'],
    [2 ** 91, '2048YiB'],
    [-1864, '-1864B'],
    [-2048, '-2.00KiB'],
    [0.4, '0B'],
    [1293.6, '1294B'],
  ]
  for (const [bytes, text] of table) {
    assert.is(formatBytes(bytes), text, String(bytes))
  }
})

test('MUST 76: byte amounts round ties to even, as printf does', () => {
  assert.is(formatBytes(2176), '2.12KiB')
  assert.is(formatBytes(2432), '2.38KiB')
  assert.is(formatBytes(10.25 * KIB), '10.2KiB')
  assert.is(formatBytes(10.75 * KIB), '10.8KiB')
  assert.is(formatBytes(100.5 * KIB), '100KiB')
  assert.is(formatBytes(101.5 * KIB), '102KiB')
  assert.is(formatBytes(1.5), '2B')
  assert.is(formatBytes(2.5), '2B')
})

test('MUST 76: byte amounts follow the formula of protocol.md 11.2', () => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB']
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 30 }), fc.integer({ min: 0, max: 22 }), (mantissa, shift) => {
      const bytes = mantissa * 2 ** shift
      const log2 = Math.floor(bytes).toString(2).length - 1
      const exponent = bytes <= 1 ? 0 : Math.max(Math.trunc((log2 - 1) / 10), 0)
      const scaled = bytes / 1024 ** exponent
      const text = formatBytes(bytes)
      const [, number = '', unit = ''] = /^([0-9.]+)([A-Za-z]+)$/.exec(text) ?? []
      assert.is(unit, units[exponent], text)
      const decimals = exponent === 0 || scaled >= 100 ? 0 : scaled < 10 ? 2 : 1
      assert.is((number.split('.')[1] ?? '').length, decimals, text)
      assert.ok(Math.abs(Number(number) - scaled) <= 0.5 / 10 ** decimals + 1e-9, `${bytes} ${text}`)
    }),
    { numRuns: 2000 },
  )
})

const S = 1000
const MIN = 60 * S
const H = 60 * MIN
const DAY = 24 * H

test('MUST 76: durations are formatted by range', () => {
  const table: readonly (readonly [number, string])[] = [
    [0, '0'],
    [DAY, '1d00:00:00'],
    [DAY + 2 * H + 3 * MIN + 4 * S, '1d02:03:04'],
    [400 * DAY + 23 * H, '400d23:00:00'],
    [H, '1:00:00'],
    [23 * H + 59 * MIN + 59 * S, '23:59:59'],
    [10 * MIN, '10:00'],
    [59 * MIN + 59 * S, '59:59'],
    [MIN, '1:00.0'],
    [9 * MIN + 5.25 * S, '9:05.3'],
    [10 * S, '10.00s'],
    [12.34 * S, '12.34s'],
    [6055, '6055ms'],
    [3044, '3044ms'],
    [1000, '1000ms'],
    [773.2, '773.2ms'],
    [100, '100.0ms'],
    [77.32, '77.32ms'],
    [7.732, '7.732ms'],
    [1, '1.000ms'],
    [0.7732, '773.2µs'],
    [0.07732, '77.32µs'],
    [0.007732, '7.732µs'],
    [0.0007732, '773.2ns'],
    [0.000001, '1.000ns'],
    [-6055, '-6055ms'],
    [-90 * S, '-1:30.0'],
  ]
  for (const [ms, text] of table) {
    assert.is(formatDuration(ms), text, String(ms))
  }
})

test('MUST 76: rounding of durations carries into the next range', () => {
  const table: readonly (readonly [number, string])[] = [
    [DAY - 400, '1d00:00:00'],
    [H - 400, '1:00:00'],
    [10 * MIN - 40, '10:00'],
    [2 * MIN - 40, '2:00.0'],
    [MIN - 4, '1:00.0'],
    [10 * S - 0.4, '10.00s'],
    [S - 0.04, '1000ms'],
    [100 - 0.004, '100.0ms'],
    [10 - 0.0004, '10.00ms'],
    [1 - 0.00004, '1.000ms'],
    [2 * DAY - 400, '2d00:00:00'],
    [2 * H - 400, '2:00:00'],
    [2 * MIN + 10 * MIN - 400, '12:00'],
  ]
  for (const [ms, text] of table) {
    assert.is(formatDuration(ms), text, String(ms))
  }
})

test('MUST 76: no duration shows 60 seconds or minutes, and formatting is monotonic', () => {
  const value = (text: string) => {
    const [, days = '0', rest = text] = /^(\d+)d(.*)$/.exec(text) ?? []
    const unit = { ms: 1, µs: 1e-3, ns: 1e-6, s: S }
    const suffix = /(ms|µs|ns|s)$/.exec(rest)?.[1]
    if (suffix === 'ms' || suffix === 'µs' || suffix === 'ns' || suffix === 's') {
      return Number.parseFloat(rest) * unit[suffix]
    }
    const parts = rest.split(':').map(Number)
    assert.ok(
      parts.slice(1).every((part) => part < 60),
      text,
    )
    return Number(days) * DAY + parts.reduce((sum, part) => sum * 60 + part, 0) * S
  }
  const exponent = fc.double({ min: -5, max: 10, noNaN: true })
  fc.assert(
    fc.property(exponent, (power) => {
      const ms = 10 ** power
      const text = formatDuration(ms)
      assert.not.match(text, /\b(60\.0*s?|1000\.0\w+|10000ms)$/)
      const resolution = ms >= 10 * MIN ? S : ms >= MIN ? 100 : ms / 1000
      assert.ok(Math.abs(value(text) - ms) <= resolution, `${ms} ${text}`)
    }),
    { numRuns: 3000 },
  )
})

/** A Date with a fixed local time and zone. */
class Fixed extends Date {
  readonly #offset: number

  constructor(text: string, offset: number) {
    super(text)
    this.#offset = offset
  }

  /** This time in the fixed zone, read by the UTC getters. */
  #local(): Date {
    return new Date(this.getTime() - this.#offset * MIN)
  }

  override getTimezoneOffset(): number {
    return this.#offset
  }

  override getFullYear(): number {
    return this.#local().getUTCFullYear()
  }

  override getMonth(): number {
    return this.#local().getUTCMonth()
  }

  override getDate(): number {
    return this.#local().getUTCDate()
  }

  override getHours(): number {
    return this.#local().getUTCHours()
  }

  override getMinutes(): number {
    return this.#local().getUTCMinutes()
  }

  override getSeconds(): number {
    return this.#local().getUTCSeconds()
  }
}

test('times are local, with the zone', () => {
  const at = (offset: number) => new Fixed('2026-11-22T11:10:08.999Z', offset)
  assert.equal(
    [0, -60, 210, -765].map((offset) => formatTimestamp(at(offset))),
    ['2026-11-22T11:10:08Z', '2026-11-22T12:10:08+01:00', '2026-11-22T07:40:08-03:30', '2026-11-22T23:55:08+12:45'],
  )
  assert.equal(
    [0, -60, 210].map((offset) => formatServerTime(at(offset))),
    ['2026-11-22T11:10:08+0000', '2026-11-22T12:10:08+0100', '2026-11-22T07:40:08-0330'],
  )
  const now = new Date()
  assert.is(new Date(formatTimestamp(now)).getTime(), Math.floor(now.getTime() / S) * S)
})

test('a conv is formatted as 8 upper-case hex digits', () => {
  assert.equal([0, 0x07c3522b, -1, 0xffffffff, 0x93d2b45e].map(formatConv), [
    '00000000',
    '07C3522B',
    'FFFFFFFF',
    'FFFFFFFF',
    '93D2B45E',
  ])
})

test.run()
