/** A server whose streams are served by the application. */

import type { Dial, Dialling } from '../driver/stream.ts'
import { startEndpoint } from '../endpoint/endpoint.ts'
import { messageOf, toError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Server, ServerOptions, StreamHandler } from './api.ts'
import { Channel, Scratch } from './channel.ts'
import { rethrow, serverConfig } from './options.ts'
import type { Platform } from './platform.ts'
import { RunningEndpoint, type RunningParts } from './running.ts'
import { applyConfig, type Setting } from './setting.ts'

export class LibraryServer<Stream> extends RunningEndpoint implements Server {
  readonly #platform: Platform<Stream>
  readonly #onStream: StreamHandler<Stream>
  /** Shared by the channels. */
  readonly #scratch: Scratch

  constructor(platform: Platform<Stream>, parts: RunningParts, onStream: StreamHandler<Stream>) {
    super(parts)
    this.#platform = platform
    this.#scratch = new Scratch(platform.sharesMemory)
    this.#onStream = onStream
  }

  /** Opens the endpoint. @throws ConfigError, StartError */
  async start(options: ServerOptions, setting: Setting): Promise<void> {
    const { runtime, log, makeTransport } = setting
    const config = serverConfig(options)
    applyConfig(setting, config)
    const starting = startEndpoint(runtime, config, log, this.#platform.crypto, undefined, {
      dial: (dialling, peer) => this.#dial(dialling, peer, (text) => log.error(text)),
      onMigrated: (peer) => peer !== undefined && this.emit('migrate', this.textOf(peer)),
      ...(makeTransport && { makeTransport: makeTransport((error) => this.end(error)) }),
    })
    await this.begin(starting.catch(rethrow))
  }

  /** Makes a stream of a session, and serves it. */
  #dial(dialling: Dialling, peer: SocketAddress | undefined, report: (text: string) => void): Dial {
    let isCancelled = false
    const start = (): void => {
      if (isCancelled) return
      const channel = new Channel(peer, this.#scratch, (gone) => this.channels.delete(gone))
      this.channels.add(channel)
      channel.onAnswered()
      dialling.onOpen(channel)
      if (this.isClosing) channel.abort()
      // the session may have ended meanwhile
      if (!this.channels.has(channel)) return
      void this.#serve(channel, peer).catch((error) => {
        report(`the handler of streams failed: ${messageOf(error)}`)
        channel.giveUp(toError(error), true)
      })
    }
    queueMicrotask(start)
    return {
      cancel() {
        isCancelled = true
      },
    }
  }

  /** Rejects with what the handler throws. */
  async #serve(channel: Channel, peer: SocketAddress | undefined): Promise<void> {
    await this.#onStream(this.#platform.streamOf(channel, peer && this.textOf(peer)))
  }
}
