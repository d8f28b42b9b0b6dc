/*
 * Session 0 (protocol.md 7): connectionless control messages, parsed and built.
 *
 *   +---------+----------+------+
 *   | u32 0   | u16 what | body |     big-endian
 *   +---------+----------+------+
 */

import { writeWireAddress } from '../packet/address'
import { count, PINGS_SENT, PONGS_RECEIVED, RESETS_RECEIVED, RESETS_SENT } from '../stats'
import { Seconds, Ticks } from '../units'
import { BODY, CONNECT, FIRST, LISTEN, PING, PONG, PUNCH, push, RESET, SECOND, testBytesOf } from './queue'
import { onHello, onPunch, writeHello } from './rendezvous'

const WHAT_AT: usize = 4
const BODY_AT: u32 = 6
const VALUE_BYTES: u32 = 4

/** What `takeControl` found. */
export const HANDLED: u32 = 0
export const MALFORMED: u32 = 1
export const GOT_RESET: u32 = 2
export const GOT_PONG: u32 = 3
export const GOT_PING: u32 = 4
export const GOT_PUNCH: u32 = 5

/** @returns what a result of `takeControl` found */
export function foundOf(result: u64): u32 {
  return <u32>result
}

/** @returns the conv of a RESET, the value of a PING or PONG */
export function valueOf(result: u64): u32 {
  return <u32>(result >> 32)
}

function result(found: u32, value: u32): u64 {
  return ((<u64>value) << 32) | found
}

/** @returns true for a LISTEN, complete or not */
export function isListen(at: usize, len: u32): bool {
  return len >= BODY_AT && <u32>bswap<u16>(load<u16>(at, WHAT_AT)) == LISTEN
}

/**
 * Builds the message of a queue entry at `block`.
 * @returns its bytes
 */
export function buildControl(entry: usize, block: usize): u32 {
  const what = load<u32>(entry)
  const body = block + BODY_AT
  store<u32>(block, 0)
  store<u16>(block, bswap<u16>(<u16>what), WHAT_AT)
  if (what == LISTEN || what == CONNECT) return BODY_AT + writeHello(body, load<u32>(entry, BODY))
  if (what == PUNCH) {
    const first = writeWireAddress(body, entry + FIRST)
    return BODY_AT + first + writeWireAddress(body + first, entry + SECOND)
  }
  if (what == PING) count(PINGS_SENT)
  else if (what == RESET) count(RESETS_SENT)
  store<u32>(body, bswap<u32>(load<u32>(entry, BODY)))
  const test = testBytesOf(entry)
  if (test <= BODY_AT + VALUE_BYTES) return BODY_AT + VALUE_BYTES
  // the peer ignores what follows the message (protocol.md 7.1)
  memory.fill(body + VALUE_BYTES, 0, test - BODY_AT - VALUE_BYTES)
  return test
}

/**
 * Handles a control message of `len` >= 4 bytes from `address`. A malformed one is not answered.
 * @param second age of the endpoint
 * @param mapped the endpoint's socket is an IPv6 one
 * @returns a result for `foundOf` and `valueOf`
 */
export function takeControl(at: usize, len: u32, address: usize, second: Seconds, mapped: bool, now: Ticks): u64 {
  if (len < BODY_AT) return MALFORMED
  const what = <u32>bswap<u16>(load<u16>(at, WHAT_AT))
  const body = at + BODY_AT
  const bytes = len - BODY_AT
  if (what == LISTEN || what == CONNECT) {
    return onHello(what == LISTEN, body, bytes, address, second, now) ? HANDLED : MALFORMED
  }
  if (what == PUNCH) return onPunch(body, bytes, mapped, now) ? GOT_PUNCH : MALFORMED
  if (what > RESET || bytes < VALUE_BYTES) return MALFORMED
  const value = bswap<u32>(load<u32>(body))
  if (what == PING) {
    push(PONG, value, address)
    return result(GOT_PING, value)
  }
  if (what == PONG) {
    count(PONGS_RECEIVED)
    return result(GOT_PONG, value)
  }
  count(RESETS_RECEIVED)
  return result(GOT_RESET, value)
}
