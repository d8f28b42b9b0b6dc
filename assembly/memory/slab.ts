/*
 * The allocator: power-of-two blocks from 64 bytes to 4 MiB, naturally aligned, a free list a size class, all from
 * linear memory under one ceiling. O(1) but for the rare growth of the memory.
 *
 * Blocks never move. Freed blocks go to the list of their class; a larger free block is split when a class runs dry.
 * Memory cannot be given back to the host (WASM has no shrink), so the ceiling is the promise that counts.
 */

export const MIN_CLASS: u32 = 6
export const MAX_CLASS: u32 = 22
/** Class of a block that holds one datagram: 2048 bytes. */
export const PACKET_CLASS: u32 = 11
/** First bytes of a packet block, left free for the IP and TCP headers of an obfuscator. */
export const HEADROOM_BYTES: u32 = 64

/** Linear memory grows in steps of 512 KiB. */
const GROW_PAGES: u32 = 8
const PAGE_SHIFT: u32 = 16
/** One part in 16 of the ceiling is kept for what frees other memory: the segment that fills a hole, EOF, ACK lists. */
const RESERVE_SHIFT: u32 = 4

const freeLists: usize = memory.data(23 * 4)

let top: usize = (__heap_base + 63) & ~63
let limit: usize = (<usize>memory.size()) << PAGE_SHIFT
let ceiling: u32 = 64 << 20
let used: u32 = 0

/** Bytes in use by blocks. */
export function usedBytes(): u32 {
  return used
}

/** Sets the most bytes of linear memory the engine may take. */
export function setCeiling(bytes: u32): void {
  ceiling = bytes
}

/** True when ordinary work of `bytes` would be refused now. */
export function isScarce(bytes: u32): bool {
  return used + bytes > ceiling - (ceiling >> RESERVE_SHIFT)
}

/** Packet blocks that one conversation may claim: a quarter of what is left. */
export function segmentShare(): u32 {
  return (ceiling - min(used, ceiling)) >> (PACKET_CLASS + 2)
}

/**
 * Blocks of so many bytes in all (negative: fewer) hold nothing that is needed: a cache with a bound of its own, which
 * is not counted.
 */
export function setAside(bytes: i32): void {
  used -= bytes
}

/** The smallest class that holds `bytes`. */
export function classOf(bytes: u32): u32 {
  if (bytes <= 1 << MIN_CLASS) return MIN_CLASS
  return 32 - clz<u32>(bytes - 1)
}

/** A block for ordinary work; 0 when the ceiling less its reserve is reached. */
export function alloc(cls: u32): usize {
  if (isScarce(1 << cls)) return 0
  return take(cls)
}

/** A block for work that leads to memory being freed; 0 when the ceiling itself is reached. */
export function allocUrgent(cls: u32): usize {
  return take(cls)
}

export function free(block: usize, cls: u32): void {
  used -= 1 << cls
  push(block, cls)
}

function push(block: usize, cls: u32): void {
  const list = freeLists + ((<usize>cls) << 2)
  store<usize>(block, load<usize>(list))
  store<usize>(list, block)
}

function take(cls: u32): usize {
  const list = freeLists + ((<usize>cls) << 2)
  let block = load<usize>(list)
  if (block) {
    store<usize>(list, load<usize>(block))
    used += 1 << cls
    return block
  }
  block = split(cls)
  if (!block) block = carve(cls)
  if (block) used += 1 << cls
  return block
}

/** Breaks the smallest larger free block; its upper parts go to the lists between. */
function split(cls: u32): usize {
  for (let larger = cls + 1; larger <= MAX_CLASS; larger++) {
    const list = freeLists + ((<usize>larger) << 2)
    const block = load<usize>(list)
    if (!block) continue
    store<usize>(list, load<usize>(block))
    while (larger > cls) {
      larger--
      push(block + ((<usize>1) << larger), larger)
    }
    return block
  }
  return 0
}

/** New memory from the top; what alignment skips goes to the free lists. */
function carve(cls: u32): usize {
  const size = (<usize>1) << cls
  const start = (top + size - 1) & ~(size - 1)
  if (start + size > limit) {
    const missing = <u32>((start + size - limit + 0xffff) >> PAGE_SHIFT)
    const pages = max(missing, GROW_PAGES)
    if (<u64>limit + ((<u64>pages) << PAGE_SHIFT) > <u64>ceiling + (1 << 20)) return 0
    if (memory.grow(pages) < 0) return 0
    limit += (<usize>pages) << PAGE_SHIFT
  }
  while (top < start) {
    const low = min(<u32>ctz(top), MAX_CLASS)
    push(top, low)
    top += (<usize>1) << low
  }
  top = start + size
  return start
}
