/** A client and a server of kcptun-wasm, in this page, over an emulated link. */

import {
  type Client,
  createClient,
  createServer,
  type DatagramTransport,
  generatePsk,
  type WebStream,
} from 'kcptun-wasm/browser'
import type { Lane } from './lane.ts'
import { type Direction, type Link, type LinkSettings, makeLink } from './link.ts'

const CHUNK = new Uint8Array(32_768)

/** A transport for one end of a link. */
const over = (out: Direction, into: Direction): DatagramTransport => ({
  open(receiver) {
    into.deliver = (data) => receiver.datagram(data)
  },
  // the bytes are valid during the call only
  send: (data) => out.send(data.slice()),
  close() {},
})

export class Ours implements Lane {
  readonly link: Link
  received = 0
  #client!: Client<WebStream>
  #stream: WebStream | undefined

  private constructor(link: Link) {
    this.link = link
  }

  static async open(settings: LinkSettings): Promise<Ours> {
    const lane = new Ours(makeLink(settings))
    const { up, down } = lane.link
    const psk = generatePsk()
    await createServer({ psk, transport: over(down, up) }, (stream) => lane.#serve(stream))
    lane.#client = await createClient({ psk, transport: over(up, down), when_down: 'hold' })
    return lane
  }

  get roundTrip(): number | null {
    // the session of the transfer before may not be gone yet
    const [newest] = [...this.#client.stats().sessions].sort((a, b) => a.age_seconds - b.age_seconds)
    return newest?.rtt_ms ?? null
  }

  async start(bytes: number): Promise<void> {
    this.stop()
    const stream = this.#client.open()
    this.#stream = stream
    const writer = stream.writable.getWriter()
    try {
      for (let left = bytes; left > 0; left -= CHUNK.length) {
        await writer.ready
        // waiting for `ready` is what keeps the sender from running ahead
        writer.write(CHUNK.subarray(0, Math.min(left, CHUNK.length))).catch(() => {})
      }
      await writer.close()
    } catch {
      // another transfer was started
    }
  }

  stop(): void {
    this.received = 0
    void this.#stream?.close()
    this.#stream = undefined
  }

  async #serve(stream: WebStream): Promise<void> {
    const reader = stream.readable.getReader()
    // only one stream counts: the one before was reset when this one was opened
    for (let part = await reader.read(); !part.done; part = await reader.read()) this.received += part.value.length
    await stream.writable.close()
  }
}
