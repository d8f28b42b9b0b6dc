/** Figures of the keys of a server with several: those of the engine in use plus the totals of the engines that trapped. */

import type { Config } from '../config/config.ts'
import { SESSIONS_MAX } from '../config/security.ts'
import type { Driver } from '../driver/driver.ts'
import { type Core, Key } from '../engine/core.ts'
import type { KeyStatus } from '../monitoring/source.ts'

const MS_PER_SECOND = 1000

/** What is counted. */
type Totals = Pick<
  KeyStatus,
  | 'sessions_opened'
  | 'sessions_refused'
  | 'tcp_read_bytes'
  | 'tcp_written_bytes'
  | 'datagrams_received'
  | 'datagrams_sent'
>

const NOTHING: Totals = {
  sessions_opened: 0,
  sessions_refused: 0,
  tcp_read_bytes: 0,
  tcp_written_bytes: 0,
  datagrams_received: 0,
  datagrams_sent: 0,
}

/** The sums of what is counted, of two engines or processes. */
export const sumOfTotals = (one: Totals, other: Totals): Totals => ({
  sessions_opened: one.sessions_opened + other.sessions_opened,
  sessions_refused: one.sessions_refused + other.sessions_refused,
  tcp_read_bytes: one.tcp_read_bytes + other.tcp_read_bytes,
  tcp_written_bytes: one.tcp_written_bytes + other.tcp_written_bytes,
  datagrams_received: one.datagrams_received + other.datagrams_received,
  datagrams_sent: one.datagrams_sent + other.datagrams_sent,
})

/** Reads the block of a key, without calling the engine. */
function readKey(core: Core, number: number): { readonly sessions: number; readonly totals: Totals } {
  core.refresh()
  const view = new DataView(core.u8.buffer, core.keysPtr + number * Key.BYTES, Key.BYTES)
  const count = (offset: number): number => Number(view.getBigUint64(offset, true))
  return {
    sessions: view.getUint32(Key.sessions, true),
    totals: {
      sessions_opened: count(Key.opened),
      sessions_refused: count(Key.refused),
      tcp_read_bytes: count(Key.tcpRead),
      tcp_written_bytes: count(Key.tcpWritten),
      datagrams_received: count(Key.received),
      datagrams_sent: count(Key.sent),
    },
  }
}

export class KeyFigures {
  readonly #driver: Driver
  readonly #config: () => Config
  /** Totals of the engines that trapped, by number. */
  readonly #past = new Map<number, Totals>()

  constructor(driver: Driver, config: () => Config) {
    this.#driver = driver
    this.#config = config
  }

  /** An engine trapped: adds its totals to those of the past. */
  engineLost(broken: Core): void {
    for (const { number } of this.#driver.keys?.keys ?? [])
      this.#past.set(number, sumOfTotals(this.#past.get(number) ?? NOTHING, readKey(broken, number).totals))
  }

  /** The keys in the order of the configuration; undefined if there are fewer than two. */
  status(): readonly KeyStatus[] | undefined {
    const { keys } = this.#config()
    if (keys.length < 2) return undefined
    const accepted = this.#driver.keys?.keys ?? []
    for (const number of this.#past.keys())
      if (accepted.every((key) => key.number !== number)) this.#past.delete(number)
    return keys.map(({ name, max_sessions, not_after }) => {
      const number = accepted.find((key) => key.name === name)?.number
      const figures = number === undefined ? undefined : this.#driver.read((core) => readKey(core, number), undefined)
      const age = number === undefined ? -1 : this.#driver.read((core) => core.calls.key_age(number), -1)
      return {
        name,
        sessions: figures?.sessions ?? 0,
        max_sessions: max_sessions >= SESSIONS_MAX ? null : max_sessions,
        ...sumOfTotals(figures?.totals ?? NOTHING, this.#past.get(number ?? -1) ?? NOTHING),
        last_seen_seconds: age < 0 ? null : age / MS_PER_SECOND,
        not_after: not_after ?? null,
      }
    })
  }
}
