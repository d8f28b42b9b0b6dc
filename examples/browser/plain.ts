/**
 * Plain KCP with the defaults of kcptun-libev, as a model: windows of 256 segments, a flush interval of 100 ms, no fast
 * retransmission, no congestion control. Datagrams are as large as those of kcptun-wasm.
 *
 * With a round trip of 50 ms the model carries 25 Mbit/s, 8.7 with 2 % loss, and 2.0 on 20 Mbit/s with a queue of 64 KB;
 * the program carries 24, 5.6 and 1.6 (README.md).
 */

import { LibevKcp } from '../../testkit/sim/libev-kcp.ts'
import type { Lane } from './lane.ts'
import { type Link, type LinkSettings, makeLink } from './link.ts'

/** Datagrams of 1352 bytes, of which encryption takes 40. */
const SEAL_BYTES = 40
const DEFAULTS = { mtu: 1352 - SEAL_BYTES, sndwnd: 256, rcvwnd: 256, interval: 100, resend: 0, nodelay: 1 }
const CHUNK = new Uint8Array(14_880)

export class Plain implements Lane {
  readonly link: Link
  received = 0
  #left = 0
  #conversations = 0
  #sender!: LibevKcp
  #receiver!: LibevKcp

  constructor(settings: LinkSettings) {
    this.link = makeLink(settings)
    const { up, down } = this.link
    // datagrams of a conversation that is over are ignored
    const isCurrent = (data: Uint8Array): boolean =>
      new DataView(data.buffer, data.byteOffset).getUint32(0) === this.#sender.conv
    const unseal = (data: Uint8Array): Uint8Array => data.subarray(0, data.length - SEAL_BYTES)
    up.deliver = (data) => {
      if (!isCurrent(data)) return
      this.#receiver.input(unseal(data))
      for (let part = this.#receiver.read(); part; part = this.#receiver.read()) this.received += part.length
    }
    down.deliver = (data) => {
      if (!isCurrent(data)) return
      this.#sender.input(unseal(data))
      this.#write()
    }
    this.#renew()
    setInterval(() => {
      this.#write()
      for (const kcp of [this.#sender, this.#receiver]) kcp.update(performance.now())
    }, DEFAULTS.interval)
  }

  get roundTrip(): number | null {
    return this.#sender.srtt || null
  }

  async start(bytes: number): Promise<void> {
    this.stop()
    this.#left = bytes
    this.#write()
  }

  stop(): void {
    this.#left = 0
    this.received = 0
    this.#renew()
  }

  #renew(): void {
    const seal = (plain: Uint8Array): Uint8Array => {
      const sealed = new Uint8Array(plain.length + SEAL_BYTES)
      sealed.set(plain)
      return sealed
    }
    const conv = ++this.#conversations
    this.#sender = new LibevKcp(conv, DEFAULTS, (plain) => this.link.up.send(seal(plain)))
    this.#receiver = new LibevKcp(conv, DEFAULTS, (plain) => this.link.down.send(seal(plain)))
    for (const kcp of [this.#sender, this.#receiver]) kcp.update(performance.now())
  }

  /** Passes bytes on while the send window has room; new data is flushed at once. */
  #write(): void {
    const before = this.#left
    while (this.#left > 0 && this.#sender.waitsnd < DEFAULTS.sndwnd) {
      const length = Math.min(this.#left, CHUNK.length)
      this.#sender.write(CHUNK.subarray(0, length))
      this.#left -= length
    }
    // Infinity stays
    if (before > 0 && this.#sender.waitsnd > 0) this.#sender.flush()
  }
}
