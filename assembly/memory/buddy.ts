/*
 * The buddy system (Knuth, TAOCP 2.5) below slab.ts: free power-of-two blocks, split and joined.
 *
 * One list per class holds the free blocks, doubly linked through their first 8 bytes. Whether a block may join its
 * buddy is recorded outside the blocks, in a bitmap: one bit per pair of buddies, the exclusive or of "in a free list"
 * of both. Each 4 MiB of memory (a region) has its own bitmap of 8 KiB (0.2 %), created when memory grows into the
 * region.
 *
 * Memory that was never allocated stays zero: links are cleared when a block leaves its list.
 */

export const MIN_CLASS: u32 = 6
export const MAX_CLASS: u32 = 22

const PAGE_SHIFT: u32 = 16
/** Linear memory grows to the next multiple of 512 KiB, so that no step crosses a region boundary. */
const GROW_PAGES: u32 = 8
/** Pairs of a region, from 1 pair of 2 MiB to 32768 pairs of 64 bytes, numbered as in a binary heap. */
const BITMAP_CLASS: u32 = 13
const BITMAP_BYTES: usize = 1 << 13
const NEXT: usize = 0
const PREVIOUS: usize = 4

/** Heads of the free lists, and a bit for each class whose list is not empty. */
const lists: usize = memory.data(23 * 4)
let filled: u32 = 0
/** Bitmaps by region. */
const bitmaps: usize = memory.data(1024 * 4)
/** Free blocks are taken from below this address. */
let end: usize = (__heap_base + 63) & ~63

/**
 * Toggles the bit of a pair of buddies.
 * @returns true if their states differ now
 */
function toggle(block: usize, cls: u32): bool {
  const pair = (1 << (MAX_CLASS - 1 - cls)) + ((<u32>block & ((1 << MAX_CLASS) - 1)) >> (cls + 1))
  const word = load<usize>(bitmaps + ((block >> MAX_CLASS) << 2)) + <usize>((pair >> 5) << 2)
  const bits = load<u32>(word) ^ (1 << (pair & 31))
  store<u32>(word, bits)
  return ((bits >> (pair & 31)) & 1) != 0
}

function push(block: usize, cls: u32): void {
  const list = lists + ((<usize>cls) << 2)
  const next = load<usize>(list)
  store<usize>(block, next, NEXT)
  store<usize>(block, 0, PREVIOUS)
  if (next) store<usize>(next, block, PREVIOUS)
  else filled |= 1 << cls
  store<usize>(list, block)
}

function unlink(block: usize, cls: u32): void {
  const next = load<usize>(block, NEXT)
  const previous = load<usize>(block, PREVIOUS)
  store<u64>(block, 0)
  if (next) store<usize>(next, previous, PREVIOUS)
  if (previous) {
    store<usize>(previous, next, NEXT)
    return
  }
  store<usize>(lists + ((<usize>cls) << 2), next)
  if (!next) filled &= ~(1 << cls)
}

/**
 * Takes a free block, splitting a larger one if necessary.
 * @returns 0 if there is none
 */
export function takeBlock(cls: u32): usize {
  const larger = filled & ((<u32>-1) << cls)
  if (!larger) return 0
  let at = <u32>ctz(larger)
  const block = load<usize>(lists + ((<usize>at) << 2))
  unlink(block, at)
  if (at < MAX_CLASS) toggle(block, at)
  while (at > cls) {
    at--
    const upper = block + ((<usize>1) << at)
    toggle(upper, at)
    push(upper, at)
  }
  return block
}

/** Frees a block and joins it with its buddy as long as that is free. */
export function joinBlock(block: usize, cls: u32): void {
  while (cls < MAX_CLASS && !toggle(block, cls)) {
    const bit = (<usize>1) << cls
    unlink(block ^ bit, cls)
    block &= ~bit
    cls++
  }
  push(block, cls)
}

/**
 * Adds memory to the free lists.
 * @param most maximum size of linear memory in bytes
 * @returns false if there is no more
 */
export function growMemory(most: u64): bool {
  const start = end
  let limit = (<u64>memory.size()) << PAGE_SHIFT
  if (limit - start < BITMAP_BYTES) {
    const pages = GROW_PAGES - (memory.size() & (GROW_PAGES - 1))
    limit += (<u64>pages) << PAGE_SHIFT
    if (limit > most || memory.grow(pages) < 0) return false
  }
  end = <usize>limit
  addFree(addBitmap(start), end)
  return true
}

/**
 * Creates the bitmap of the region at `start` if there is none.
 * @returns start of the remaining free memory
 */
function addBitmap(start: usize): usize {
  const bitmap = bitmaps + ((start >> MAX_CLASS) << 2)
  if (load<usize>(bitmap)) return start
  let at = takeBlock(BITMAP_CLASS)
  if (!at) {
    at = start
    start += BITMAP_BYTES
  }
  memory.fill(at, 0, BITMAP_BYTES)
  store<usize>(bitmap, at)
  return start
}

function addFree(start: usize, limit: usize): void {
  while (start < limit) {
    const cls = min<u32>(min<u32>(ctz<u32>(<u32>start), 31 - clz<u32>(<u32>(limit - start))), MAX_CLASS)
    joinBlock(start, cls)
    start += (<usize>1) << cls
  }
}
