/*
 * Queue of control messages to send. When it is full new ones are dropped: all of them are requested again, or
 * repeated.
 *
 *   entry: u32 what, u32 body, receiver, for PUNCH two addresses, for PING u32 bytes of plaintext that test a path (0 =
 *     no test), u32 maximum bytes of plaintext (0 = no limit), u32 1 = to be sent from the probing socket
 */
import { ADDRESS_BYTES } from '../abi'
import { copyAddress } from '../packet/address'

export const PING: u32 = 0
export const PONG: u32 = 1
export const RESET: u32 = 2
export const LISTEN: u32 = 3
export const CONNECT: u32 = 4
export const PUNCH: u32 = 5

export const BODY: usize = 4
export const RECEIVER: usize = 8
export const FIRST: usize = RECEIVER + ADDRESS_BYTES
export const SECOND: usize = FIRST + ADDRESS_BYTES
const TEST: usize = FIRST

const LIMIT: usize = SECOND + ADDRESS_BYTES
const FROM_PROBE: usize = LIMIT + 4
/** A RESET without padding. */
const RESET_BYTES: u32 = 10

const CAPACITY: u32 = 256
const ENTRY_BYTES: u32 = 88

const entries: usize = memory.data(256 * 88, 8)
let first: u32 = 0
let end: u32 = 0
let isProbe: bool = false

/**
 * While set, messages are sent from the probing socket: those of a probe, and the answers to what arrived there.
 */
export function setProbing(on: bool): void {
  isProbe = on
}

/** @returns true while what is handled belongs to the probing socket */
export function isProbing(): bool {
  return isProbe
}

/** @returns true if a message is to be sent from the probing socket */
export function isFromProbe(entry: usize): bool {
  return load<u32>(entry, FROM_PROBE) != 0
}

export function isControlWaiting(): bool {
  return first != end
}

/**
 * Queues a message with a body of 4 bytes, or one that is built from the endpoint's own state. The body of CONNECT and
 * LISTEN is the local port to announce, 0 for that of the local address.
 * @returns the entry; 0 if the queue is full
 */
export function push(what: u32, body: u32, receiver: usize): usize {
  if (end - first == CAPACITY) return 0
  const entry = entries + <usize>((end++ & (CAPACITY - 1)) * ENTRY_BYTES)
  store<u32>(entry, what)
  store<u32>(entry, body, BODY)
  store<u32>(entry, 0, TEST)
  store<u32>(entry, 0, LIMIT)
  store<u32>(entry, isProbe ? 1 : 0, FROM_PROBE)
  copyAddress(entry + RECEIVER, receiver)
  return entry
}

/** @returns maximum bytes of plaintext of a message, padding included; 0 = no limit */
export function limitOf(entry: usize): u32 {
  return load<u32>(entry, LIMIT)
}

/** @returns bytes of plaintext of a PING that tests the path, 0 for any other message */
export function testBytesOf(entry: usize): u32 {
  return load<u32>(entry) == PING ? load<u32>(entry, TEST) : 0
}

/** Makes a queued PING test the path with a datagram of `bytes` of plaintext. */
export function setTestBytes(entry: usize, bytes: u32): void {
  store<u32>(entry, bytes, TEST)
}

/** Queues a PUNCH that carries two addresses. */
export function pushPunch(receiver: usize, local: usize, observed: usize): void {
  const entry = push(PUNCH, 0, receiver)
  if (!entry) return
  copyAddress(entry + FIRST, local)
  copyAddress(entry + SECOND, observed)
}

/** @returns the oldest entry, removed from the queue; valid until the next call */
export function shiftEntry(): usize {
  return entries + <usize>((first++ & (CAPACITY - 1)) * ENTRY_BYTES)
}

/**
 * Queues a RESET: the conversation of a datagram with `received` bytes of plaintext does not exist. The RESET is no
 * longer than a datagram with a segment, because its receiver may not have requested it.
 */
export function sendReset(conv: u32, receiver: usize, received: u32): void {
  const entry = push(RESET, conv, receiver)
  if (entry) store<u32>(entry, max(received, RESET_BYTES), LIMIT)
}
