/**
 * The obfuscator's part of a host, and the packets of the modelled peers: handshakes, datagrams inside TCP packets,
 * damaged packets, contexts that come and go.
 */
import { ErrorCode, Obfs, ObfsKind, ObfsRx, ObfsTx } from '../../host/engine/core.ts'
import { pickAddress } from './datagrams.ts'
import { checksum, Flag, headerBytes, TCP_BYTES, writePacket } from './ip.ts'
import { takeControlPackets, transmitPackets } from './packets-out.ts'
import { fault } from './pattern.ts'
import type { ObfuscatorHost, World } from './world.ts'

const SLOT_BYTES = 2048
const TAG_BYTES = 16

/** A remote address as seen by the modelled peers. */
interface Remote {
  seq: number
  /** Acknowledgement of the engine's sequence numbers. */
  ack: number
}

/** A number that distinguishes address records. */
function numberOf(record: Uint8Array): number {
  return record.reduce((number, byte) => Math.imul(number ^ byte, 0x01000193) >>> 0, 0x811c9dc5)
}

export class Obfuscator implements ObfuscatorHost {
  readonly #world: World
  readonly #kind: number
  /** By number of the address. */
  readonly #remotes = new Map<number, Remote>()
  #local: Uint8Array
  #filled = 0
  /** For each filled slot: address of the payload of a valid packet, else 0; whether the datagram is authentic. */
  readonly #payloads: number[] = []
  readonly #opened: boolean[] = []

  constructor(world: World, kind: number, local: Uint8Array) {
    this.#world = world
    this.#kind = kind
    this.#local = local
    const { subject } = world
    subject.refresh()
    subject.core.u32[subject.calls.obfs_ptr() >>> 2] = kind
    this.#bind(local)
    subject.beforeFlush = () => this.flush()
    subject.onBatch = (count) => transmitPackets(this.#world.subject, count, () => this.#world.random.below(16) === 0)
  }

  #bind(local: Uint8Array): void {
    const { subject } = this.#world
    subject.writeRecord(local, subject.calls.obfs_ptr() + Obfs.local)
    const result = subject.calls.obfs_configure(subject.now)
    if (result === ErrorCode.ENTROPY) {
      subject.refill(64)
      this.#bind(local)
      return
    }
    if (result !== 0) fault(`obfs_configure = ${result}`)
    this.#local = local
    subject.refresh()
  }

  #setRemote(address: Uint8Array): void {
    const { subject } = this.#world
    subject.writeRecord(address, subject.calls.obfs_ptr() + Obfs.remote)
  }

  // ---- packets in

  /** @returns the address for the next captured packet */
  #slot(): number {
    if (this.#filled === 64) this.flush()
    const { subject } = this.#world
    subject.refresh()
    return subject.core.u32[(subject.calls.obfs_rx_ptr() >>> 2) + this.#filled * ObfsRx.WORDS + ObfsRx.ptr] ?? 0
  }

  /** `payload`: its address if the packet must be accepted unchanged, else 0. */
  #push(length: number, payload: number, isOpened: boolean): void {
    const { subject } = this.#world
    const word = (subject.calls.obfs_rx_ptr() >>> 2) + this.#filled * ObfsRx.WORDS
    subject.core.u32[word + ObfsRx.length] = length
    this.#payloads[this.#filled] = payload
    this.#opened[this.#filled] = isOpened
    this.#filled++
    subject.isDrained = false
  }

  /** Delivers a datagram of a modelled peer, after its handshake. */
  deliver(plain: Uint8Array, size: number, from: Uint8Array, nonce: Uint8Array | undefined, isOpened: boolean): void {
    const { subject, random } = this.#world
    if (from[0] !== this.#local[0]) return
    const remote = this.#remotes.get(numberOf(from)) ?? this.#connect(from)
    const at = this.#slot()
    const header = headerBytes(from[0] ?? 4)
    const sealed = Math.max(0, size + subject.overhead)
    if (header + sealed > SLOT_BYTES) return
    const { u8 } = subject.core
    if (size > 0) u8.set(plain.subarray(0, size), at + header)
    const nonceAt = at + header + Math.max(0, size) + TAG_BYTES
    if (nonce) u8.set(nonce, nonceAt)
    else if (size >= 0) random.fill(u8.subarray(nonceAt, at + header + sealed))
    const packet = u8.subarray(at, at + SLOT_BYTES)
    const flags = Flag.PSH | Flag.ACK | (random.below(50) === 0 ? Flag.ECE : 0)
    const isCongested = random.below(50) === 0
    const ends = { from, to: this.#local, seq: remote.seq, ack: remote.ack, flags, isCongested }
    let length = writePacket(packet, ends, sealed)
    if (this.#kind === ObfsKind.TCP) remote.seq = (remote.seq + sealed) >>> 0
    const isDamaged = !this.#world.isMeasuring && !this.#world.isCalm && random.below(20) === 0
    if (isDamaged) length = this.#damage(packet, length)
    this.#push(length, isDamaged ? 0 : at + header, isOpened && !isDamaged)
  }

  /** Performs the handshake of a new address. */
  #connect(from: Uint8Array): Remote {
    const { subject, random, plan } = this.#world
    const remote = { seq: random.u32(), ack: random.u32() }
    this.#remotes.set(numberOf(from), remote)
    if (plan.role === 'client') this.#dial(from)
    const isTcp = this.#kind === ObfsKind.TCP
    const flags = plan.role === 'client' ? Flag.SYN | Flag.ACK : isTcp ? Flag.SYN : Flag.ACK
    this.#bare(from, remote, flags)
    if (isTcp) remote.seq = (remote.seq + 1) >>> 0
    if (plan.role !== 'server' || isTcp) return remote
    this.flush()
    this.#accept(from)
    subject.isDrained = false
    return remote
  }

  #bare(from: Uint8Array, remote: Remote, flags: number): void {
    const { core } = this.#world.subject
    const at = this.#slot()
    const packet = core.u8.subarray(at, at + SLOT_BYTES)
    this.#push(writePacket(packet, { from, to: this.#local, seq: remote.seq, ack: remote.ack, flags }, 0), 0, false)
  }

  #dial(address: Uint8Array): void {
    const { subject } = this.#world
    this.#setRemote(address)
    const result = subject.calls.obfs_dial(subject.now)
    if (result < 0 && result !== ErrorCode.MEMORY && result !== ErrorCode.STATE) fault(`obfs_dial = ${result}`)
    subject.isDrained = false
    this.#takeControls()
  }

  #accept(address: Uint8Array): void {
    const { subject } = this.#world
    this.#setRemote(address)
    const result = subject.calls.obfs_accept(subject.now)
    if (result < 0 && result !== ErrorCode.SESSIONS && result !== ErrorCode.STATE) fault(`obfs_accept = ${result}`)
    subject.refresh()
    if (result > 0) this.#takePayload(subject.calls.obfs_early_ptr() >>> 2, 0, false)
  }

  /** Damages a packet in one way. @returns its new length */
  #damage(packet: Uint8Array, length: number): number {
    const { random } = this.#world
    const isIpv4 = (packet[0] ?? 0) >> 4 === 4
    const tcp = isIpv4 ? 20 : 40
    switch (random.below(9)) {
      case 0:
        packet[tcp + 13] = random.below(256)
        break
      case 1:
        random.fill(packet.subarray(tcp + 4, tcp + 12))
        break
      case 2:
        packet[tcp + 12] = random.below(256)
        break
      case 3:
        packet[0] = random.below(256)
        break
      case 4:
        random.fill(packet.subarray(2, 8))
        break
      case 5:
        return random.below(length + 1)
      case 6:
        return random.pick(length + 1, 1501, SLOT_BYTES, 0xffffffff)
      case 7:
        packet.set(random.pick([0x47, 0x45, 0x54, 0x20], [0x48, 0x54, 0x54, 0x50]), tcp + TCP_BYTES)
        break
      default:
        packet[random.below(tcp + TCP_BYTES)] = random.below(256)
    }
    if (random.chance(0.5)) this.#correct(packet, isIpv4, length - tcp)
    return length
  }

  /** Corrects the checksum of a changed packet. */
  #correct(packet: Uint8Array, isIpv4: boolean, bytes: number): void {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
    const at = (isIpv4 ? 20 : 40) + 16
    view.setUint16(at, 0)
    view.setUint16(at, ~checksum(view, 0, isIpv4, bytes) & 0xffff)
  }

  /** Passes captured packets to the engine, then their payloads. */
  flush(): void {
    const count = this.#filled
    if (count === 0) return
    this.#filled = 0
    const { subject } = this.#world
    const found = subject.calls.obfs_handle_packets(count, subject.now)
    subject.refresh()
    const first = subject.calls.obfs_rx_ptr() >>> 2
    let taken = 0
    for (let i = 0; i < count; i++) {
      if (this.#takePayload(first + i * ObfsRx.WORDS, this.#payloads[i] ?? 0, this.#opened[i] ?? false)) taken++
    }
    if (taken !== found) fault(`obfs_handle_packets = ${found}, but ${taken} payloads`)
    this.#takeControls()
  }

  #takePayload(word: number, wanted: number, isOpened: boolean): boolean {
    const { subject } = this.#world
    const { u8, u32 } = subject.core
    if (u32[word + ObfsRx.flags] !== ObfsRx.HAS_PAYLOAD) return false
    const at = u32[word + ObfsRx.payload] ?? 0
    const length = u32[word + ObfsRx.payloadLength] ?? 0
    const address = u32[word + ObfsRx.address] ?? 0
    if (!subject.isHeap(at, length) || length > SLOT_BYTES || address + 24 > u8.length) fault('a payload lies outside')
    if (wanted !== 0 && at !== wanted) fault(`a payload at ${at}, written to ${wanted}`)
    const plain = Math.max(0, length - subject.overhead)
    const bytes = u8.slice(at, at + length)
    const nonce = length >= subject.overhead ? bytes.subarray(plain + TAG_BYTES) : undefined
    subject.feed(bytes, length - subject.overhead, u8.slice(address, address + 24), nonce, isOpened)
    return true
  }

  #takeControls(): void {
    const { subject } = this.#world
    takeControlPackets(subject, (at, length, word) => {
      const remote = this.#remotes.get(numberOf(this.#world.record((word + ObfsTx.address) * 4)))
      if (remote) remote.ack = (subject.buffer.readUInt32BE(at + length - TCP_BYTES + 4) + 1) >>> 0
    })
  }

  // ---- other calls of a host

  /** Accepts, dials, releases or rebinds. */
  act(): void {
    const world = this.#world
    const { subject, random } = world
    const { calls } = subject
    const address = pickAddress(world)
    const r = random.below(13)
    world.note(() => `obfs act ${r} for ${address.slice(0, 12)}`)
    this.flush()
    if (r < 2) this.#accept(address)
    else if (r < 4 && address[0] === this.#local[0]) this.#dial(address)
    else if (r < 6) {
      const slots = calls.obfs_context_slots()
      const id = slots > 0 && random.chance(0.7) ? calls.obfs_context_info(random.below(slots)) : random.u32()
      const result = calls.obfs_release(id, subject.now)
      if (result !== 0 && result !== ErrorCode.HANDLE) fault(`obfs_release = ${result}`)
    } else if (r < 7) {
      const local = this.#local.slice()
      if (random.chance(0.5)) local.fill(0, 8)
      else local[2] = random.below(256)
      if (this.#local[8] !== 0 || random.chance(0.5)) this.#bind(local)
    } else if (r < 8) this.#flood(address)
    else if (r < 10) this.#remotes.delete(numberOf(address))
    else {
      const remote = this.#remotes.get(numberOf(address))
      const flags = random.pick(Flag.RST, Flag.FIN | Flag.ACK, Flag.SYN, Flag.SYN | Flag.ACK, Flag.ACK, 0, 255)
      if (remote) this.#bare(address, remote, flags)
    }
    subject.isDrained = false
    for (let i = 0; calls.obfs_ended() !== 0; i++) if (i > 5000) fault('obfs_ended goes on for ever')
  }

  /** The modelled peers reconnect to the initial address. */
  restart(): void {
    this.#remotes.clear()
    this.#bind(this.#world.plan.local)
  }

  /** Packets from many unknown ports: SYN, or segments without a connection. */
  #flood(address: Uint8Array): void {
    const { random } = this.#world
    const from = address.slice()
    const flags = random.pick(Flag.SYN, Flag.SYN, Flag.ACK, Flag.PSH | Flag.ACK)
    const remote = { seq: random.u32(), ack: random.u32() }
    for (let n = random.pick(3, 70, 600); n > 0; n--) {
      random.fill(from.subarray(2, 4))
      this.#bare(from, remote, flags)
    }
  }

  /** @returns the number of contexts listed by the engine */
  count(): number {
    const { calls } = this.#world.subject
    let count = 0
    const slots = calls.obfs_context_slots()
    for (let slot = 0; slot < slots; slot++) if (calls.obfs_context_info(slot) !== 0) count++
    return count
  }
}
