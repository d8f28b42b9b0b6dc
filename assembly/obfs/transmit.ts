/*
 * Transmitted packets: headers in front of sealed datagrams, and the control packets of dpi/tcp without payload
 * (protocol.md 9.2, 9.4).
 */
import {
  OBFS_TX_ADDRESS,
  OBFS_TX_BYTES,
  OBFS_TX_CAPACITY,
  OBFS_TX_LENGTH,
  OBFS_TX_PACKET,
  OBFS_TX_PACKET_LENGTH,
  OBFS_TX_PTR,
} from '../abi'

import { copyAddress, familyOf } from '../packet/address'
import { count, OBFS_CONTROL_SENT } from '../stats'
import { CAPTURED, Context, ECE_PENDING, findContext, is, localOf, remoteOf } from './context'
import { obfsKind, TCP_WND } from './settings'
import { ACK, build, ECE, headerBytes, PSH } from './tcpip'

const SLOTS: u32 = 64
const SLOT_BYTES: u32 = 2048
/** Room for headers before the payload of a slot; they need at most 60 bytes. */
const HEADROOM_BYTES: u32 = 64
const CONTROL_SLOTS: u32 = 64

/** protocol.md 9.2 and 9.4 */
const WINDOW_TCP_WND: u32 = 32748
const WINDOW_TCP: u32 = 32768

export const outgoing: usize = memory.data(SLOTS * OBFS_TX_BYTES, 8)
export const control: usize = memory.data(CONTROL_SLOTS * OBFS_TX_BYTES, 8)
const controlBlocks: usize = memory.data(64 * 64, 8)
let controls: u32 = 0
/** Number of control packets reported to the host; their slots are free at the next call. */
let reported: u32 = 0

/** Assigns 2048 bytes of `blocks` to each descriptor. */
export function openOutgoing(blocks: usize): void {
  for (let i: u32 = 0; i < SLOTS; i++) {
    const slot = outgoing + <usize>(i * OBFS_TX_BYTES)
    store<usize>(slot, blocks + <usize>(i * SLOT_BYTES + HEADROOM_BYTES), OBFS_TX_PTR)
    store<u32>(slot, SLOT_BYTES - HEADROOM_BYTES, OBFS_TX_CAPACITY)
  }
}

/**
 * Writes headers in front of the datagrams of the first `n` descriptors.
 * @returns how many became packets
 */
export function transmitPackets(n: u32): i32 {
  let packets = 0
  const limit = min(n, SLOTS)
  for (let i: u32 = 0; i < limit; i++) {
    const slot = outgoing + <usize>(i * OBFS_TX_BYTES)
    const c = findContext(slot + OBFS_TX_ADDRESS)
    const len = load<u32>(slot, OBFS_TX_LENGTH)
    if (!c || (obfsKind() == TCP_WND && !is(c, CAPTURED)) || len > load<u32>(slot, OBFS_TX_CAPACITY)) {
      store<u32>(slot, 0, OBFS_TX_PACKET_LENGTH)
      continue
    }
    buildData(slot, c, len)
    packets++
  }
  return packets
}

function buildData(slot: usize, c: Context, len: u32): void {
  const bits = is(c, ECE_PENDING) ? PSH | ACK | ECE : PSH | ACK
  c.flags &= ~ECE_PENDING
  const window = obfsKind() == TCP_WND ? WINDOW_TCP_WND : WINDOW_TCP
  const at = load<usize>(slot, OBFS_TX_PTR)
  const packet = build(at, len, localOf(c), remoteOf(c), c.flow, bits, c.seq, c.ack, window)
  const bytes = <u32>(at - packet) + len
  if (obfsKind() != TCP_WND) c.seq += len
  c.bytesOut += bytes
  store<usize>(slot, packet, OBFS_TX_PACKET)
  store<u32>(slot, bytes, OBFS_TX_PACKET_LENGTH)
}

/** Queues a packet without payload that carries the context's numbers; it is dropped when 64 are queued. */
export function queueControl(c: Context, bits: u32): void {
  if (reported) controls = reported = 0
  if (controls >= CONTROL_SLOTS) return
  const slot = control + <usize>(controls * OBFS_TX_BYTES)
  const end = controlBlocks + <usize>((controls + 1) * HEADROOM_BYTES)
  controls++
  count(OBFS_CONTROL_SENT)
  c.bytesOut += headerBytes(familyOf(remoteOf(c)))
  store<usize>(slot, build(end, 0, localOf(c), remoteOf(c), c.flow, bits, c.seq, c.ack, WINDOW_TCP), OBFS_TX_PACKET)
  store<u32>(slot, headerBytes(familyOf(remoteOf(c))), OBFS_TX_PACKET_LENGTH)
  copyAddress(slot + OBFS_TX_ADDRESS, remoteOf(c))
}

/** @returns number of queued control packets, in the first descriptors, valid until the next call */
export function takeControls(): u32 {
  if (reported) controls = 0
  reported = controls
  return controls
}
