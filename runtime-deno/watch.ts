/**
 * Watches descriptors with poll(2). Deno's event loop cannot watch one, so a thread of its pool waits, with a second
 * descriptor that ends the wait; the owner reads on the main thread.
 */
import { POLLIN } from '../host/linux/libc.ts'
import type { Watch } from '../host/runtime.ts'
import { addressOf, type DenoLibc, libc } from './ffi.ts'

/** Delay after a failed poll(2), ms, so that a persistent error does not cause a busy loop. */
const RETRY_MS = 10

/** struct pollfd: int fd, short events, short revents. */
const POLLFD_BYTES = 8

class DenoWatch implements Watch {
  readonly #libc: DenoLibc
  readonly #onReady: () => void
  /** The descriptor, and the one that ends the wait. The thread reads and writes it: it lives until the wait ends. */
  readonly #descriptors = new Uint8Array(2 * POLLFD_BYTES)
  readonly #at: number
  readonly #end: number
  #closed = false
  /** Continues the wait; undefined: not paused, or the wait has not ended yet. */
  #onResume: (() => void) | undefined
  #isPaused = false

  constructor(calls: DenoLibc, fd: number, events: number, onReady: () => void) {
    this.#libc = calls
    this.#onReady = onReady
    this.#at = addressOf(this.#descriptors)
    this.#end = calls.eventfd()
    const view = new DataView(this.#descriptors.buffer)
    const descriptors = [
      [fd, events],
      [this.#end, POLLIN],
    ] as const
    for (const [i, [descriptor, wanted]] of descriptors.entries()) {
      view.setInt32(i * POLLFD_BYTES, descriptor, true)
      view.setInt16(i * POLLFD_BYTES + 4, wanted, true)
    }
    void this.#run()
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const count = await this.#libc.waitFor(this.#at, 2)
      if (count < 0) await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      if (this.#isPaused && !this.#closed) await new Promise<void>((resolve) => (this.#onResume = resolve))
      if (!this.#closed) this.#onReady()
    }
    this.#libc.close(this.#end)
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#onResume?.()
    this.#onResume = undefined
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.resume()
    this.#libc.eventfdWrite(this.#end)
  }
}

/**
 * Calls back while a descriptor has one of the events of poll(2), or an error.
 * @throws NotAvailable
 */
export const watchEvents = (fd: number, events: number, onReady: () => void): Watch =>
  new DenoWatch(libc(), fd, events, onReady)

/**
 * See OperatingSystem.watch.
 * @throws NotAvailable
 */
export const watch = (fd: number, onReadable: (first?: Uint8Array) => void): Watch =>
  watchEvents(fd, POLLIN, () => onReadable())
