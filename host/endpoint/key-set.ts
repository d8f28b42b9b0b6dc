/**
 * The keys of an endpoint from its configuration: opened at the start and by a reload, and dropped when they expire.
 */

import type { Config } from '../config/config.ts'
import { expiryOf } from '../config/keys.ts'
import { keySource, type NamedKey, namedKeys, SESSIONS_MAX } from '../config/security.ts'
import { withKey } from '../crypto/key.ts'
import { methods } from '../crypto/methods.ts'
import { openAead, type RuntimeCrypto } from '../crypto/open.ts'
import type { Driver } from '../driver/driver.ts'
import { KeyRing, type NewKey, tagKeyOf } from '../driver/key-ring.ts'
import { ConfigError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'

/** The wall clock is looked at this often while a key will expire, ms: it may be set. */
const CHECK_MS = 3_600_000

const expiryIn = (text: string): number => expiryOf(text) ?? Number.POSITIVE_INFINITY

/** Whether two configurations have the same keys. */
const isSameList = (one: Config, other: Config): boolean =>
  JSON.stringify([one.keys, one.psk, one.password]) === JSON.stringify([other.keys, other.psk, other.password])

/** Opens the ciphers of keys. @throws ConfigError if two are the same; what was opened is wiped then */
async function openAll(method: string, named: readonly NamedKey[], crypto: RuntimeCrypto): Promise<NewKey[]> {
  const opened: NewKey[] = []
  try {
    const tags: string[] = []
    for (const key of named) {
      const aead = await withKey(keySource(key), (bytes) => openAead(method, bytes, crypto))
      const { name, not_after, max_sessions } = key
      opened.push({ name, aead, notAfter: not_after, maxSessions: max_sessions >= SESSIONS_MAX ? 0 : max_sessions })
      // a password may be that of a psk
      const tag = String(tagKeyOf(aead))
      const same = tags.indexOf(tag)
      if (same >= 0) throw new ConfigError('keys', name, `has the same key as ${opened[same]?.name}`)
      tags.push(tag)
    }
    return opened
  } catch (error) {
    for (const { aead } of opened) aead.wipe()
    throw error
  }
}

/**
 * Opens the keys of a configuration.
 * @returns undefined without a method
 * @throws ConfigError
 */
export async function openKeys(config: Config, crypto: RuntimeCrypto, clock: Clock): Promise<KeyRing | undefined> {
  const named = namedKeys(config, methods, clock.wall())
  if (named === undefined) return undefined
  const [first, ...others] = await openAll(config.method ?? '', named, crypto)
  return first && new KeyRing([first, ...others], () => clock.monotonic())
}

/** Follows the configuration of a running endpoint. */
export class KeySet {
  readonly #driver: Driver
  readonly #crypto: RuntimeCrypto
  readonly #clock: Clock
  readonly #log: Log
  #config: Config
  #timer: Timer | undefined

  constructor(driver: Driver, config: Config, crypto: RuntimeCrypto, clock: Clock, log: Log) {
    this.#driver = driver
    this.#config = config
    this.#crypto = crypto
    this.#clock = clock
    this.#log = log
    this.#watch()
  }

  /**
   * Opens the keys of a fresh configuration, for `apply` or `discard`.
   * @returns undefined if they stay
   * @throws ConfigError
   */
  async open(config: Config): Promise<readonly NewKey[] | undefined> {
    const named = namedKeys(config, methods, this.#clock.wall())
    if (named === undefined || isSameList(config, this.#config)) return undefined
    return openAll(config.method ?? '', named, this.#crypto)
  }

  /** The configuration is in force. */
  apply(config: Config, fresh: readonly NewKey[]): void {
    this.#config = config
    for (const { name } of this.#driver.changeKeys(fresh))
      this.#log.notice(`the key of ${name || 'psk'} is not accepted any more, its sessions end`)
    this.#watch()
  }

  discard(fresh: readonly NewKey[]): void {
    for (const { aead } of fresh) aead.wipe()
  }

  /** The wall clock was set. */
  onClock(): void {
    this.#watch()
  }

  close(): void {
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  /** Drops the keys that have expired, and waits for the next one to. */
  #watch(): void {
    this.close()
    const { keys } = this.#driver
    if (keys === undefined) return
    const now = this.#clock.wall()
    const valid = keys.keys.filter(({ notAfter }) => notAfter === undefined || now < expiryIn(notAfter))
    if (valid.length < keys.keys.length) {
      for (const { name, notAfter } of this.#driver.changeKeys(valid))
        this.#log.warning(`the key of ${name} has expired (not_after ${notAfter}), its sessions end`)
      if (valid.length === 0)
        this.#log.error('all keys have expired: no peer is accepted until the configuration is reloaded')
    }
    const next = Math.min(
      ...valid.map(({ notAfter }) => (notAfter === undefined ? Number.POSITIVE_INFINITY : expiryIn(notAfter))),
    )
    if (next !== Number.POSITIVE_INFINITY)
      this.#timer = this.#clock.setTimer(() => this.#watch(), Math.min(next - now, CHECK_MS))
  }
}
