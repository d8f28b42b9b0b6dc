/*
 * Captured packets: finds the context and payload of each (protocol.md 9.2, 9.4). RST and FIN have no effect.
 */
import {
  EVENT_OBFS_READY,
  MAX_DATAGRAM_BYTES,
  OBFS_RX_ADDRESS,
  OBFS_RX_BYTES,
  OBFS_RX_CAPACITY,
  OBFS_RX_CONTEXT,
  OBFS_RX_FLAGS,
  OBFS_RX_HAS_PAYLOAD,
  OBFS_RX_LENGTH,
  OBFS_RX_PAYLOAD,
  OBFS_RX_PAYLOAD_LENGTH,
  OBFS_RX_PTR,
} from '../abi'
import { copyAddress, isAddress } from '../packet/address'
import { queueEndpointEvent } from '../session/events'
import { add, count, OBFS_DROPPED, OBFS_DROPPED_BYTES, OBFS_REFUSED, OBFS_RESETS } from '../stats'
import {
  AUTHENTICATED,
  CAPTURED,
  Context,
  contextCount,
  ECE_PENDING,
  findContext,
  insertContext,
  is,
  localOf,
  MAX_CONTEXTS,
  oldestUnauthenticated,
  READY,
  remoteOf,
  removeContext,
} from './context'
import { capture, follow } from './numbers'
import { isCoverText, keepPending } from './pending_packets'
import { isObfsServer, local, obfsKind, TCP_WND } from './settings'
import { ACK, ECE, isFor, isIntact, nextRandom, PSH, packet, parse, RST, SYN, source, takeScope, target } from './tcpip'
import { queueControl } from './transmit'

export const SLOTS: u32 = 64
const SLOT_BYTES: u32 = 2048

export const packets: usize = memory.data(SLOTS * OBFS_RX_BYTES, 8)
/** Layout of a receive descriptor. */
export const pending: usize = memory.data(OBFS_RX_BYTES, 8)

/** Assigns 2048 bytes of `blocks` to each descriptor. */
export function openPackets(blocks: usize): void {
  for (let i: u32 = 0; i < SLOTS; i++) {
    const slot = packets + <usize>(i * OBFS_RX_BYTES)
    store<usize>(slot, blocks + <usize>(i * SLOT_BYTES), OBFS_RX_PTR)
    store<u32>(slot, SLOT_BYTES, OBFS_RX_CAPACITY)
  }
}

/**
 * Handles the first `n` descriptors.
 * @returns how many hold a payload
 */
export function receivePackets(n: u32): i32 {
  let payloads = 0
  const limit = min(n, SLOTS)
  for (let i: u32 = 0; i < limit; i++) {
    const slot = packets + <usize>(i * OBFS_RX_BYTES)
    store<u32>(slot, 0, OBFS_RX_FLAGS)
    const len = load<u32>(slot, OBFS_RX_LENGTH)
    let c: Context | null = null
    if (parse(load<usize>(slot, OBFS_RX_PTR), len)) c = onPacket()
    if (!c) {
      count(OBFS_DROPPED)
      add(OBFS_DROPPED_BYTES, len)
    } else if (isPayload(c)) {
      c.bytesIn += len
      describe(slot, c, packet.payload, packet.payloadBytes)
      payloads++
    }
  }
  return payloads
}

/** Fills a receive descriptor for `bytes` of payload at `at`. */
export function describe(slot: usize, c: Context, at: usize, bytes: u32): void {
  store<u32>(slot, OBFS_RX_HAS_PAYLOAD, OBFS_RX_FLAGS)
  store<usize>(slot, at, OBFS_RX_PAYLOAD)
  store<u32>(slot, bytes, OBFS_RX_PAYLOAD_LENGTH)
  store<usize>(slot, remoteOf(c), OBFS_RX_ADDRESS)
  store<u32>(slot, c.id, OBFS_RX_CONTEXT)
}

/** Marks the descriptor of a pending payload as empty. */
export function clearPending(): void {
  store<u32>(pending, 0, OBFS_RX_FLAGS)
}

/**
 * Handles the parsed packet.
 * @returns its context; null if it is not for one
 */
function onPacket(): Context | null {
  takeScope(local)
  if (!isFor(local)) return null
  const c = findContext(source)
  if (packet.flags & RST) {
    if (c) count(OBFS_RESETS)
    return c
  }
  if (!c) return isObfsServer() ? onUnknownPeer() : null
  if (!isAddress(localOf(c))) copyAddress(localOf(c), target)
  if (obfsKind() == TCP_WND) {
    if (packet.isCongested) {
      c.congested++
      c.flags |= ECE_PENDING
    }
    if (packet.flags & ECE) c.echoes++
    if (!is(c, CAPTURED) && packet.flags & ACK) capture(c, packet.seq, packet.ack, packet.flow, isIntact())
  } else {
    updateNumbers(c)
  }
  return c
}

function isPayload(c: Context): bool {
  if (packet.payloadBytes == 0 || packet.flags & (RST | SYN) || packet.payloadBytes > MAX_DATAGRAM_BYTES) return false
  if (obfsKind() == TCP_WND && !(packet.flags & PSH)) return false
  // text of the cover connection would fail authentication and look like an attack
  return is(c, AUTHENTICATED) || !isCoverText()
}

/** A server's packet from an address without a context. */
function onUnknownPeer(): Context | null {
  if (obfsKind() == TCP_WND) {
    if (packet.flags & ACK) keepPending()
    return null
  }
  if ((packet.flags & (SYN | ACK)) != SYN) return null
  if (contextCount() >= MAX_CONTEXTS) {
    // a SYN flood evicts its own contexts, not authenticated ones
    const victim = oldestUnauthenticated()
    if (victim) removeContext(victim)
  }
  const c = insertContext(source)
  if (!c) {
    count(OBFS_REFUSED)
    return null
  }
  copyAddress(localOf(c), target)
  updateNumbers(c)
  return c
}

/** dpi/tcp: SYN opens a connection at a server, SYN|ACK at a client; every packet is acknowledged by our next one. */
function updateNumbers(c: Context): void {
  if ((packet.flags & SYN) == 0) {
    follow(c, packet.seq + packet.payloadBytes, is(c, CAPTURED) ? c.flow : packet.flow, isIntact())
    return
  }
  if (isObfsServer() && !(packet.flags & ACK)) {
    c.ack = packet.seq + 1
    c.flow = packet.flow
    c.flags |= CAPTURED
    c.seq = nextRandom()
    queueControl(c, SYN | ACK)
    c.seq++
    return
  }
  // it acknowledges a number that only the server saw, which proves more than a checksum
  if (isObfsServer() || !(packet.flags & ACK) || is(c, READY) || packet.ack != c.synAck) return
  c.ack = packet.seq + 1
  c.flags |= READY | CAPTURED
  queueEndpointEvent(EVENT_OBFS_READY, c.id)
}
