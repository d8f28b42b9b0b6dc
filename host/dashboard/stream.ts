/**
 * Client of `/events`: reads server-sent events with fetch, which can send the token (EventSource cannot), and
 * reconnects when the stream ends.
 */

import { PAGE_HEADER } from '../monitoring/access.ts'
import { serverEvents } from '../monitoring/event-stream.ts'

/** Pauses before reconnecting, by number of consecutive failures. */
const PAUSES_MS = [500, 1000, 2000, 4000]
/** Pause after this dashboard was evicted: an immediate reconnect would evict another one. */
const CROWDED_PAUSE_MS = 60_000

export interface StreamHandlers {
  onEvent(name: string, data: string): void
  /** The stream ended or was rejected with `status`. The stream reconnects, except after 401. */
  onEnd(status: number | undefined): void
  /** The stream was ended because of too many dashboards. It reconnects much later. */
  onCrowded(): void
}

export class Stream {
  readonly #handlers: StreamHandlers
  #abort: AbortController | undefined
  #timer: number | undefined
  #failures = 0
  #isCrowded = false
  token = ''
  readonly #path: string

  /** @param tunnel one of several; empty: all */
  constructor(handlers: StreamHandlers, tunnel: string) {
    this.#path = tunnel === '' ? 'events' : `events?tunnel=${encodeURIComponent(tunnel)}`
    this.#handlers = handlers
  }

  start(): void {
    if (this.#abort !== undefined) return
    clearTimeout(this.#timer)
    const abort = new AbortController()
    this.#abort = abort
    void this.#run(abort.signal).then((status) => {
      if (this.#abort !== abort) return
      this.#abort = undefined
      if (this.#isCrowded) this.#handlers.onCrowded()
      else this.#handlers.onEnd(status)
      if (status === 401) return
      const pause = this.#isCrowded ? CROWDED_PAUSE_MS : PAUSES_MS[Math.min(this.#failures++, PAUSES_MS.length - 1)]
      this.#isCrowded = false
      this.#timer = window.setTimeout(() => this.start(), pause)
    })
  }

  stop(): void {
    clearTimeout(this.#timer)
    const abort = this.#abort
    this.#abort = undefined
    abort?.abort()
  }

  /**
   * Reads the stream until it ends.
   * @returns the status of an error response
   */
  async #run(signal: AbortSignal): Promise<number | undefined> {
    // PAGE_HEADER identifies this page: pages of other sites cannot send it
    const headers = new Headers({ Accept: 'text/event-stream', [PAGE_HEADER]: '1' })
    if (this.token !== '') headers.set('Authorization', `Bearer ${this.token}`)
    try {
      const answer = await fetch(this.#path, { headers, signal, cache: 'no-store' })
      if (!answer.ok || answer.body === null) return answer.status
      for await (const { name, data } of serverEvents(answer.body)) {
        this.#failures = 0
        if (name === 'crowded') this.#isCrowded = true
        else this.#handlers.onEvent(name, data)
      }
      return undefined
    } catch {
      return undefined
    }
  }
}
