/*
 * Outstanding PINGs. A PONG is accepted only as the answer to one of them: same value, and from the address that was
 * pinged. Values are unpredictable, so a recorded PONG matches none.
 *
 *   entry: 0 value  4 sent at  8 purpose (0 = answered)  12 argument  16 address
 */

import { TICKS_PER_SECOND } from '../abi'
import { copyAddress, sameAddress } from '../packet/address'
import { sipHash } from '../siphash'
import { Ticks } from '../units'
import { PING, push, setTestBytes } from './queue'

/** Of the keepalive, and of `ping_peer`. */
export const PEER_PING: u32 = 1
/** To an address of a PUNCH; argument: the number of that PUNCH. */
export const PUNCH_PING: u32 = 2
/** To the old and to the new address of sessions that may move (endpoint/migration.ts). */
export const OLD_PING: u32 = 3
export const NEW_PING: u32 = 4
/** To the old and to the new address of a service (services.ts). */
export const OLD_SERVICE_PING: u32 = 5
export const NEW_SERVICE_PING: u32 = 6
/** Whether a datagram of a size arrives; argument: bytes of plaintext, 0 = a small one (endpoint/path_search.ts). */
export const SIZE_PING: u32 = 7
/** Of the host; argument: its number (endpoint/host_pings.ts). */
export const HOST_PING: u32 = 8

/** Number of entries; the oldest is replaced. */
const CAPACITY: u32 = 256
const ENTRY_BYTES: u32 = 40
const SENT_AT: usize = 4
const PURPOSE: usize = 8
const ARGUMENT: usize = 12
const ADDRESS: usize = 16
/** A later answer is ignored. */
const LIFETIME_TICKS: Ticks = 60 * TICKS_PER_SECOND

const entries: usize = memory.data(256 * 40, 8)
let sent: u32 = 0
let drawCount: u64 = 0

/**
 * Starts the generator of values.
 * @param seed random: the engines of one endpoint share its secret and must not draw the same values
 */
export function startPings(seed: u64): void {
  drawCount = seed
}

/** @returns a number that cannot be predicted without the endpoint's secret */
export function unpredictable(): u32 {
  return <u32>sipHash(0, 0, drawCount++)
}

/**
 * Queues a PING.
 * @param testBytes bytes of plaintext that it tests the path with, 0 = no test
 * @returns false if the queue is full
 */
export function sendPing(purpose: u32, argument: u32, address: usize, now: Ticks, testBytes: u32 = 0): bool {
  const value = unpredictable()
  const message = push(PING, value, address)
  if (!message) return false
  if (testBytes) setTestBytes(message, testBytes)
  const entry = entries + <usize>((sent++ & (CAPACITY - 1)) * ENTRY_BYTES)
  store<u32>(entry, value)
  store<u32>(entry, now, SENT_AT)
  store<u32>(entry, purpose, PURPOSE)
  store<u32>(entry, argument, ARGUMENT)
  copyAddress(entry + ADDRESS, address)
  return true
}

/** @returns the outstanding PING of a value, 0 if there is none */
export function findPing(value: u32, now: Ticks): usize {
  const n = min(sent, CAPACITY)
  for (let i: u32 = 0; i < n; i++) {
    const entry = entries + <usize>(i * ENTRY_BYTES)
    if (load<u32>(entry) != value || load<u32>(entry, PURPOSE) == 0) continue
    if (now - load<u32>(entry, SENT_AT) <= LIFETIME_TICKS) return entry
  }
  return 0
}

export function purposeOf(entry: usize): u32 {
  return load<u32>(entry, PURPOSE)
}

export function argumentOf(entry: usize): u32 {
  return load<u32>(entry, ARGUMENT)
}

export function sentAtOf(entry: usize): Ticks {
  return load<u32>(entry, SENT_AT)
}

/** @returns true if the PING was sent to this address */
export function wasSentTo(entry: usize, address: usize): bool {
  return sameAddress(entry + ADDRESS, address)
}

/** The PING was answered. */
export function closePing(entry: usize): void {
  store<u32>(entry, 0, PURPOSE)
}
