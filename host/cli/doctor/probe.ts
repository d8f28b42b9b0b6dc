/**
 * A separate UDP socket with an engine for each method and key that is tried on it. It does not affect port, nonces and
 * sessions of a running tunnel. The callers decide what to send and interpret the answers.
 */

import { type Config, MODE_CLIENT } from '../../config/config.ts'
import type { Announcement } from '../../engine/engine.ts'
import type { SystemError } from '../../errors.ts'
import type { SocketAddress } from '../../net/address.ts'
import type { Runtime, UdpOptions, UdpSocket } from '../../runtime.ts'
import { type Answer, type Cipher, type SessionListener, Voice, type VoiceListener } from './voice.ts'

/** Error of a call for which the probe has no engine. */
const NO_VOICE = -1

export class Probe implements VoiceListener {
  /** Errors that the socket reported, by code. */
  readonly errors = new Map<string, number>()
  /** Datagrams that no key opened. */
  unopened = 0
  onAnswer: (answer: Answer) => void = () => {}
  onPunched: (addresses: readonly SocketAddress[]) => void = () => {}
  onPeer: (peer: SocketAddress) => void = () => {}
  readonly #runtime: Runtime
  readonly #voices: readonly Voice[]
  #socket: UdpSocket | undefined
  #waiters: (() => void)[] = []

  private constructor(runtime: Runtime, ciphers: readonly Cipher[]) {
    this.#runtime = runtime
    this.#voices = ciphers.map((cipher, index) => new Voice(runtime, cipher, index, this))
  }

  /**
   * Opens a socket and starts an engine for each cipher.
   * @param ciphers all are tried for opening, in this order; the first is the default for sending
   * @param mode bits of Mode
   * @throws the error of bind or connect
   */
  static async open(
    runtime: Runtime,
    config: Config,
    options: UdpOptions,
    ciphers: readonly Cipher[],
    mode: number = MODE_CLIENT,
  ): Promise<Probe> {
    const probe = new Probe(runtime, ciphers)
    const socket = await runtime.openUdp(options, {
      onDatagram: (data, from) => probe.#onDatagram(data, from),
      onBatchEnd: () => {},
      onWritable: () => probe.#drain(),
      onError: (error) => probe.#onError(error),
    })
    probe.#socket = socket
    for (const voice of probe.#voices) voice.start(socket, config, options.connect, mode)
    return probe
  }

  get local(): SocketAddress | undefined {
    return this.#socket?.local
  }

  /** Bytes that sealing adds to a datagram. */
  get overhead(): number {
    return this.#voices[0]?.cipher.overhead ?? 0
  }

  now(): number {
    return this.#runtime.clock.monotonic()
  }

  /**
   * Sends a PING.
   * @param bytes of the datagram; 0: an ordinary ping
   * @returns its number, which no other ping of this probe has
   */
  ping(to: SocketAddress, bytes = 0, cipher?: Cipher): number {
    const voice = cipher === undefined ? this.#voices[0] : this.#voices.find((each) => each.cipher === cipher)
    return voice?.ping(to, bytes) ?? NO_VOICE
  }

  /** Sends one byte, as traceroute does: a host may refuse it. */
  poke(to: SocketAddress): void {
    const buffer = this.#socket?.acquire()
    if (!buffer) return
    buffer[0] = 0
    this.#socket?.send(buffer, 1, to)
    this.#socket?.flush()
  }

  /** Sets the server of sessions. */
  setPeer(peer: SocketAddress): void {
    this.#voices[0]?.setPeer(peer)
  }

  /** Sends CONNECT to a rendezvous server. */
  announce(announcement: Announcement): void {
    this.#voices[0]?.announce(announcement)
  }

  /**
   * Opens a session with the server.
   * @param echo bytes that it is asked to return; 0: it connects to its target
   * @returns its handle; an error code if it cannot be opened
   */
  openSession(echo: number, listener: SessionListener): number {
    const wake: SessionListener = (type, arg, arg2) => {
      listener(type, arg, arg2)
      this.#wake()
    }
    return this.#voices[0]?.open(echo, wake) ?? NO_VOICE
  }

  /** Drops what a session received. */
  discard(handle: number): void {
    this.#voices[0]?.discard(handle)
  }

  /** Ends our direction of a session. */
  shutdown(handle: number): void {
    this.#voices[0]?.shutdown(handle)
  }

  /** Ends a session at once, unless it ended by itself. */
  reset(handle: number): void {
    this.#voices[0]?.reset(handle)
  }

  /**
   * Waits until `done` returns true, for at most `ms`. `done` is called after each datagram, event and socket error.
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
    for (const voice of this.#voices) voice.close()
    this.#socket?.close()
    this.#socket = undefined
    this.#wake()
  }

  #drain(): void {
    for (const voice of this.#voices) voice.drain()
  }

  #onDatagram(data: Uint8Array, from: SocketAddress): void {
    if (!this.#voices.some((voice) => voice.receive(data, from))) this.unopened++
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
