/*
 * Keys of an endpoint that accepts several (docs/validation.md, "Several keys"). The host opens and seals; here a key is
 * a number in the address of a peer, the tag by which a nonce names it, a limit and figures.
 */

import {
  KEY_BYTES,
  KEY_MAX_SESSIONS,
  KEY_NUMBERS,
  KEY_OPENED,
  KEY_RECEIVED,
  KEY_REFUSED,
  KEY_SENT,
  KEY_SESSIONS,
  KEY_TAG,
  KEY_TCP_READ,
  KEY_TCP_WRITTEN,
  TICKS_PER_MS,
} from '../abi'
import { elapsed } from '../clock'
import { sipHashUnder } from '../siphash'
import { ElapsedTicks } from '../units'

/** What the tag covers: the first words of a nonce; and its offset: the last 4 bytes of 24. */
const TAGGED_WORDS: u32 = 2
const TAGGED_LENGTH: u64 = 16
const TAG_AT: usize = 20

/** Key block of each number. */
export const keys: usize = memory.data(128 * KEY_BYTES, 8)
/** Time of the last datagram of each, plus 1; 0 = there was none. */
const seen: usize = memory.data(128 * 8, 8)
/** Numbers with a tag. */
const tagged: usize = memory.data(128)
let taggedCount: u32 = 0

function blockOf(key: u32): usize {
  return keys + <usize>(key * KEY_BYTES)
}

function seenAt(key: u32): usize {
  return seen + ((<usize>key) << 3)
}

/**
 * The host wrote the block of a key.
 * @returns false for a number that is too large
 */
export function setKey(key: u32): bool {
  if (key >= KEY_NUMBERS) return false
  if (findTagged(key) == taggedCount) {
    store<u8>(tagged + <usize>taggedCount, <u8>key)
    taggedCount++
  }
  return true
}

/** A key is not accepted any more: no nonce names it, and a later key with its number begins at zero. */
export function forgetKey(key: u32): void {
  const i = findTagged(key)
  if (i == taggedCount) return
  taggedCount--
  store<u8>(tagged + <usize>i, load<u8>(tagged + <usize>taggedCount))
  const at = blockOf(key)
  const sessions = load<u32>(at, KEY_SESSIONS)
  memory.fill(at, 0, KEY_BYTES)
  store<u32>(at, sessions, KEY_SESSIONS)
  store<u64>(seenAt(key), 0)
}

/** @returns position of a number in `tagged`, or their count */
function findTagged(key: u32): u32 {
  let i: u32 = 0
  while (i < taggedCount && load<u8>(tagged + <usize>i) != key) i++
  return i
}

function tagOf(key: u32, nonce: usize): u32 {
  const at = blockOf(key) + KEY_TAG
  return <u32>sipHashUnder(load<u64>(at), load<u64>(at, 8), nonce, TAGGED_WORDS, TAGGED_LENGTH << 56)
}

/** Writes the tag of a key into a nonce of 24 bytes. Without one its last bytes stay random. */
export function writeKeyTag(nonce: usize, key: u32): void {
  const at = blockOf(key) + KEY_TAG
  if ((load<u64>(at) | load<u64>(at, 8)) != 0) store<u32>(nonce, tagOf(key, nonce), TAG_AT)
}

/** @returns number of the key that a nonce of 24 bytes names, -1 if it names none */
export function findKey(nonce: usize): i32 {
  const tag = load<u32>(nonce, TAG_AT)
  for (let i: u32 = 0; i < taggedCount; i++) {
    const key = <u32>load<u8>(tagged + <usize>i)
    if (tagOf(key, nonce) == tag) return key
  }
  return -1
}

/**
 * A nonce counts as known only under the key that it came with: who sees a nonce of another user must not be able to use
 * it up.
 * @returns what to combine the hash of a nonce with; 0 for the first key
 */
export function saltOf(key: u32): u64 {
  return <u64>key * 0x9e3779b97f4a7c15
}

// ---- limit and figures

function add(key: u32, field: usize, n: u64): void {
  const at = blockOf(key) + field
  store<u64>(at, load<u64>(at) + n)
}

/** @returns true if peers with this key may not have a further session */
export function isKeyFull(key: u32): bool {
  const most = load<u32>(blockOf(key), KEY_MAX_SESSIONS)
  return most != 0 && load<u32>(blockOf(key), KEY_SESSIONS) >= most
}

/** A session was refused because the key is full. */
export function countRefused(key: u32): void {
  add(key, KEY_REFUSED, 1)
}

/** An authentic datagram arrived. */
export function onKeyReceived(key: u32): void {
  store<u64>(seenAt(key), elapsed() + 1)
  add(key, KEY_RECEIVED, 1)
}

/** A datagram was built. */
export function onKeySent(key: u32): void {
  add(key, KEY_SENT, 1)
}

/** A session was opened (1) or ended (-1). */
export function countKeySession(key: u32, change: i32): void {
  const at = blockOf(key)
  store<u32>(at, load<u32>(at, KEY_SESSIONS) + change, KEY_SESSIONS)
  if (change > 0) add(key, KEY_OPENED, 1)
}

/** Payload came from TCP. */
export function onKeyRead(key: u32, bytes: u32): void {
  add(key, KEY_TCP_READ, bytes)
}

/** TCP took payload. */
export function onKeyWritten(key: u32, bytes: u32): void {
  add(key, KEY_TCP_WRITTEN, bytes)
}

/** @returns ms since the last datagram, -1 if there was none */
export function keyAge(key: u32): i32 {
  const last = key < KEY_NUMBERS ? load<ElapsedTicks>(seenAt(key)) : 0
  return last == 0 ? -1 : <i32>min<u64>((elapsed() + 1 - last) / TICKS_PER_MS, i32.MAX_VALUE)
}
