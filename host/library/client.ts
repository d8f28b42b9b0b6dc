/** A client whose streams belong to the application. */

import { WAIT_MS } from '../driver/admission.ts'
import { ClosedError, RefusedError, ResetError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Timer } from '../runtime.ts'
import { startService } from '../servers/start.ts'
import type { Client, ClientOptions, Signal, WebStream } from './api.ts'
import { Channel, type ChannelUser, Scratch } from './channel.ts'
import { clientConfig, rethrow } from './options.ts'
import type { Platform } from './platform.ts'
import { RunningEndpoint, type RunningParts, reasonOf } from './running.ts'
import { applyConfig, type Setting } from './setting.ts'
import { webStreamOf } from './web-stream.ts'

export class LibraryClient<Stream> extends RunningEndpoint implements Client<Stream> {
  readonly #platform: Platform<Stream>
  /** Shared by the channels. */
  readonly #scratch: Scratch
  /** For WHATWG streams, whose chunks may be transferred. */
  readonly #webScratch = new Scratch(false)
  /** Streams that the peer may not have answered, and since when, monotonic ms. */
  readonly #opening = new Map<Channel, number>()
  #timer: Timer | undefined

  constructor(platform: Platform<Stream>, parts: RunningParts) {
    super(parts)
    this.#platform = platform
    this.#scratch = new Scratch(platform.sharesMemory)
    const stop = (): void => parts.runtime.clock.clearTimer(this.#timer)
    this.closed.then(stop, stop)
  }

  /** Opens the endpoint. @throws ConfigError, StartError */
  async start(options: ClientOptions, setting: Setting): Promise<void> {
    const { runtime, log, makeTransport } = setting
    const config = clientConfig(options)
    applyConfig(setting, config)
    const starting = startService(runtime, config, log, this.#platform.crypto, undefined, {
      onPeerState: () => {
        this.onPeerState()
        // not now: this is an event of the engine
        queueMicrotask(() => this.#failUnanswered())
      },
      onMigrated: (peer) => this.#migrated(peer),
      ...(makeTransport && { makeTransport: makeTransport((error) => this.end(error)) }),
    })
    await this.begin(starting.catch(rethrow))
  }

  async connect({ signal }: { readonly signal?: Signal } = {}): Promise<Stream> {
    if (signal?.aborted) throw reasonOf(signal)
    const channel = this.#openChannel(this.#scratch)
    try {
      await opened(channel, signal)
    } catch (error) {
      channel.abort()
      throw error
    }
    return this.#platform.streamOf(channel, this.#peerText())
  }

  open(): WebStream {
    return webStreamOf(this.#openChannel(this.#webScratch), this.#peerText())
  }

  #openChannel(scratch: Scratch): Channel {
    if (this.isClosing) throw new ClosedError('the client is closed')
    const { driver } = this.endpoint
    const channel = new Channel(driver.peer, scratch, (gone) => this.#forget(gone))
    const handlers = this.endpoint.accept(channel)
    if (handlers === null) throw new RefusedError(driver.diagnostics.refusal)
    this.channels.add(channel)
    this.#opening.set(channel, this.parts.runtime.clock.monotonic())
    channel.attach(handlers)
    return channel
  }

  #forget(channel: Channel): void {
    this.channels.delete(channel)
    this.#opening.delete(channel)
  }

  /** Streams that were opened before the peer was found silent fail like those that are opened later. */
  #failUnanswered(): void {
    const { clock } = this.parts.runtime
    clock.clearTimer(this.#timer)
    this.#timer = undefined
    if (!this.isRunning || !this.endpoint.isPeerDown) return
    // the answer may wait behind whatever kept the event loop busy
    const earliest = this.endpoint.silentAt + GRACE_MS
    for (const [channel, since] of this.#opening) {
      const left = Math.max(since + WAIT_MS, earliest) - clock.monotonic()
      if (channel.isAnswered) this.#opening.delete(channel)
      else if (left <= 0) channel.giveUp(new ResetError('the peer does not answer'), false)
      else {
        this.#timer = clock.setTimer(() => this.#failUnanswered(), left)
        return
      }
    }
  }

  #peerText(): string | undefined {
    const { peer } = this.endpoint.driver
    return peer && this.textOf(peer)
  }

  #migrated(peer: SocketAddress | undefined): void {
    if (peer !== undefined) this.emit('migrate', this.textOf(peer))
  }
}

/** After the peer was found silent, ms. */
const GRACE_MS = 500

/** Waits for the answer of the peer. Rejects with the error of the stream, or the reason of the signal. */
function opened(channel: Channel, signal: Signal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (settle: () => void): void => {
      signal?.removeEventListener('abort', onAbort)
      settle()
    }
    const onAbort = (): void => done(() => reject(reasonOf(signal as Signal)))
    signal?.addEventListener('abort', onAbort)
    const user: ChannelUser = {
      onOpen: () => done(resolve),
      onReset: (error) => done(() => reject(error)),
      // nothing was asked for
      onData: () => false,
      onEnd() {},
      onWritable() {},
    }
    channel.use(user)
  })
}
