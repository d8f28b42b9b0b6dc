/*
 * Packets of dpi/tcp-wnd clients that arrive before the host reports the TCP connection, because the capture socket is
 * faster than accept(). Those of the last 16 remote addresses are kept, so that the first PING is not lost.
 *
 *   0        24       48    52    56    60       64               128
 *   | remote | local  | seq | ack | flow| intact | payload bytes  | payload
 */
import { ADDRESS_BYTES } from '../abi'
import { alloc, PACKET_CLASS } from '../memory/slab'
import { copyAddress, isAddress, sameAddress } from '../packet/address'
import { Context, localOf } from './context'
import { capture } from './numbers'
import { isIntact, packet, source, target } from './tcpip'

const ENTRIES: u32 = 16
const LOCAL: usize = 24
const SEQ: usize = 48
const ACK: usize = 52
const FLOW: usize = 56
const INTACT: usize = 60
const PAYLOAD_BYTES: usize = 64
const PAYLOAD: usize = 128
/** "GET ": the request of the cover connection, which carries no payload of ours (protocol.md 9.3). */
const GET: u32 = 0x20544547
/** "HTTP": the response. */
const HTTP: u32 = 0x50545448

const entries: usize = memory.data(16 * 4)
let next: u32 = 0

/**
 * Allocates the entries.
 * @returns false when memory is scarce
 */
export function openPendingPackets(): bool {
  for (let i: u32 = 0; i < ENTRIES; i++) {
    const at = entries + ((<usize>i) << 2)
    if (load<usize>(at)) continue
    const entry = alloc(PACKET_CLASS)
    if (!entry) return false
    memory.fill(entry, 0, ADDRESS_BYTES)
    store<usize>(at, entry)
  }
  return true
}

/** @returns true if the payload of the parsed packet belongs to the cover connection */
export function isCoverText(): bool {
  return packet.payloadBytes >= 4 && (load<u32>(packet.payload) == GET || load<u32>(packet.payload) == HTTP)
}

/** @returns the entry of a remote address, 0 if there is none */
function find(remote: usize): usize {
  for (let i: u32 = 0; i < ENTRIES; i++) {
    const entry = load<usize>(entries + ((<usize>i) << 2))
    if (entry && sameAddress(entry, remote)) return entry
  }
  return 0
}

/** Keeps numbers and payload of the parsed packet, from an unknown peer. */
export function keepPending(): void {
  let entry = find(source)
  const isNew = !entry
  if (isNew) {
    entry = load<usize>(entries + ((<usize>(next % ENTRIES)) << 2))
    next++
    if (!entry) return
    copyAddress(entry, source)
    store<u32>(entry, 0, INTACT)
    store<u32>(entry, 0, PAYLOAD_BYTES)
  }
  const intact = isIntact()
  if (isNew || (intact && !load<u32>(entry, INTACT))) {
    copyAddress(entry + LOCAL, target)
    store<u32>(entry, packet.seq, SEQ)
    store<u32>(entry, packet.ack, ACK)
    store<u32>(entry, packet.flow, FLOW)
    store<u32>(entry, intact, INTACT)
  }
  if (packet.payloadBytes == 0 || isCoverText()) return
  store<u32>(entry, packet.payloadBytes, PAYLOAD_BYTES)
  memory.copy(entry + PAYLOAD, packet.payload, packet.payloadBytes)
}

/**
 * Initializes a new context from the packets of its address.
 * @returns the entry, which may hold a payload; 0 if there is none
 */
export function takePending(c: Context, remote: usize): usize {
  const entry = isAddress(remote) ? find(remote) : 0
  if (!entry) return 0
  copyAddress(localOf(c), entry + LOCAL)
  const isKept = load<u32>(entry, INTACT) != 0
  capture(c, load<u32>(entry, SEQ), load<u32>(entry, ACK), load<u32>(entry, FLOW), isKept)
  memory.fill(entry, 0, ADDRESS_BYTES)
  return entry
}

export function pendingPayload(entry: usize): usize {
  return entry + PAYLOAD
}

export function pendingPayloadBytes(entry: usize): u32 {
  return load<u32>(entry, PAYLOAD_BYTES)
}
