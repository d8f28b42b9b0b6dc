/*
 * Datagrams at the boundary: receive and transmit descriptors with their blocks, padding, nonces, entropy (protocol.md
 * 3.2-3.5). Sealing and opening are the host's.
 */
import {
  ENTROPY_BYTES,
  NONCE_COUNTER,
  NONCE_RANDOM,
  RX_BYTES,
  RX_CAPACITY,
  RX_PTR,
  RX_SLOTS,
  TX_ADDRESS,
  TX_BYTES,
  TX_HANDLE,
  TX_LEN,
  TX_NONCE,
  TX_OUT,
  TX_SLOTS,
  TX_SRC,
} from '../abi'
import { alloc, allocUrgent, HEADROOM_BYTES, PACKET_CLASS } from '../memory/slab'
import { ENTROPY_LEFT, set } from '../stats'

const BLOCK_BYTES: u32 = (1 << PACKET_CLASS) - HEADROOM_BYTES
const MAX_PADDING_BYTES: u32 = 15
const MAX_NONCE_BYTES: u32 = 24
const COUNTER_BYTES: u32 = 12
/** What one datagram may take from the entropy: a nonce and the byte that picks the padding. */
const ENTROPY_PER_DATAGRAM: u32 = MAX_NONCE_BYTES + 1

export const rx: usize = memory.data(128 * 48, 8)
export const tx: usize = memory.data(64 * 32, 8)
export const entropy: usize = memory.data(65536, 8)
const txBlocks: usize = memory.data(64 * 4)
const counter: usize = memory.data(16, 8)

let entropyUsed: u32 = ENTROPY_BYTES

export let tagBytes: u32 = 0
export let nonceBytes: u32 = 0
let strategy: u32 = 0

/** Gives every descriptor its block. False when memory is short. */
export function openDatagrams(tag: u32, nonce: u32, nonceStrategy: u32): bool {
  tagBytes = tag
  nonceBytes = nonce
  strategy = nonceStrategy
  spare = alloc(PACKET_CLASS)
  for (let i: u32 = 0; i < RX_SLOTS; i++) {
    const block = allocUrgent(PACKET_CLASS)
    if (!block) return false
    putRxBlock(i, block)
  }
  for (let i: u32 = 0; i < TX_SLOTS; i++) {
    const block = allocUrgent(PACKET_CLASS)
    if (!block) return false
    store<usize>(txBlocks + ((<usize>i) << 2), block + HEADROOM_BYTES)
  }
  return strategy != NONCE_COUNTER || drawCounter()
}

export function rxSlot(i: u32): usize {
  return rx + <usize>(i * RX_BYTES)
}

/** A block in hand to put in the place of one that a receive window keeps. */
let spare: usize = 0

/** True if the block of a receive descriptor may be kept: there is one to take its place. */
export function hasSpareBlock(): bool {
  if (!spare) spare = alloc(PACKET_CLASS)
  return spare != 0
}

/** Puts the spare block into a receive descriptor. */
export function refillRx(i: u32): void {
  putRxBlock(i, spare)
  spare = alloc(PACKET_CLASS)
}

function putRxBlock(i: u32, block: usize): void {
  const slot = rxSlot(i)
  store<usize>(slot, block + HEADROOM_BYTES, RX_PTR)
  store<u32>(slot, BLOCK_BYTES, RX_CAPACITY)
}

/** Takes over `n` random bytes the host wrote. */
export function fillEntropy(n: u32): void {
  // used from the end of what was written
  entropyUsed = ENTROPY_BYTES - n
  if (n < ENTROPY_BYTES) memory.copy(entropy + entropyUsed, entropy, n)
  set(ENTROPY_LEFT, n)
}

/** `n` random bytes, used once. The caller has made sure that they are there. */
export function takeEntropy(n: u32): usize {
  const at = entropy + entropyUsed
  entropyUsed += n
  set(ENTROPY_LEFT, ENTROPY_BYTES - entropyUsed)
  return at
}

export function hasEntropy(n: u32): bool {
  return ENTROPY_BYTES - entropyUsed >= n
}

/** True if one more datagram can be given padding and nonce. */
export function canSeal(): bool {
  return tagBytes == 0 || hasEntropy(ENTROPY_PER_DATAGRAM)
}

/** Draws the base of the nonce counter. False without entropy. */
export function drawCounter(): bool {
  if (!hasEntropy(COUNTER_BYTES)) return false
  memory.copy(counter, takeEntropy(COUNTER_BYTES), COUNTER_BYTES)
  return true
}

/** The counter is a little-endian number of 12 bytes, incremented before each use (protocol.md 3.4). */
function nextCounter(): void {
  const low = load<u64>(counter) + 1
  store<u64>(counter, low)
  if (low == 0) store<u32>(counter, load<u32>(counter, 8) + 1, 8)
}

/** The block of a transmit descriptor. */
export function txBlock(i: u32): usize {
  return load<usize>(txBlocks + ((<usize>i) << 2))
}

/**
 * Fills descriptor `i` for `len` bytes of plaintext at `src`, with room for padding behind them. Adds padding of n
 * bytes of value n, up to `limit` in all, and the nonce. Result: bytes on the socket.
 */
export function describeTx(i: u32, src: usize, len: u32, limit: u32, address: usize, handle: u32): u32 {
  const out = txBlock(i)
  const slot = tx + <usize>(i * TX_BYTES)
  if (tagBytes) {
    const room = len < limit ? min(MAX_PADDING_BYTES, limit - len) : 0
    if (room) {
      // 16 values of 4 bits are uniform; a smaller room takes the remainder, nearly so
      const n = <u32>load<u8>(takeEntropy(1)) % (room + 1)
      memory.fill(src + len, <u8>n, n)
      len += n
    }
    const nonce = out + len + tagBytes
    if (strategy == NONCE_RANDOM) {
      memory.copy(nonce, takeEntropy(nonceBytes), nonceBytes)
    } else {
      nextCounter()
      memory.copy(nonce, counter, nonceBytes)
    }
    store<usize>(slot, nonce, TX_NONCE)
  }
  store<usize>(slot, src, TX_SRC)
  store<u32>(slot, len, TX_LEN)
  store<usize>(slot, out, TX_OUT)
  store<usize>(slot, address, TX_ADDRESS)
  store<u32>(slot, handle, TX_HANDLE)
  return len + tagBytes + nonceBytes
}
