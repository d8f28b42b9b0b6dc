/**
 * A separate UDP socket that seals and opens datagrams. It does not affect port, nonces and sessions of a running
 * tunnel. The callers decide what to send and interpret the answers.
 */

import type { Aead } from '../../crypto/aead.ts'
import { MAX_SEALED } from '../../crypto/methods.ts'
import type { SystemError } from '../../errors.ts'
import type { SocketAddress } from '../../net/address.ts'
import type { Runtime, UdpOptions, UdpSocket } from '../../runtime.ts'
import { control, type Message, PONG, readMessage } from './wire.ts'

/** Maximum padding of a small message, bytes (protocol.md 3.3). */
const PADDING_MAX = 15

/** Seals and opens datagrams with one method and key, or with none. */
export interface Sealer {
  /** Method and key as shown in the report. */
  readonly name: string
  /** Bytes of tag and nonce. */
  readonly overhead: number
  seal(plain: Uint8Array): Uint8Array
  /** @returns the plaintext; undefined if not authentic */
  open(datagram: Uint8Array): Uint8Array | undefined
  /** Overwrites the key. */
  wipe(): void
}

/** No method: the datagram is the plaintext. */
export const PLAIN: Sealer = {
  name: 'no method',
  overhead: 0,
  seal: (plain) => plain,
  open: (datagram) => datagram,
  wipe: () => {},
}

/** Makes a sealer from a cipher. Nonces are random; those of 12 bytes count up from a random base (protocol.md 3.4). */
export function sealerOf(aead: Aead, name: string = aead.method): Sealer {
  const { tagBytes, nonceBytes } = aead
  const overhead = tagBytes + nonceBytes
  const nonce = crypto.getRandomValues(new Uint8Array(nonceBytes))
  const opened = new Uint8Array(MAX_SEALED)
  const next = (): void => {
    if (aead.nonceStrategy !== 'counter') {
      crypto.getRandomValues(nonce)
      return
    }
    for (let i = 0, carry = 1; i < nonceBytes && carry > 0; i++) {
      const sum = (nonce[i] ?? 0) + carry
      nonce[i] = sum & 0xff
      carry = sum >> 8
    }
  }
  return {
    name,
    overhead,
    wipe: () => aead.wipe(),
    seal(plain) {
      next()
      const out = new Uint8Array(plain.length + overhead)
      aead.seal(plain, 0, plain.length, nonce, 0, out, 0)
      return out
    },
    open(datagram) {
      if (datagram.length <= overhead || datagram.length > MAX_SEALED) return undefined
      const length = aead.openInto(datagram, datagram.length, opened, 0)
      return length < 0 ? undefined : opened.slice(0, length)
    },
  }
}

/** Adds 0..15 bytes of padding to a small message, as every sender of sealed messages does. */
export function padded(message: Uint8Array): Uint8Array {
  const count = Math.floor(Math.random() * (PADDING_MAX + 1))
  const out = new Uint8Array(message.length + count).fill(count, message.length)
  out.set(message)
  return out
}

/** A message that arrived. */
export interface Arrival {
  readonly message: Message
  readonly from: SocketAddress
  /** Bytes of the datagram. */
  readonly bytes: number
  /** Monotonic ms. */
  readonly at: number
  readonly sealer: Sealer
}

/** The socket. It answers PINGs and passes all other messages to `onArrival`. */
export class Probe {
  /** Errors that the socket reported, by code. */
  readonly errors = new Map<string, number>()
  /** Datagrams that no sealer opened. */
  unopened = 0
  /** Handler of received messages. */
  onArrival: (arrival: Arrival) => void = () => {}
  readonly #runtime: Runtime
  readonly #sealers: readonly Sealer[]
  #socket: UdpSocket | undefined
  #waiters: (() => void)[] = []

  private constructor(runtime: Runtime, sealers: readonly Sealer[]) {
    this.#runtime = runtime
    this.#sealers = sealers
  }

  /**
   * Opens a socket.
   * @param sealers the first one seals; all are tried for opening
   * @throws the error of bind or connect
   */
  static async open(runtime: Runtime, options: UdpOptions, sealers: readonly Sealer[]): Promise<Probe> {
    const probe = new Probe(runtime, sealers)
    probe.#socket = await runtime.openUdp(options, {
      onDatagram: (data, from) => probe.#onDatagram(data, from),
      onBatchEnd: () => {},
      onWritable: () => {},
      onError: (error) => probe.#onError(error),
    })
    return probe
  }

  get local(): SocketAddress | undefined {
    return this.#socket?.local
  }

  get overhead(): number {
    return this.#sealers[0]?.overhead ?? 0
  }

  now(): number {
    return this.#runtime.clock.monotonic()
  }

  /** Seals and sends a plaintext. @returns bytes of the datagram; 0 if the socket is busy */
  send(plain: Uint8Array, to: SocketAddress, sealer: Sealer | undefined = this.#sealers[0]): number {
    const buffer = this.#socket?.acquire() ?? null
    if (buffer === null || sealer === undefined) return 0
    const sealed = sealer.seal(plain)
    buffer.set(sealed)
    this.#socket?.send(buffer, sealed.length, to)
    this.#socket?.flush()
    return sealed.length
  }

  /**
   * Waits until `done` returns true, for at most `ms`. `done` is called after each datagram and socket error.
   * @returns whether `done` returned true
   */
  async until(done: () => boolean, ms: number): Promise<boolean> {
    const end = this.now() + ms
    while (!done()) {
      const rest = end - this.now()
      if (rest <= 0) return false
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, rest)
        this.#waiters.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
    return true
  }

  close(): void {
    this.#socket?.close()
    this.#socket = undefined
    this.#wake()
  }

  #onDatagram(data: Uint8Array, from: SocketAddress): void {
    const at = this.now()
    for (const sealer of this.#sealers) {
      const plain = sealer.open(data)
      const message = plain && readMessage(plain)
      if (message === undefined) continue
      // a PING is answered in every mode (protocol.md 7.1)
      if (message.kind === 'ping') this.send(control(PONG, message.stamp), from, sealer)
      else this.onArrival({ message, from, bytes: data.length, at, sealer })
      this.#wake()
      return
    }
    this.unopened++
    this.#wake()
  }

  #onError(error: SystemError): void {
    const code = error.code ?? 'unknown'
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1)
    this.#wake()
  }

  #wake(): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) waiter()
  }
}
