/** Datagram transports in memory: any number of clients and one server, with loss and another order. */
import type { DatagramReceiver, DatagramTransport } from 'kcptun-wasm'
import { Random } from '../../testkit/sim/random.ts'

interface LinkOptions {
  readonly maxDatagramSize?: number
  /** 0 to 1, of each datagram */
  readonly loss?: number
  /** Whether datagrams may overtake each other, by some ms. */
  readonly reorder?: boolean
  /** Whether datagrams are delivered during `send`. */
  readonly isSync?: boolean
}

/** One end of a link, with what a test observes. */
export interface End extends DatagramTransport {
  receiver: DatagramReceiver | undefined
  /** Lengths of the datagrams sent. */
  readonly lengths: number[]
  /** Calls of `close`. */
  closes: number
  /** Replaces `send` where it is set: what it returns is returned. */
  hook: ((data: Uint8Array) => boolean | undefined) | undefined
}

export class MemoryLink {
  readonly server: End
  /** By the identity that the server knows. */
  readonly clients = new Map<string, End>()
  readonly #options: LinkOptions
  readonly #random = new Random(7)

  constructor(options: LinkOptions = {}) {
    this.#options = options
    this.server = this.#end((data, peer) => this.clients.get(peer)?.receiver?.datagram(data))
  }

  /** A client with an identity. */
  client(identity: string): End {
    const end = this.#end((data) => {
      const [name] = [...this.clients].find(([, other]) => other === end) ?? []
      this.server.receiver?.datagram(data, name)
    })
    this.clients.set(identity, end)
    return end
  }

  /** Gives a client another identity. */
  rename(from: string, to: string): void {
    const end = this.clients.get(from)
    this.clients.delete(from)
    if (end !== undefined) this.clients.set(to, end)
  }

  #end(deliver: (data: Uint8Array, peer: string) => void): End {
    const { maxDatagramSize, isSync } = this.#options
    const end: End = {
      ...(maxDatagramSize !== undefined && { maxDatagramSize }),
      receiver: undefined,
      lengths: [],
      closes: 0,
      hook: undefined,
      open(receiver) {
        end.receiver = receiver
      },
      send: (data, peer) => {
        end.lengths.push(data.length)
        const result = end.hook?.(data)
        if (isSync) deliver(data, peer)
        else this.#later(data.slice(), peer, deliver)
        return result ?? true
      },
      close() {
        end.closes++
      },
    }
    return end
  }

  #later(data: Uint8Array, peer: string, deliver: (data: Uint8Array, peer: string) => void): void {
    const { loss = 0, reorder = false } = this.#options
    if (this.#random.below(1000) < loss * 1000) return
    if (reorder && this.#random.below(4) === 0) setTimeout(() => deliver(data, peer), this.#random.below(15))
    else setImmediate(() => deliver(data, peer))
  }
}
