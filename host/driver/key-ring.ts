/**
 * The keys of an endpoint (docs/validation.md, "Several keys"): a client seals with the first, a server accepts any of
 * them and finds the one of a datagram. A key has a number, which the engine knows its peers by.
 */

import { type Aead, START_BYTES } from '../crypto/aead.ts'
import { isPlausible } from '../crypto/plausible.ts'
import { type Core, KEY_NUMBERS, Rx, Tx } from '../engine/core.ts'
import type { KeySetting } from '../engine/engine.ts'
import { ADDRESS_KEY_OFFSET } from '../net/address.ts'
import type { HostCounters } from './diagnostics.ts'
import { KnownKeys } from './known-keys.ts'
import { SearchBudget } from './search-budget.ts'

/** Nonces of this length carry the tag of their key. */
const TAGGED_NONCE_BYTES = 24
/** What the tag of a key is derived with: its cipher's output for zeros under a nonce that never occurs otherwise. */
const TAG_LABEL = new TextEncoder().encode('kcptun-wasm key tag, v1.')
const TAG_KEY_BYTES = 16

/** A key before it has a number. */
export interface NewKey {
  /** Empty: the only one. */
  readonly name: string
  /** Most sessions of its peers; 0 = no limit of its own. */
  readonly maxSessions: number
  /** As in the configuration, for people. */
  readonly notAfter: string | undefined
  readonly aead: Aead
}

/** A key that is accepted. */
export interface Key extends NewKey, KeySetting {}

/**
 * Derives what names a key without revealing it (docs/validation.md). It also shows whether two keys are the same.
 * @returns 16 bytes
 */
export function tagKeyOf(aead: Aead): Uint8Array {
  const sealed = new Uint8Array(TAG_KEY_BYTES + aead.tagBytes + aead.nonceBytes)
  aead.seal(new Uint8Array(TAG_KEY_BYTES), 0, TAG_KEY_BYTES, TAG_LABEL, 0, sealed, 0)
  return sealed.slice(0, TAG_KEY_BYTES)
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, i) => byte === b[i])

export class KeyRing {
  /** A cipher with a key; only its method counts, and it may be wiped. */
  readonly shape: Aead
  #keys: readonly Key[] = []
  /** By number; those of keys that are ending are still there. */
  readonly #aeads: (Aead | undefined)[] = new Array<undefined>(KEY_NUMBERS).fill(undefined)
  #lastNumber = -1
  /** With several keys. */
  #known: KnownKeys | undefined
  #budget: SearchBudget | undefined
  readonly #now: () => number
  /** The start of a datagram, decrypted under one key. */
  readonly #start = new Uint8Array(START_BYTES)
  /** Receive descriptors whose key was searched and found since the last `handled`. */
  readonly #found: number[] = []
  /** Counts datagrams for which no key was searched, because that would have cost too much. */
  counters: Pick<HostCounters, 'key_searches_dropped'> = { key_searches_dropped: 0 }

  /**
   * Takes the ciphers over: `wipe` wipes them.
   * @param keys in the order of the configuration, at least one
   * @param now monotonic, ms
   */
  constructor(keys: readonly [NewKey, ...NewKey[]], now: () => number) {
    this.shape = keys[0].aead
    this.#now = now
    this.change(keys)
  }

  /** Those that are accepted, in the order of the configuration. */
  get keys(): readonly Key[] {
    return this.#keys
  }

  /** Number of the key that a client uses. */
  get first(): number {
    return this.#keys[0]?.number ?? 0
  }

  /**
   * Replaces the keys. Those that stay keep their number, whatever their name is now.
   * @returns the keys that are not accepted any more: the caller ends their sessions and calls `drop`
   */
  change(fresh: readonly NewKey[]): readonly Key[] {
    const before = this.#keys
    this.#keys = fresh.map((key) => {
      const tag = tagKeyOf(key.aead)
      const same = before.find((one) => isSame(one.tag, tag))
      if (same === undefined) return { ...key, tag, number: this.#assign(key.aead) }
      if (key.aead !== same.aead) key.aead.wipe()
      return { ...key, tag, number: same.number, aead: same.aead }
    })
    if (this.#keys.length > 1) {
      this.#known ??= new KnownKeys()
      this.#budget ??= new SearchBudget()
    }
    return before.filter(({ number }) => this.#keys.every((key) => key.number !== number))
  }

  /** Takes a number that was free for as long as possible. */
  #assign(aead: Aead): number {
    do this.#lastNumber = (this.#lastNumber + 1) % KEY_NUMBERS
    while (this.#aeads[this.#lastNumber] !== undefined)
    this.#aeads[this.#lastNumber] = aead
    return this.#lastNumber
  }

  /** The sessions of a key have ended: wipes it. */
  drop({ number, tag }: Key): void {
    this.#aeads[number]?.wipe()
    this.#aeads[number] = undefined
    tag.fill(0)
    this.#known?.forget(number)
  }

  /** The name of a key; undefined if there is only one. */
  nameOf(number: number): string | undefined {
    return this.#keys.length < 2 ? undefined : this.#keys.find((key) => key.number === number)?.name
  }

  /** The name of the key of a transmit descriptor's receiver; undefined if there is only one. */
  userOf({ u8, u32 }: Core, at: number): string | undefined {
    return this.#keys.length < 2 ? undefined : this.nameOf(u8[(u32[at + Tx.address] ?? 0) + ADDRESS_KEY_OFFSET] ?? 0)
  }

  /**
   * Opens a datagram into the block of a receive descriptor, and writes the number of its key to the address there.
   * @param at word of the descriptor, whose address is written with key 0
   * @returns whether it is authentic
   */
  openInto(data: Uint8Array, core: Core, at: number): boolean {
    const key = this.#keys.length === 1 ? this.#openUnder(this.first, data, core, at) : this.#search(data, core, at)
    if (key < 0) return false
    if (key > 0) core.u8[(at + Rx.address) * 4 + ADDRESS_KEY_OFFSET] = key
    return true
  }

  /**
   * Seals the datagram of a transmit descriptor into `buffer`.
   * @param at word of the descriptor
   * @returns bytes of the sealed datagram; 0 if its key is not accepted any more
   */
  seal(core: Core, at: number, buffer: Uint8Array): number {
    const { u8, u32 } = core
    const aead = this.#aeads[u8[(u32[at + Tx.address] ?? 0) + ADDRESS_KEY_OFFSET] ?? 0]
    if (aead === undefined) return 0
    const source = u32[at + Tx.source] ?? 0
    return aead.seal(u8, source, u32[at + Tx.length] ?? 0, u8, u32[at + Tx.nonce] ?? 0, buffer, 0)
  }

  /** @returns the number, or -1 if the datagram is not authentic under that key */
  #openUnder(number: number, data: Uint8Array, core: Core, at: number): number {
    const aead = this.#aeads[number]
    if (aead === undefined) return -1
    return aead.openInto(data, data.length, core.u8, core.u32[at + Rx.ptr] ?? 0) < 0 ? -1 : number
  }

  /** The key of the address's last datagram, the one that the nonce names, or any that opens it. */
  #search(data: Uint8Array, core: Core, at: number): number {
    const known = this.#known?.find(core.u32, at + Rx.address) ?? -1
    if (known >= 0 && this.#openUnder(known, data, core, at) >= 0) return known
    const named = this.#namedKey(data, core, at)
    // who copies the nonce of another user gets no further trials for it
    const isCopied = named >= 0 && named === known
    const found = isCopied ? -1 : named >= 0 ? this.#openUnder(named, data, core, at) : this.#tryAll(data, core, at)
    if (found >= 0) this.#found.push(at)
    return found
  }

  /** The engine has handled the datagrams: keeps the addresses of those that it accepted. */
  handled({ u32 }: Core): void {
    if (this.#found.length === 0) return
    for (const at of this.#found)
      if (((u32[at + Rx.flags] ?? 0) & Rx.OPENED) !== 0) this.#known?.add(u32, at + Rx.address)
    this.#found.length = 0
  }

  /** @returns the number of the key that the nonce names, -1 if it names none */
  #namedKey(data: Uint8Array, core: Core, at: number): number {
    const from = data.length - TAGGED_NONCE_BYTES
    if (this.shape.nonceBytes !== TAGGED_NONCE_BYTES || from < 0) return -1
    const ptr = core.u32[at + Rx.ptr] ?? 0
    for (let i = 0; i < TAGGED_NONCE_BYTES; i++) core.u8[ptr + i] = data[from + i] ?? 0
    return core.calls.find_key(ptr)
  }

  #tryAll(data: Uint8Array, core: Core, at: number): number {
    const now = this.#now()
    if (this.#budget?.take(core.u32, at + Rx.address, now) !== true) {
      this.counters.key_searches_dropped++
      return -1
    }
    let found = -1
    for (const { number, aead } of this.#keys) {
      if (!isPlausible(this.#start, aead.peek(data, data.length, this.#start))) continue
      found = this.#openUnder(number, data, core, at)
      if (found >= 0) break
    }
    this.#budget.spend(this.#now() - now)
    return found
  }

  /** Overwrites all keys. */
  wipe(): void {
    for (const aead of this.#aeads) aead?.wipe()
    for (const { tag } of this.#keys) tag.fill(0)
  }
}
