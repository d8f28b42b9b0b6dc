/*
 * Session 0 (protocol.md 7): connectionless control messages and the client's keepalive. Rendezvous messages get a room of their own.
 *
 *   +---------+----------+------+
 *   | u32 0   | u16 what | body |     big-endian
 *   +---------+----------+------+
 */
import { TICKS_PER_SECOND } from '../abi'
import { ADDRESS_BYTES, copyAddress } from '../packet/address'
import { PEER_SILENT_PINGS, PINGS_SENT, PONGS_RECEIVED, RESETS_RECEIVED, RESETS_SENT, count, set } from '../stats'

const PING: u32 = 0
const PONG: u32 = 1
const RESET: u32 = 2

const WHAT: usize = 4
const BODY: usize = 6
/** All messages known here have a body of 4 bytes. */
export const MESSAGE_BYTES: u32 = 10

/** Messages that wait for the next drain; the newest are dropped beyond that. Entry: u32 what, u32 body, address. */
const QUEUE: u32 = 256
const ENTRY_BYTES: u32 = 8 + ADDRESS_BYTES

/** The next look after a ping comes so much later (protocol.md 7.3). */
const PING_TIMEOUT_TICKS: u32 = 4 * TICKS_PER_SECOND

const queue: usize = memory.data(256 * 32, 8)
let first: u32 = 0
let end: u32 = 0

/** What `handleControl` found. */
export const IGNORED: u32 = 0
export const MALFORMED: u32 = 1
export const GOT_RESET: u32 = 2
export const GOT_PONG: u32 = 3

/** The conv of the RESET or the timestamp of the PONG found last. */
export let argument: u32 = 0

export function controlWaiting(): bool {
  return first != end
}

function push(what: u32, body: u32, address: usize): void {
  if (end - first == QUEUE) return
  const at = queue + <usize>((end & (QUEUE - 1)) * ENTRY_BYTES)
  store<u32>(at, what)
  store<u32>(at, body, 4)
  copyAddress(at + 8, address)
  end++
}

/** Tells a peer that a conversation does not exist (any more). */
export function sendReset(conv: u32, address: usize): void {
  push(RESET, conv, address)
}

/** Builds the oldest waiting message at `block`; `controlAddress` then is its receiver. */
export let controlAddress: usize = 0

export function buildControl(block: usize): void {
  const at = queue + <usize>((first++ & (QUEUE - 1)) * ENTRY_BYTES)
  const what = load<u32>(at)
  if (what == PING) count(PINGS_SENT)
  else if (what == RESET) count(RESETS_SENT)
  store<u32>(block, 0)
  store<u16>(block, bswap<u16>(<u16>what), WHAT)
  store<u32>(block, bswap<u32>(load<u32>(at, 4)), BODY)
  controlAddress = at + 8
}

/** Takes a control message of `len` >= 4 bytes from `address`; what its sender sees of a bad one is nothing. */
export function handleControl(at: usize, len: u32, address: usize): u32 {
  if (len < MESSAGE_BYTES) return MALFORMED
  const what = <u32>bswap<u16>(load<u16>(at, WHAT))
  argument = bswap<u32>(load<u32>(at, BODY))
  if (what == PING) {
    push(PONG, argument, address)
    return IGNORED
  }
  if (what == PONG) {
    count(PONGS_RECEIVED)
    pinging = false
    silentPings = 0
    set(PEER_SILENT_PINGS, 0)
    return GOT_PONG
  }
  if (what == RESET) {
    count(RESETS_RECEIVED)
    return GOT_RESET
  }
  return MALFORMED
}

// ---- keepalive of a client (protocol.md 7.3)

let keepaliveTicks: u32 = 0
let pingAt: u32 = 0
let pinging: bool = false
let everPinged: bool = false
let silentPings: u32 = 0
let random: u32 = 1

/** `seed`: any random number. The first ping is due at once. */
export function startKeepalive(seconds: u32, seed: u32, now: u32): void {
  keepaliveTicks = seconds * TICKS_PER_SECOND
  random = seed | 1
  pingAt = now
}

export function setKeepalive(seconds: u32): void {
  keepaliveTicks = seconds * TICKS_PER_SECOND
}

/** Jitter: keepalive / (1 - 0.2 r), r uniform in [0, 1). */
function interval(): u32 {
  random = random * 1664525 + 1013904223
  const r = <u64>(random >> 16)
  return <u32>((<u64>keepaliveTicks * 65536 * 5) / (65536 * 5 - r))
}

/** Ticks until the next look; u32 maximum when off. */
export function untilPing(now: u32): u32 {
  if (keepaliveTicks == 0) return 0xffffffff
  const d = <i32>(pingAt - now)
  return d > 0 ? d : 0
}

/** Looks whether a ping is due: the first one always is, a later one when nothing was sent for the interval. */
export function checkPing(lastSent: u32, peer: usize, now: u32): void {
  if (keepaliveTicks == 0 || <i32>(pingAt - now) > 0) return
  if (pinging) {
    pinging = false
    silentPings++
    set(PEER_SILENT_PINGS, silentPings)
  }
  const due = everPinged ? lastSent + interval() : now
  if (<i32>(due - now) > 0) {
    pingAt = due
    return
  }
  // only its sender reads the timestamp (protocol.md 7.2), so it is our own clock
  push(PING, now, peer)
  pinging = everPinged = true
  pingAt = now + PING_TIMEOUT_TICKS
}
