/*
 * The allocator: power-of-two blocks from 64 bytes to 4 MiB, naturally aligned, from linear memory under one ceiling.
 * O(1) except when memory grows.
 *
 * Blocks never move. Some freed blocks of each small class are kept unjoined, so that steady traffic neither splits nor
 * joins; all others return to the buddy system (buddy.ts). Memory cannot be returned to the host (WASM cannot shrink
 * it), so the ceiling is what is guaranteed.
 */
import { growMemory, joinBlock, MAX_CLASS, MIN_CLASS, takeBlock } from './buddy'

export { MAX_CLASS, MIN_CLASS }
/** Class of a block that holds one datagram: 2048 bytes. */
export const PACKET_CLASS: u32 = 11
/** Headroom of a packet block for the IP and TCP headers of an obfuscator. */
export const HEADROOM_BYTES: u32 = 64

/** Maximum number of free blocks of the classes up to PACKET_CLASS that are kept unjoined. */
const MAX_KEPT: u32 = 16384
/** Number of blocks of each class that are joined at a time when memory is short. */
const JOINED_AT_ONCE: u32 = 64
/** Linear memory may exceed the ceiling by the module's own data, the last growth step and the bitmaps. */
const OWN_BYTES: u32 = 1 << 20
const BITMAP_SHIFT: u32 = 9
/*
 * Shares of the ceiling, in sixteenths. Windows promise more than memory holds; the shares determine who is limited.
 *
 * The last sixteenth is reserved for what frees other memory: EOF, and the segment that fills a hole. The one before it
 * is for new sessions and tables, the one before that for what a reader that keeps up takes at once. Received and sent
 * segments may each use most of the rest, but not all of it, so that each leaves room for the other.
 */
const PART_SHIFT: u32 = 4
const RESERVED_PARTS: u32 = 1
const OPENING_PARTS: u32 = 1
const PROMPT_PARTS: u32 = 1
/** Limits of one direction: for streams that hold more than the guaranteed bytes, and for all streams. */
const SHARED_PARTS: u32 = 9
const DIRECTION_PARTS: u32 = 11
/** Guaranteed bytes of a stream: maximum, minimum, and the fraction of what is left. */
const MAX_GUARANTEED_BYTES: u32 = 32768
const MIN_GUARANTEED_BYTES: u32 = 4096
const GUARANTEED_SHIFT: u32 = 9
/** Packet blocks that a reader that keeps up is always promised. */
const PROMPT_SEGMENTS: u32 = 32

/** Heads of the lists of kept blocks, by class, and their total number. */
const kept: usize = memory.data(12 * 4)
let keptCount: u32 = 0

let ceiling: u32 = 64 << 20
let ordinaryLimit: u32 = 0
let promptLimit: u32 = 0
let streamLimit: u32 = 0
let sharedLimit: u32 = 0
let directionLimit: u32 = 0
let used: u32 = 0
/** Part of `used` for received and for sent segments, including what the host holds. */
let received: u32 = 0
let sent: u32 = 0
let hostReceived: u32 = 0
let hostSent: u32 = 0

/** @returns bytes of the blocks in use, and of what the host holds */
export function usedBytes(): u32 {
  return used
}

/**
 * Sets the maximum bytes of linear memory of the engine.
 * @param fixed bytes that are in use permanently
 */
export function setCeiling(bytes: u32, fixed: u32): void {
  const part = (bytes - fixed) >> PART_SHIFT
  ceiling = bytes
  ordinaryLimit = bytes - RESERVED_PARTS * part
  promptLimit = ordinaryLimit - OPENING_PARTS * part
  streamLimit = promptLimit - PROMPT_PARTS * part
  sharedLimit = SHARED_PARTS * part
  directionLimit = DIRECTION_PARTS * part
}

/** @returns true when an ordinary allocation of `bytes` would fail now */
export function isScarce(bytes: u32): bool {
  return used + bytes > ordinaryLimit
}

/** @returns true if so much is in use that streams may hold less than they otherwise could */
export function areStreamsLimited(): bool {
  return used > sharedLimit
}

/** @returns true if more for sessions that serve no stream would leave too little for those that do */
export function areStreamsInNeed(): bool {
  return used > directionLimit
}

/** @returns bytes that any stream may hold, of a direction that holds `all` */
function guaranteedBytes(all: u32): u32 {
  return all < directionLimit
    ? max(MIN_GUARANTEED_BYTES, min(MAX_GUARANTEED_BYTES, (directionLimit - all) >> GUARANTEED_SHIFT))
    : 0
}

/**
 * A stream may hold as many bytes as its direction has left. So a few streams get much and many get little, and some is
 * always left for the next one (dynamic queue length thresholds, Choudhury and Hahne 1998).
 */
function mayHold(held: u32, all: u32): bool {
  if (used > streamLimit) return false
  return held + all < sharedLimit || held < guaranteedBytes(all)
}

/**
 * @param held bytes of received segments that the conversation holds
 * @param isNear the reader is expected to take the segment at once
 * @returns true if the conversation may keep another segment
 */
export function mayReceive(held: u32, isNear: bool): bool {
  return mayHold(held, received) || (isNear && used <= promptLimit)
}

/**
 * @param held bytes of segments to send that the conversation holds
 * @returns true if it may queue another segment
 */
export function mayQueue(held: u32): bool {
  return mayHold(held, sent)
}

/** @returns packet blocks that the window of one conversation may grow to: a quarter of what is left */
export function segmentShare(): u32 {
  return (ceiling - min(used, ceiling)) >> (PACKET_CLASS + 2)
}

/**
 * @returns packet blocks that a conversation with `held` bytes of received segments may come to hold, with a margin for
 *   its ring; at least the one that may use reserved memory
 */
export function fairSegments(held: u32, isPrompt: bool): u32 {
  if (used > streamLimit) return 1
  const others = received - held
  const fair = others < sharedLimit ? (sharedLimit - others) >> 1 : 0
  const segments = max(fair - (fair >> 4), guaranteedBytes(others)) >> PACKET_CLASS
  return max(isPrompt ? PROMPT_SEGMENTS : 1, segments)
}

/** Adds to the bytes of received segments (negative: subtracts). */
export function countReceived(bytes: i32): void {
  received += bytes
}

/** Adds to the bytes of segments to send likewise. */
export function countSent(bytes: i32): void {
  sent += bytes
}

/** Sets the bytes that the host holds for and from TCP, which count like blocks. */
export function setHostBytes(toTcp: u32, fromTcp: u32): void {
  used += toTcp - hostReceived + (fromTcp - hostSent)
  received += toTcp - hostReceived
  sent += fromTcp - hostSent
  hostReceived = toTcp
  hostSent = fromTcp
}

/** Excludes allocated bytes from use (negative: includes them again), for bounded caches that could be dropped. */
export function excludeFromUse(bytes: i32): void {
  used -= bytes
}

/** @returns the smallest class that holds `bytes`; above MAX_CLASS if there is none */
export function classOf(bytes: u32): u32 {
  if (bytes <= 1 << MIN_CLASS) return MIN_CLASS
  return 32 - clz<u32>(bytes - 1)
}

/**
 * Allocates a block for ordinary use.
 * @returns 0 when the ceiling less its reserve is reached, and for an invalid class
 */
export function alloc(cls: u32): usize {
  return isScarce(1 << cls) ? 0 : take(cls)
}

/**
 * Allocates a block for work that leads to memory being freed. The ceiling does not limit it: after it was lowered,
 * more may be in use than it allows, and holes must still be filled.
 * @returns 0 when linear memory is exhausted, and for an invalid class
 */
export function allocUrgent(cls: u32): usize {
  return take(cls)
}

/**
 * Frees a block.
 * @param cls the class it was allocated with, which its owner stores: it must not be computed again
 */
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

/** @returns maximum bytes of linear memory */
export function memoryLimit(): u64 {
  return <u64>ceiling + (ceiling >> BITMAP_SHIFT) + OWN_BYTES
}

/**
 * Takes a block from the buddy system.
 * @returns 0 for an invalid class, or when memory is exhausted
 */
function takeJoined(cls: u32): usize {
  if (cls < MIN_CLASS || cls > MAX_CLASS) return 0
  let block = takeBlock(cls)
  while (!block) {
    if (keptCount != 0) joinKept()
    else if (!growMemory(memoryLimit())) return 0
    block = takeBlock(cls)
  }
  used += 1 << cls
  return block
}

/** Returns some kept blocks of each class to the buddy system. */
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
