/**
 * Descriptors of packets in a memory laid out as the engine does, with a packet socket that fills them and a raw socket that sends them.
 */
import { PacketSocket } from '../../host/linux/packet-socket.ts'
import { RawSocket } from '../../host/linux/raw-socket.ts'
import { type SocketAddress, writeRecord } from '../../host/net/address.ts'
import type { OperatingSystem } from '../../host/runtime.ts'
import { waitFor } from '../../testkit/wait.ts'

export type Family = 4 | 6
export const FAMILIES: readonly Family[] = [4, 6]
export const LOCALHOST: Readonly<Record<Family, SocketAddress>> = {
  4: { family: 4, address: '127.0.0.1', port: 0, scope: 0 },
  6: { family: 6, address: '::1', port: 0, scope: 0 },
}
const TCP = 6
/** Sizes of the engine's descriptors and blocks. */
export const SLOTS = 64
const RX_STRIDE = 32
export const RX_CAPACITY = 2048
export const TX_STRIDE = 64
const FILTER_BYTES = 256
const SOURCE_PORT = 40000

/** struct sock_filter: code, jump if true, jump if false, operand. */
type Instruction = readonly [code: number, jt: number, jf: number, k: number]

/** A filter that accepts TCP packets to one port. */
export function portFilter(family: Family, port: number): Instruction[] {
  const [protocolAt, loadPort]: [number, Instruction[]] =
    family === 4
      ? [
          9,
          [
            [0xb1, 0, 0, 0],
            [0x48, 0, 0, 2],
          ],
        ]
      : [6, [[0x28, 0, 0, 42]]]
  return [
    [0x30, 0, 0, protocolAt],
    [0x15, 0, loadPort.length + 2, TCP],
    ...loadPort,
    [0x15, 0, 1, port],
    [0x06, 0, 0, 0xffffffff],
    [0x06, 0, 0, 0],
  ]
}

/** A TCP packet without checksum: the kernel drops it, a packet socket receives it. */
export function packetTo(family: Family, port: number, payload: Uint8Array): Uint8Array {
  const header = family === 4 ? 20 : 40
  const packet = new Uint8Array(header + 20 + payload.length)
  const view = new DataView(packet.buffer)
  if (family === 4) {
    packet.set([0x45, 2], 0)
    view.setUint16(2, packet.length)
    packet.set([0x40, 0, 64, TCP, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1], 6)
  } else {
    packet[0] = 0x60
    view.setUint16(4, packet.length - header)
    packet.set([TCP, 64], 6)
    packet[23] = 1
    packet[39] = 1
  }
  view.setUint16(header, SOURCE_PORT)
  view.setUint16(header + 2, port)
  packet[header + 12] = 0x50
  // RST: the kernel does not answer it
  packet[header + 13] = 4
  packet.set(payload, header + 20)
  return packet
}

/** A payload that starts with its number. */
export const numbered = (number: number, length = 100): Uint8Array => {
  const bytes = new Uint8Array(length).fill(number & 255)
  new DataView(bytes.buffer).setUint32(0, number)
  return bytes
}

/** A memory with descriptors in the layout of the engine. */
export class PacketBench {
  readonly memory = new WebAssembly.Memory({ initial: 16 })
  readonly rx = 1024
  readonly tx = this.rx + SLOTS * RX_STRIDE
  readonly filter = this.tx + SLOTS * TX_STRIDE
  readonly #blocks = 65536
  readonly received: Uint8Array[] = []
  readonly batches: number[] = []
  readonly errors: string[] = []
  readonly family: Family
  readonly packets: PacketSocket
  readonly raw: RawSocket

  constructor(os: OperatingSystem, family: Family) {
    this.family = family
    const words = new Uint32Array(this.memory.buffer)
    for (let i = 0; i < SLOTS; i++) {
      words[(this.rx + i * RX_STRIDE) / 4] = this.#blocks + i * RX_CAPACITY
      words[(this.rx + i * RX_STRIDE) / 4 + 1] = RX_CAPACITY
    }
    this.packets = new PacketSocket(os, family, this.memory, this.rx, SLOTS, 1 << 20, (count) => this.#take(count))
    this.raw = new RawSocket(os, family, this.memory, 1 << 20, (code) => this.errors.push(code))
  }

  attach(port: number, ifindex = 0): void {
    const program = portFilter(this.family, port)
    const view = new DataView(this.memory.buffer, this.filter, FILTER_BYTES)
    for (const [i, [code, jt, jf, k]] of program.entries()) {
      view.setUint16(i * 8, code, true)
      view.setUint8(i * 8 + 2, jt)
      view.setUint8(i * 8 + 3, jf)
      view.setUint32(i * 8 + 4, k, true)
    }
    this.packets.attach(ifindex, this.filter, program.length)
  }

  #take(count: number): void {
    this.batches.push(count)
    const words = new Uint32Array(this.memory.buffer)
    for (let i = 0; i < count; i++) {
      const at = (this.rx + i * RX_STRIDE) / 4
      const [ptr = 0, capacity = 0, length = 0] = words.subarray(at, at + 3)
      const bytes = new Uint8Array(RX_CAPACITY * 2).subarray(0, length)
      bytes.set(new Uint8Array(this.memory.buffer, ptr, Math.min(length, capacity)))
      this.received.push(bytes)
    }
  }

  /** Writes packets and their receivers into the transmit descriptors; undefined leaves one without a packet. */
  fill(packets: readonly (Uint8Array | undefined)[], to: SocketAddress = LOCALHOST[this.family]): void {
    const words = new Uint32Array(this.memory.buffer)
    const bytes = new Uint8Array(this.memory.buffer)
    for (const [i, packet] of packets.entries()) {
      const at = (this.tx + i * TX_STRIDE) / 4
      const ptr = this.#blocks + (SLOTS + 2 * i) * RX_CAPACITY
      if (packet !== undefined) bytes.set(packet, ptr)
      words[at + 4] = ptr
      words[at + 5] = packet?.length ?? 0
      writeRecord({ ...to, port: 4711 }, bytes, (at + 8) * 4)
    }
  }

  async send(packets: readonly (Uint8Array | undefined)[]): Promise<void> {
    this.fill(packets)
    let done = 0
    await waitFor('room for packets', () => {
      done += this.raw.send(this.tx, done, packets.length - done)
      return done === packets.length
    })
  }

  /** Numbers of the packets received. */
  get numbers(): number[] {
    const header = (this.family === 4 ? 20 : 40) + 20
    return this.received.map((packet) => new DataView(packet.buffer).getUint32(header))
  }

  close(): void {
    this.packets.close()
    this.raw.close()
    this.raw.close()
  }
}
