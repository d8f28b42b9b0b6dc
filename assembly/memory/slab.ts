/*
 * The allocator: power-of-two blocks from 64 bytes to 4 MiB, naturally aligned, all from linear memory under one
 * ceiling. O(1) but for the rare growth of the memory.
 *
 * Blocks never move. Of each small class some freed blocks are kept as they are, so that steady traffic neither splits
 * nor joins; all others go back to the buddy system (buddy.ts), where they join. Memory cannot be given back to the host
 * (WASM has no shrink), so the ceiling is the promise that counts.
 */
import { growMemory, joinBlock, MAX_CLASS, MIN_CLASS, takeBlock } from './buddy'

export { MAX_CLASS, MIN_CLASS }
/** Class of a block that holds one datagram: 2048 bytes. */
export const PACKET_CLASS: u32 = 11
/** First bytes of a packet block, left free for the IP and TCP headers of an obfuscator. */
export const HEADROOM_BYTES: u32 = 64

/** Most free blocks of the classes up to PACKET_CLASS that are kept unjoined, until memory is short. */
const MAX_KEPT: u32 = 16384
/** So many of each class are joined at a time. */
const JOINED_AT_ONCE: u32 = 64
/** Linear memory may exceed the ceiling by the module's own data, the last step of growth and the bitmaps. */
const OWN_BYTES: u32 = 1 << 20
const BITMAP_SHIFT: u32 = 9
/** One part in 16 of the ceiling is kept for what frees other memory: the segment that fills a hole, EOF, ACK lists. */
const RESERVE_SHIFT: u32 = 4

/** Heads of the lists of kept blocks, by class, and the number of all. */
const kept: usize = memory.data(12 * 4)
let keptCount: u32 = 0

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

/** The smallest class that holds `bytes`; above MAX_CLASS if there is none. */
export function classOf(bytes: u32): u32 {
  if (bytes <= 1 << MIN_CLASS) return MIN_CLASS
  return 32 - clz<u32>(bytes - 1)
}

/** A block for ordinary work; 0 when the ceiling less its reserve is reached, and for a class that does not exist. */
export function alloc(cls: u32): usize {
  return isScarce(1 << cls) ? 0 : take(cls)
}

/**
 * A block for work that leads to memory being freed; 0 when the ceiling itself is reached, and for a class that does
 * not exist.
 */
export function allocUrgent(cls: u32): usize {
  return take(cls)
}

/** Frees a block of the class that it was allocated with: the owner stores that, no caller may compute it again. */
export function free(block: usize, cls: u32): void {
  used -= 1 << cls
  if (cls > PACKET_CLASS) {
    joinBlock(block, cls)
    return
  }
  if (keptCount == MAX_KEPT) joinKept()
  const list = kept + ((<usize>cls) << 2)
  store<usize>(block, load<usize>(list))
  store<usize>(list, block)
  keptCount++
}

function take(cls: u32): usize {
  if (cls <= PACKET_CLASS) {
    const list = kept + ((<usize>cls) << 2)
    const block = load<usize>(list)
    if (block) {
      store<usize>(list, load<usize>(block))
      keptCount--
      used += 1 << cls
      return block
    }
  }
  return takeJoined(cls)
}

/** A block of the buddy system; 0 for a class that does not exist, as for want of memory. */
function takeJoined(cls: u32): usize {
  if (cls < MIN_CLASS || cls > MAX_CLASS) return 0
  let block = takeBlock(cls)
  while (!block) {
    if (keptCount != 0) joinKept()
    else if (!growMemory(<u64>ceiling + (ceiling >> BITMAP_SHIFT) + OWN_BYTES)) return 0
    block = takeBlock(cls)
  }
  used += 1 << cls
  return block
}

/** Gives some kept blocks of each class back to be joined. */
function joinKept(): void {
  for (let cls = MIN_CLASS; cls <= PACKET_CLASS; cls++) {
    const list = kept + ((<usize>cls) << 2)
    for (let i: u32 = 0; i < JOINED_AT_ONCE; i++) {
      const block = load<usize>(list)
      if (!block) break
      store<usize>(list, load<usize>(block))
      keptCount--
      joinBlock(block, cls)
    }
  }
}
