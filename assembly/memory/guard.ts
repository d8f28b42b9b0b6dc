/*
 * The allocator of the checked build, which finds accesses outside of blocks as AddressSanitizer does (Serebryany et al.
 * 2012). build/instrument.mjs puts `take` and `free` in the place of those of slab.ts. Other builds contain nothing of this
 * file.
 *
 * - Each block is the lower half of a block of twice its size; the upper half is a red zone.
 * - Freed blocks wait in a queue before their memory is used again, so that stale pointers are seen.
 * - New and freed blocks are filled with patterns, so that code that reads what it did not write goes wrong visibly.
 *
 * What may be accessed is recorded in shadow bytes, one for each granule of 64 bytes. The build inserts a call of
 * `checkAccess` before each load and store outside of memory/slab, memory/buddy and this file. A violation stores what it is
 * in the fault record and traps.
 *
 *   shadow byte:  6..22 first granule of a block of this class   64 another granule of a block   128.. not accessible
 */
import { growMemory, joinBlock, MAX_CLASS, MIN_CLASS, takeBlock } from './buddy'
import { excludeFromUse, memoryLimit } from './slab'

const GRANULE_SHIFT: u32 = MIN_CLASS
const REGION_SHIFT: u32 = MAX_CLASS
const REGION_GRANULES: u32 = 1 << (REGION_SHIFT - GRANULE_SHIFT)
const SHADOW_CLASS: u32 = REGION_SHIFT - GRANULE_SHIFT

const INNER: u32 = 0x40
const BAD: u32 = 0x80
const FREE: u32 = 0x80
const RED_ZONE: u32 = 0x81
const QUARANTINED: u32 = 0x82
/** Kinds of faults that are no shadow bytes. */
const FAULT_NULL: u32 = 1
const FAULT_CROSSING: u32 = 2
const FAULT_FREE: u32 = 3

const NEW_PATTERN: u8 = 0xa5
const FREED_PATTERN: u8 = 0xdd

/** Static data begins here: the build sets the memory base, below is the null page. */
const NULL_PAGE_BYTES: usize = 1024
/** Blocks in quarantine, and their bytes. */
const QUARANTINE_SLOTS: u32 = 4096
const QUARANTINE_BYTES: u32 = 2 << 20
const EDGE_BYTES: u32 = 8192

/** Shadow bytes, by region. */
const shadows: usize = memory.data(1024 * 4)
/** A ring of pairs: block, class. */
const quarantine: usize = memory.data(4096 * 8)
/** The first violation: kind, address, bytes. */
const fault: usize = memory.data(12)
/** How often each edge of the control flow was taken, up to 255. */
const edges: usize = memory.data(8192)

const heap: usize = (__heap_base + 63) & ~63
let oldest: u32 = 0
let newest: u32 = 0
let waiting: u32 = 0

/** @returns address of the fault record: kind, address, bytes (u32 each) */
export function fault_ptr(): usize {
  return fault
}

/** @returns address of the counters of edges, one byte each */
export function edges_ptr(): usize {
  return edges
}

/** @returns where blocks begin, behind static data */
export function heap_ptr(): usize {
  return heap
}

/** @returns number of counters of edges */
export function edge_slots(): u32 {
  return EDGE_BYTES
}

/** Checks memory that the host is about to read or write: traps if it is not inside of one block, or static. */
export function check_range(at: usize, bytes: u32): void {
  checkRange(at, bytes)
}

function fail(kind: u32, at: usize, bytes: u32): void {
  store<u32>(fault, kind)
  store<usize>(fault, at, 4)
  store<u32>(fault, bytes, 8)
  unreachable()
}

/** @returns address of the shadow byte of an address of the heap; 0 where memory never grew to */
function shadowOf(at: usize): usize {
  const shadow = load<usize>(shadows + ((at >> REGION_SHIFT) << 2))
  return shadow ? shadow + ((at >> GRANULE_SHIFT) & (REGION_GRANULES - 1)) : 0
}

function stateOf(at: usize): u32 {
  const shadow = shadowOf(at)
  return shadow ? load<u8>(shadow) : FREE
}

/** Counts an edge of the control flow. */
export function hitEdge(edge: u32): void {
  const at = edges + <usize>edge
  const count = load<u8>(at)
  if (count != 255) store<u8>(at, count + 1)
}

/**
 * Checks an access of up to 8 bytes at `base + offset`.
 * @returns `base`
 */
export function checkAccess(base: usize, offset: u32, bytes: u32): usize {
  const at = base + offset
  if (at < base || at < NULL_PAGE_BYTES) fail(FAULT_NULL, at, bytes)
  if (at >= heap) {
    const state = stateOf(at)
    if (state & BAD) fail(state, at, bytes)
    const last = at + bytes - 1
    if (last >> GRANULE_SHIFT != at >> GRANULE_SHIFT && stateOf(last) != INNER) fail(FAULT_CROSSING, at, bytes)
  }
  return base
}

/** Checks an access of any length. */
function checkRange(at: usize, bytes: u32): void {
  if (!bytes) return
  if (at + bytes < at || at < NULL_PAGE_BYTES) fail(FAULT_NULL, at, bytes)
  if (at < heap) {
    if (at + bytes > heap) fail(FAULT_CROSSING, at, bytes)
    return
  }
  const state = stateOf(at)
  if (state & BAD) fail(state, at, bytes)
  for (let granule = (at >> GRANULE_SHIFT) + 1; granule <= (at + bytes - 1) >> GRANULE_SHIFT; granule++) {
    if (stateOf(granule << GRANULE_SHIFT) != INNER) fail(FAULT_CROSSING, at, bytes)
  }
}

/** memory.copy with checks. */
export function checkedCopy(to: usize, from: usize, bytes: u32): void {
  checkRange(to, bytes)
  checkRange(from, bytes)
  memory.copy(to, from, bytes)
}

/** memory.fill with checks. */
export function checkedFill(to: usize, value: u32, bytes: u32): void {
  checkRange(to, bytes)
  memory.fill(to, <u8>value, bytes)
}

/** Sets the shadow bytes of a naturally aligned block, which lies in one region. */
function mark(block: usize, cls: u32, state: u32): void {
  memory.fill(shadowOf(block), <u8>state, (<usize>1) << (cls - GRANULE_SHIFT))
}

/** @returns the class of the memory that a block takes with its red zone; the largest have none */
function outerClass(cls: u32): u32 {
  return cls < MAX_CLASS ? cls + 1 : cls
}

/** Makes the shadow bytes of a block's region. @returns false when memory is exhausted */
function addShadow(block: usize, most: u64): bool {
  const slot = shadows + ((block >> REGION_SHIFT) << 2)
  if (load<usize>(slot)) return true
  const shadow = takeOuter(SHADOW_CLASS, most)
  if (!shadow) return false
  memory.fill(shadow, <u8>FREE, REGION_GRANULES)
  store<usize>(slot, shadow)
  return true
}

function takeOuter(cls: u32, most: u64): usize {
  let block = takeBlock(cls)
  while (!block) {
    if (oldest != newest) release()
    else if (!growMemory(most)) return 0
    block = takeBlock(cls)
  }
  return block
}

/**
 * Allocates a block. Red zones and the quarantine come on top of what slab.ts may use.
 * @returns 0 for an invalid class, or when memory is exhausted
 */
export function take(cls: u32): usize {
  if (cls < MIN_CLASS || cls > MAX_CLASS) return 0
  const limit = min<u64>(2 * memoryLimit() + 2 * QUARANTINE_BYTES, 0xffff0000)
  const outer = outerClass(cls)
  const block = takeOuter(outer, limit)
  if (!block) return 0
  if (!addShadow(block, limit)) {
    joinBlock(block, outer)
    return 0
  }
  mark(block, outer, RED_ZONE)
  mark(block, cls, INNER)
  store<u8>(shadowOf(block), <u8>cls)
  // the sets of the replay filter rely on the zeros of fresh memory: only they take the largest blocks
  if (cls != MAX_CLASS) memory.fill(block, NEW_PATTERN, (<usize>1) << cls)
  excludeFromUse(-(1 << cls))
  return block
}

/** Frees a block; traps unless it is one of this class. */
export function free(block: usize, cls: u32): void {
  if (block < heap || stateOf(block) != cls || (block & (((<usize>1) << cls) - 1)) != 0)
    fail(FAULT_FREE, block, 1 << cls)
  excludeFromUse(1 << cls)
  mark(block, cls, QUARANTINED)
  memory.fill(block, FREED_PATTERN, (<usize>1) << cls)
  if (newest - oldest == QUARANTINE_SLOTS) release()
  const slot = quarantine + ((<usize>(newest++ & (QUARANTINE_SLOTS - 1))) << 3)
  store<usize>(slot, block)
  store<u32>(slot, cls, 4)
  waiting += 1 << cls
  while (waiting > QUARANTINE_BYTES) release()
}

/** Gives the block that waited longest back to the buddy system. */
function release(): void {
  const slot = quarantine + ((<usize>(oldest++ & (QUARANTINE_SLOTS - 1))) << 3)
  const block = load<usize>(slot)
  const cls = load<u32>(slot, 4)
  waiting -= 1 << cls
  checkFreed(block, cls)
  mark(block, outerClass(cls), FREE)
  joinBlock(block, outerClass(cls))
}

/** A block in quarantine must not have been written to: the host does that without checks. */
function checkFreed(block: usize, cls: u32): void {
  for (let at = block; at < block + ((<usize>1) << cls); at += 8) {
    if (load<u64>(at) != 0xdddddddddddddddd) fail(QUARANTINED, at, 8)
  }
}
