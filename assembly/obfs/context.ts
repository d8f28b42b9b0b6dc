/*
 * Contexts: the state of one remote address and port under an obfuscator (protocol.md 9), and their table. numbers.ts,
 * receive.ts and transmit.ts maintain the numbers of packets, endpoint/obfs.ts the life of contexts.
 *
 * A hash table by address, ids of generation and slot, and a list of the unauthenticated ones, oldest first.
 */

import { seconds } from '../clock'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { alloc, allocUrgent, classOf, free } from '../memory/slab'
import { copyAddress, familyOf, hashPlace, IP, IP_LOW, IPV6, samePlace } from '../packet/address'
import { OBFS_CONTEXTS, OBFS_UNAUTHENTICATED, shift } from '../stats'
import { Seconds } from '../units'

/** protocol.md 9.1 */
export const MAX_CONTEXTS: u32 = 4095
const SLOTS: u32 = 4096
const SLOT_BITS: u32 = 12
const MAX_GENERATION: u32 = 0x7ffff

/** The numbers of the peer are known: data can be sent as part of the connection. */
export const CAPTURED: u32 = 1
/** A payload was authentic. */
export const AUTHENTICATED: u32 = 2
/** dpi/tcp client: SYN|ACK arrived. */
export const READY: u32 = 4
/** The next packet carries ECE. */
export const ECE_PENDING: u32 = 8
/** The numbers of a packet with a wrong checksum are held. */
export const HELD: u32 = 16

@unmanaged
export class Context {
  remote0: u64
  remote1: u64
  remote2: u64
  // our own address, according to the peer's packets
  local0: u64
  local1: u64
  local2: u64
  bytesIn: u64
  bytesOut: u64
  id: u32
  chained: usize
  older: usize
  younger: usize
  flags: u32
  // dpi/tcp-wnd: constant seq and ack of our packets; dpi/tcp: the next ones
  seq: u32
  ack: u32
  flow: u32
  heldSeq: u32
  heldAck: u32
  heldFlow: u32
  // dpi/tcp client: the number that acknowledges its SYN
  synAck: u32
  createdSecond: Seconds
  payloadSecond: Seconds
  congested: u32
  echoes: u32
}

const CONTEXT_CLASS: u32 = classOf(offsetof<Context>())

/** @returns address record of the remote end */
export function remoteOf(c: Context): usize {
  return changetype<usize>(c)
}

/** @returns address record of our own end */
export function localOf(c: Context): usize {
  return changetype<usize>(c) + offsetof<Context>('local0')
}

export function is(c: Context, flag: u32): bool {
  return (c.flags & flag) != 0
}

/** 16 bytes per slot: context, generation, next free slot + 1. */
let slots: usize = 0
const SLOT_SHIFT: u32 = 4
const SLOT_GENERATION: usize = 4
const SLOT_NEXT: usize = 8
let chains: usize = 0
let slotCount: u32 = 0
let firstFree: u32 = 0
let size: u32 = 0
const unauthenticatedList: List = changetype<List>(memory.data(8, 8))
const LINKS: usize = offsetof<Context>('older')
let unauthenticated: u32 = 0
let lastFound: usize = 0

/**
 * Allocates the table.
 * @returns false when memory is scarce
 */
export function openContexts(): bool {
  if (slots) return true
  const table = allocUrgent(classOf(SLOTS << SLOT_SHIFT))
  if (!table) return false
  chains = allocUrgent(classOf(SLOTS << 2))
  if (!chains) {
    free(table, classOf(SLOTS << SLOT_SHIFT))
    return false
  }
  memory.fill(table, 0, SLOTS << SLOT_SHIFT)
  memory.fill(chains, 0, SLOTS << 2)
  slots = table
  return true
}

export function contextCount(): u32 {
  return size
}

export function unauthenticatedCount(): u32 {
  return unauthenticated
}

/** @returns number of slots that may hold a context */
export function contextSlots(): u32 {
  return slotCount
}

/** @returns the context of a slot, null if it is free */
export function contextAt(slot: u32): Context | null {
  return slot < slotCount ? changetype<Context | null>(load<usize>(slots + ((<usize>slot) << SLOT_SHIFT))) : null
}

/** @returns the context of an id, null if it is gone */
export function contextOf(id: u32): Context | null {
  const c = contextAt(id & (SLOTS - 1))
  return c && c.id == id ? c : null
}

/** @returns the context of a remote address, whatever its key, null if there is none */
export function findContext(address: usize): Context | null {
  if (!size) return null
  if (lastFound && samePlace(lastFound, address)) return changetype<Context>(lastFound)
  let at = load<usize>(chainOf(address))
  while (at) {
    if (samePlace(at, address)) {
      lastFound = at
      return changetype<Context>(at)
    }
    at = changetype<Context>(at).chained
  }
  return null
}

function chainOf(address: usize): usize {
  return chains + ((<usize>(hashPlace(address) & (SLOTS - 1))) << 2)
}

/**
 * Creates the context of a remote address that has none.
 * @returns null when the table is full or memory is scarce
 */
export function insertContext(address: usize): Context | null {
  if (!slots || size >= MAX_CONTEXTS) return null
  const at = alloc(CONTEXT_CLASS)
  if (!at) return null
  memory.fill(at, 0, (<usize>1) << CONTEXT_CLASS)
  const c = changetype<Context>(at)
  copyAddress(remoteOf(c), address)
  const slot = firstFree ? firstFree - 1 : slotCount
  if (slot == slotCount) slotCount++
  const entry = slots + ((<usize>slot) << SLOT_SHIFT)
  firstFree = load<u32>(entry, SLOT_NEXT)
  const generation = (load<u32>(entry, SLOT_GENERATION) % MAX_GENERATION) + 1
  store<usize>(entry, at)
  store<u32>(entry, generation, SLOT_GENERATION)
  c.id = (generation << SLOT_BITS) | slot
  const chain = chainOf(address)
  c.chained = load<usize>(chain)
  store<usize>(chain, at)
  c.createdSecond = c.payloadSecond = seconds()
  size++
  shift(OBFS_CONTEXTS, 1)
  appendUnauthenticated(c)
  return c
}

/** Removes a context and frees its record. */
export function removeContext(c: Context): void {
  const at = changetype<usize>(c)
  if (!is(c, AUTHENTICATED)) leaveUnauthenticated(c)
  if (lastFound == at) lastFound = 0
  let link = chainOf(remoteOf(c))
  while (load<usize>(link) != at) link = load<usize>(link) + offsetof<Context>('chained')
  store<usize>(link, c.chained)
  const slot = c.id & (SLOTS - 1)
  const entry = slots + ((<usize>slot) << SLOT_SHIFT)
  store<usize>(entry, 0)
  store<u32>(entry, firstFree, SLOT_NEXT)
  firstFree = slot + 1
  size--
  shift(OBFS_CONTEXTS, -1)
  free(at, CONTEXT_CLASS)
}

// ---- unauthenticated contexts

export function oldestUnauthenticated(): Context | null {
  return changetype<Context | null>(unauthenticatedList.oldest)
}

/**
 * Finds the address with most unauthenticated contexts. IPv6 addresses are counted by /64, which is what one customer
 * gets.
 * @param least minimum age of the context in seconds
 * @returns its oldest context, null if there is none
 */
export function mostCrowded(least: Seconds): Context | null {
  let found: usize = 0
  let most: u32 = 0
  for (let at = unauthenticatedList.oldest; at; at = changetype<Context>(at).younger) {
    // the older ones of the same address have counted it already
    let n: u32 = 0
    for (let other = at; other; other = changetype<Context>(other).younger) if (isSameHost(at, other)) n++
    if (n <= most || seconds() - changetype<Context>(at).createdSecond < least) continue
    most = n
    found = at
  }
  return changetype<Context | null>(found)
}

/** @returns true for contexts of one IPv4 address, or of one IPv6 /64 */
function isSameHost(a: usize, b: usize): bool {
  if (familyOf(a) != familyOf(b) || load<u64>(a, IP) != load<u64>(b, IP)) return false
  return familyOf(a) == IPV6 || load<u64>(a, IP_LOW) == load<u64>(b, IP_LOW)
}

function appendUnauthenticated(c: Context): void {
  appendEntry(unauthenticatedList, changetype<usize>(c), LINKS)
  unauthenticated++
  shift(OBFS_UNAUTHENTICATED, 1)
}

function leaveUnauthenticated(c: Context): void {
  unlinkEntry(unauthenticatedList, changetype<usize>(c), LINKS)
  unauthenticated--
  shift(OBFS_UNAUTHENTICATED, -1)
}

/** A payload from this address was authentic: the numbers that were held for a wrong checksum become valid. */
export function authenticate(address: usize): void {
  const c = findContext(address)
  if (!c) return
  c.payloadSecond = seconds()
  if (!is(c, AUTHENTICATED)) {
    leaveUnauthenticated(c)
    c.flags |= AUTHENTICATED
  }
  if (is(c, HELD)) {
    c.seq = c.heldSeq
    c.ack = c.heldAck
    c.flow = c.heldFlow
    c.flags = (c.flags & ~HELD) | CAPTURED
  }
}
