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
/*
 * Shares of the ceiling, in sixteenths. Windows promise more than memory holds; the shares decide who goes without.
 *
 * The last one is kept for what frees other memory: EOF, and the segment that fills a hole. The one before it is for
 * sessions that begin, and for tables; the one before that for what a reader who keeps up takes at once. What is received
 * and what is sent may have most of the rest, but not all: each leaves room for the other.
 */
const PART_SHIFT: u32 = 4
const RESERVED_PARTS: u32 = 1
const OPENING_PARTS: u32 = 1
const PROMPT_PARTS: u32 = 1
/** Of one direction: where streams that hold more than a little stop, and where all do. */
const SHARED_PARTS: u32 = 9
const DIRECTION_PARTS: u32 = 11
/** A little: most, least, and the part of what is left for it. */
const MAX_GUARANTEED_BYTES: u32 = 32768
const MIN_GUARANTEED_BYTES: u32 = 4096
const GUARANTEED_SHIFT: u32 = 9
/** Packet blocks that a reader who keeps up is promised again and again. */
const PROMPT_SEGMENTS: u32 = 32

/** Heads of the lists of kept blocks, by class, and the number of all. */
const kept: usize = memory.data(12 * 4)
let keptCount: u32 = 0

let ceiling: u32 = 64 << 20
let ordinaryLimit: u32 = 0
let promptLimit: u32 = 0
let streamLimit: u32 = 0
let sharedLimit: u32 = 0
let directionLimit: u32 = 0
let used: u32 = 0
/** Of what is used, for received and for sent segments; what the host holds beside is part of it. */
let received: u32 = 0
let sent: u32 = 0
let hostReceived: u32 = 0
let hostSent: u32 = 0

/** Bytes in use by blocks, and those that the host holds. */
export function usedBytes(): u32 {
  return used
}

/** Sets the most bytes of linear memory the engine may take. `fixed` of them are in use for good. */
export function setCeiling(bytes: u32, fixed: u32): void {
  const part = (bytes - fixed) >> PART_SHIFT
  ceiling = bytes
  ordinaryLimit = bytes - RESERVED_PARTS * part
  promptLimit = ordinaryLimit - OPENING_PARTS * part
  streamLimit = promptLimit - PROMPT_PARTS * part
  sharedLimit = SHARED_PARTS * part
  directionLimit = DIRECTION_PARTS * part
}

/** True when ordinary work of `bytes` would be refused now. */
export function isScarce(bytes: u32): bool {
  return used + bytes > ordinaryLimit
}

/** Bytes that a stream may hold in any case, of a direction that holds `all`. */
function guaranteedBytes(all: u32): u32 {
  return all < directionLimit
    ? max(MIN_GUARANTEED_BYTES, min(MAX_GUARANTEED_BYTES, (directionLimit - all) >> GUARANTEED_SHIFT))
    : 0
}

/**
 * A stream may hold as many bytes as its direction has left. So few take much and many take little, and a part is always
 * left for the next one (Choudhury and Hahne 1998, dynamic queue length thresholds).
 */
function mayHold(held: u32, all: u32): bool {
  if (used > streamLimit) return false
  return held + all < sharedLimit || held < guaranteedBytes(all)
}

/**
 * True if a conversation that holds `held` bytes of received segments may keep another one. `isNear`: one that its
 * reader can be expected to take at once.
 */
export function mayReceive(held: u32, isNear: bool): bool {
  return mayHold(held, received) || (isNear && used <= promptLimit)
}

/** True if a conversation with `held` bytes of segments to send may queue another one. */
export function mayQueue(held: u32): bool {
  return mayHold(held, sent)
}

/** Packet blocks that the window of one conversation may grow to: a quarter of what is left. */
export function segmentShare(): u32 {
  return (ceiling - min(used, ceiling)) >> (PACKET_CLASS + 2)
}

/**
 * Packet blocks that a conversation which holds `held` bytes of received segments could come to hold, somewhat less for
 * what goes with them; at least the one that may use reserved memory.
 */
export function fairSegments(held: u32, isPrompt: bool): u32 {
  if (used > streamLimit) return 1
  const others = received - held
  const fair = others < sharedLimit ? (sharedLimit - others) >> 1 : 0
  const segments = max(fair - (fair >> 4), guaranteedBytes(others)) >> PACKET_CLASS
  return max(isPrompt ? PROMPT_SEGMENTS : 1, segments)
}

/** Received segments take so many bytes more (negative: fewer). */
export function countReceived(bytes: i32): void {
  received += bytes
}

/** Segments to send likewise. */
export function countSent(bytes: i32): void {
  sent += bytes
}

/** The host holds so many bytes for and from TCP. They count like blocks. */
export function setHostBytes(toTcp: u32, fromTcp: u32): void {
  used += toTcp - hostReceived + (fromTcp - hostSent)
  received += toTcp - hostReceived
  sent += fromTcp - hostSent
  hostReceived = toTcp
  hostSent = fromTcp
}

/**
 * Blocks of so many bytes in all (negative: fewer) hold nothing that is needed: a cache with a bound of its own, which
 * is not counted.
 */
export function excludeFromUse(bytes: i32): void {
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
 * A block for work that leads to memory being freed; 0 when linear memory is at its bound, and for a class that does
 * not exist. After the ceiling was lowered more may be used than it allows, and holes must be filled all the same.
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
