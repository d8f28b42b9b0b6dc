/** Packets that an engine's obfuscator builds: sealed datagrams and control packets, with checks of their form. */
import { ObfsTx, Tx } from '../../host/engine/core.ts'
import { headerBytes, isGoodPacket } from './ip.ts'
import { fault } from './pattern.ts'
import type { Subject } from './subject.ts'

/** Entries of the table of control packets. */
const CONTROLS_MAX = 64

/** Copies the datagrams of the transmit descriptors to where their packets are built. */
function fillPackets(subject: Subject, first: number, count: number): void {
  const { core, overhead } = subject
  for (let i = 0; i < count; i++) {
    const from = core.txWord + i * Tx.WORDS
    const word = first + i * ObfsTx.WORDS
    const source = core.u32[from + Tx.source] ?? 0
    const length = core.u32[from + Tx.length] ?? 0
    const to = core.u32[from + Tx.address] ?? 0
    const at = core.u32[word + ObfsTx.ptr] ?? 0
    const capacity = core.u32[word + ObfsTx.capacity] ?? 0
    if (length + overhead > capacity) fault(`${length} + ${overhead} bytes do not fit into ${capacity}`)
    core.u8.copyWithin(at, source, source + length)
    core.u32[word + ObfsTx.length] = length + overhead
    core.u8.copyWithin((word + ObfsTx.address) * 4, to, to + 24)
  }
}

/**
 * Turns the transmit descriptors into packets.
 * @param isChecked whether lengths and checksum of the next packet are verified
 */
export function transmitPackets(subject: Subject, count: number, isChecked: () => boolean = () => true): void {
  const { core, calls, buffer } = subject
  const first = calls.obfs_tx_ptr() >>> 2
  fillPackets(subject, first, count)
  const made = calls.obfs_transmit(count, subject.now)
  let found = 0
  for (let i = 0; i < count; i++) {
    const word = first + i * ObfsTx.WORDS
    const length = core.u32[word + ObfsTx.packetLength] ?? 0
    if (length === 0) continue
    found++
    const at = core.u32[word + ObfsTx.packet] ?? 0
    const sealed = core.u32[word + ObfsTx.length] ?? 0
    const header = headerBytes(core.u8[(word + ObfsTx.address) * 4] ?? 4)
    if (length !== header + sealed || at + header !== core.u32[word + ObfsTx.ptr]) fault('a packet of wrong size')
    if (isChecked() && !isGoodPacket(buffer, at, length)) fault('a packet with wrong lengths or checksum')
  }
  if (made !== found) fault(`obfs_transmit = ${made}, but ${found} packets`)
}

/** Takes the control packets. @param onPacket called with address and length of each, and the word of its descriptor */
export function takeControlPackets(
  subject: Subject,
  onPacket: (at: number, length: number, word: number) => void,
): void {
  const count = subject.calls.obfs_control()
  subject.refresh()
  if (count < 0 || count > CONTROLS_MAX) fault(`obfs_control = ${count}`)
  const first = subject.calls.obfs_control_ptr() >>> 2
  for (let i = 0; i < count; i++) {
    const word = first + i * ObfsTx.WORDS
    const at = subject.core.u32[word + ObfsTx.packet] ?? 0
    const length = subject.core.u32[word + ObfsTx.packetLength] ?? 0
    if (!isGoodPacket(subject.buffer, at, length)) fault('a control packet with wrong lengths or checksum')
    onPacket(at, length, word)
  }
}
