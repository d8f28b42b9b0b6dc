/** The obfuscator's part of an engine under guided fuzzing: captured packets in, payloads on, packets out. */
import { Obfs, ObfsRx } from '../../../host/engine/core.ts'
import { address4, address6 } from '../../../testkit/sim/address.ts'
import { checksum, TCP_BYTES } from '../ip.ts'
import { takeControlPackets, transmitPackets } from '../packets-out.ts'
import { fault } from '../pattern.ts'
import type { Subject } from '../subject.ts'
import { exactCall } from './engine-calls.ts'

const SLOT_BYTES = 2048
const LOCAL_PORT = 8080
/** Ports of remote addresses of one script. */
const PORTS = 4
const PORT_FIRST = 2048

/** Bits of a packet's flags: what is left as the script has it. */
const Raw = { LENGTHS: 1, ACK: 2, PORT: 4, NONCE: 8, SEALED: 16 } as const

export class Packets {
  readonly #subject: Subject
  readonly #isIpv4: boolean
  /** What acknowledges the engine's last number, by remote port. */
  readonly #acks = new Map<number, number>()
  #filled = 0
  readonly #opened: boolean[] = []
  #base = PORT_FIRST

  constructor(subject: Subject, kind: number, family: 4 | 6) {
    this.#subject = subject
    this.#isIpv4 = family === 4
    subject.refresh()
    subject.core.u32[subject.calls.obfs_ptr() >>> 2] = kind
    this.#configure()
    subject.beforeFlush = () => this.#flush()
    subject.onBatch = (count) => transmitPackets(subject, count)
  }

  #address(host: number, port: number): Uint8Array {
    return this.#isIpv4 ? address4(host, port) : address6(host, port)
  }

  #configure(): void {
    const { subject, calls } = this.#parts()
    subject.writeRecord(this.#address(77, LOCAL_PORT), calls.obfs_ptr() + Obfs.local)
    exactCall('obfs_configure', calls.obfs_configure(subject.now), true)
    subject.refresh()
  }

  #parts(): { subject: Subject; calls: Subject['calls'] } {
    return { subject: this.#subject, calls: this.#subject.calls }
  }

  /** Each script has remote ports of its own. */
  begin(serial: number): void {
    this.#base = PORT_FIRST + ((serial * PORTS) % 60_000)
    this.#acks.clear()
  }

  /** Writes a captured packet. `remap` changes the datagram inside. */
  deliver(bytes: Uint8Array, flags: number, remap: (plain: Uint8Array) => void): void {
    if (this.#filled === 64) this.#subject.flush()
    const { subject, calls } = this.#parts()
    subject.refresh()
    const word = (calls.obfs_rx_ptr() >>> 2) + this.#filled * ObfsRx.WORDS
    const at = subject.core.u32[word + ObfsRx.ptr] ?? 0
    const length = Math.min(bytes.length, SLOT_BYTES)
    const packet = subject.core.u8.subarray(at, at + length)
    packet.set(bytes.subarray(0, length))
    this.#repair(packet, flags, remap)
    subject.core.u32[word + ObfsRx.length] = length
    this.#opened[this.#filled++] = (flags & Raw.SEALED) === 0
  }

  #repair(packet: Uint8Array, flags: number, remap: (plain: Uint8Array) => void): void {
    const ip = this.#isIpv4 ? 20 : 40
    const header = ip + TCP_BYTES
    if (packet.length < header) return
    const { overhead, random } = this.#subject
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
    const plain = packet.length - header - overhead
    if (plain >= 0) {
      remap(packet.subarray(header, header + plain))
      if (!(flags & Raw.NONCE)) random.fill(packet.subarray(header + plain + 16))
    }
    if (!(flags & Raw.PORT)) view.setUint16(ip, this.#base + (view.getUint16(ip) % PORTS))
    const ack = this.#acks.get(view.getUint16(ip))
    if (!(flags & Raw.ACK) && ack !== undefined) view.setUint32(ip + 8, ack)
    if (flags & Raw.LENGTHS) return
    if (this.#isIpv4) view.setUint16(2, packet.length)
    else view.setUint16(4, packet.length - ip)
    view.setUint16(ip + 16, 0)
    view.setUint16(ip + 16, ~checksum(view, 0, this.#isIpv4, packet.length - ip) & 0xffff)
  }

  #flush(): void {
    const count = this.#filled
    if (count === 0) return
    this.#filled = 0
    const { subject, calls } = this.#parts()
    const found = calls.obfs_handle_packets(count, subject.now)
    subject.refresh()
    const first = calls.obfs_rx_ptr() >>> 2
    let taken = 0
    for (let i = 0; i < count; i++) if (this.#payload(first + i * ObfsRx.WORDS, this.#opened[i] ?? false)) taken++
    if (taken !== found) fault(`obfs_handle_packets = ${found}, but ${taken} payloads`)
    this.#controls()
  }

  #payload(word: number, isOpened: boolean): boolean {
    const { subject } = this.#parts()
    const { u8, u32 } = subject.core
    if (u32[word + ObfsRx.flags] !== ObfsRx.HAS_PAYLOAD) return false
    const at = u32[word + ObfsRx.payload] ?? 0
    const length = u32[word + ObfsRx.payloadLength] ?? 0
    const address = u32[word + ObfsRx.address] ?? 0
    if (!subject.isHeap(at, length) || length > SLOT_BYTES || address + 24 > u8.length) fault('a payload lies outside')
    const bytes = u8.slice(at, at + length)
    const plain = length - subject.overhead
    const nonce = plain >= 0 ? bytes.subarray(plain + 16) : undefined
    subject.feed(bytes, plain, u8.slice(address, address + 24), nonce, isOpened)
    return true
  }

  #controls(): void {
    const { subject } = this.#parts()
    takeControlPackets(subject, (at, length) => {
      const tcp = at + length - TCP_BYTES
      this.#acks.set(subject.buffer.readUInt16BE(tcp + 2), (subject.buffer.readUInt32BE(tcp + 4) + 1) >>> 0)
    })
  }

  /** obfs_accept, obfs_dial, obfs_release or obfs_configure. */
  act(which: number): void {
    const { subject, calls } = this.#parts()
    this.#flush()
    subject.writeRecord(this.#address(1, this.#base + (which % PORTS)), calls.obfs_ptr() + Obfs.remote)
    const kind = (which >> 4) % 4
    if (kind === 0 || kind === 1) {
      const result = kind === 0 ? calls.obfs_dial(subject.now) : calls.obfs_accept(subject.now)
      if (result <= 0) exactCall('obfs_dial or obfs_accept', result)
      subject.refresh()
      if (kind === 1 && result > 0) this.#payload(calls.obfs_early_ptr() >>> 2, true)
    } else if (kind === 2) this.#release(which % PORTS)
    else this.#configure()
    this.#controls()
  }

  #release(nth: number): void {
    const { subject, calls } = this.#parts()
    const slots = calls.obfs_context_slots()
    const context = slots === 0 ? 0 : calls.obfs_context_info(nth % slots)
    if (context !== 0) exactCall('obfs_release', calls.obfs_release(context, subject.now), true)
  }

  drain(): void {
    this.#controls()
    for (let i = 0; this.#subject.calls.obfs_ended() !== 0; i++) if (i > 5000) fault('obfs_ended goes on for ever')
  }

  /** Releases all contexts; none may be left. */
  end(): void {
    const { subject, calls } = this.#parts()
    this.#flush()
    for (let slot = calls.obfs_context_slots() - 1; slot >= 0; slot--) this.#release(slot)
    if (subject.gauge('obfs_contexts') !== 0)
      fault(`obfs_contexts = ${subject.gauge('obfs_contexts')} after all were released`)
  }
}
