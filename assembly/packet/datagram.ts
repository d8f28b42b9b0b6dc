/*
 * Datagrams at the module boundary: receive and transmit descriptors with their blocks, and padding (protocol.md
 * 3.2-3.5). The host seals and opens them.
 */
import {
  RX_BYTES,
  RX_CAPACITY,
  RX_PTR,
  RX_SLOTS,
  TX_ADDRESS,
  TX_BYTES,
  TX_FLAGS,
  TX_HANDLE,
  TX_JOINS,
  TX_LENGTH,
  TX_MAY_FRAGMENT,
  TX_NONCE,
  TX_OUT,
  TX_PROBE,
  TX_SIZE_TEST,
  TX_SLOTS,
  TX_SOURCE,
} from '../abi'
import { alloc, allocUrgent, HEADROOM_BYTES, PACKET_CLASS } from '../memory/slab'
import { keyOf } from './address'
import { hasEntropy, takeEntropy } from './entropy'
import { nonceBytes, nonceEntropy, writeNonce } from './nonce'

const BLOCK_BYTES: u32 = (1 << PACKET_CLASS) - HEADROOM_BYTES
const MAX_PADDING_BYTES: u32 = 15

export const rx: usize = memory.data(RX_SLOTS * RX_BYTES, 8)
export const tx: usize = memory.data(TX_SLOTS * TX_BYTES, 8)
const txBlocks: usize = memory.data(64 * 4)

let tag: u32 = 0

/** @returns bytes of the authentication tag of a datagram; 0 without a method */
export function tagBytes(): u32 {
  return tag
}

/** @returns bytes that sealing adds to a datagram: tag and nonce */
export function sealBytes(): u32 {
  return tag + nonceBytes()
}

/**
 * Allocates the blocks of the descriptors.
 * @returns false when memory is scarce
 */
export function openDatagrams(tagLength: u32): bool {
  tag = tagLength
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
  return true
}

export function rxSlot(i: u32): usize {
  return rx + <usize>(i * RX_BYTES)
}

/** A block to replace one that a receive buffer keeps. */
let spare: usize = 0

/** @returns true if the block of a receive descriptor may be kept, because there is one to replace it */
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

/** @returns true if there is entropy for padding and nonce of one more datagram */
export function canSeal(): bool {
  return tag == 0 || hasEntropy(nonceEntropy() + 1)
}

/** @returns the block of a transmit descriptor */
export function txBlock(i: u32): usize {
  return load<usize>(txBlocks + ((<usize>i) << 2))
}

/** The datagram of a descriptor is to be sent from the probing socket. */
export function sendFromProbe(i: u32): void {
  store<u32>(tx + <usize>(i * TX_BYTES), TX_PROBE, TX_FLAGS)
}

/**
 * Fills descriptor `i` for `len` bytes of plaintext at `src`, followed by room for padding. Appends n bytes of padding
 * of value n, up to `limit` bytes in all, and writes the nonce.
 * @returns bytes on the socket
 */
export function describeTx(i: u32, src: usize, len: u32, limit: u32, address: usize, handle: u32): u32 {
  const out = txBlock(i)
  const slot = tx + <usize>(i * TX_BYTES)
  if (tag) {
    const room = len < limit ? min(MAX_PADDING_BYTES, limit - len) : 0
    if (room) {
      // 16 values of 4 bits are uniform; a smaller room takes the remainder, which is nearly uniform
      const n = <u32>load<u8>(takeEntropy(1)) % (room + 1)
      memory.fill(src + len, <u8>n, n)
      len += n
    }
    const nonce = out + len + tag
    writeNonce(nonce, keyOf(address))
    store<usize>(slot, nonce, TX_NONCE)
  }
  store<usize>(slot, src, TX_SOURCE)
  store<u32>(slot, len, TX_LENGTH)
  store<usize>(slot, out, TX_OUT)
  store<usize>(slot, address, TX_ADDRESS)
  store<u32>(slot, handle, TX_HANDLE)
  store<u32>(slot, 0, TX_FLAGS)
  return len + sealBytes()
}

/** Marks a described datagram: it may be joined to the one before. */
export function markJoined(i: u32): void {
  store<u32>(tx + <usize>(i * TX_BYTES), TX_JOINS, TX_FLAGS)
}

/** Marks a described datagram: it tests whether the path takes its size. */
export function markSizeTest(i: u32): void {
  store<u32>(tx + <usize>(i * TX_BYTES), TX_SIZE_TEST, TX_FLAGS)
}

/** Marks a described datagram: it may be fragmented, because the path does not take its size. */
export function markMayFragment(i: u32): void {
  store<u32>(tx + <usize>(i * TX_BYTES), TX_MAY_FRAGMENT, TX_FLAGS)
}
