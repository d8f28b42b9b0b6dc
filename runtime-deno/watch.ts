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
  readonly #onReadable: () => void
  /** The descriptor, and the one that ends the wait. The thread reads and writes it: it lives until the wait ends. */
  readonly #descriptors = new Uint8Array(2 * POLLFD_BYTES)
  readonly #at: number
  readonly #end: number
  #closed = false

  constructor(calls: DenoLibc, fd: number, onReadable: () => void) {
    this.#libc = calls
    this.#onReadable = onReadable
    this.#at = addressOf(this.#descriptors)
    this.#end = calls.eventfd()
    const view = new DataView(this.#descriptors.buffer)
    for (const [i, descriptor] of [fd, this.#end].entries()) {
      view.setInt32(i * POLLFD_BYTES, descriptor, true)
      view.setInt16(i * POLLFD_BYTES + 4, POLLIN, true)
    }
    void this.#run()
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const count = await this.#libc.waitFor(this.#at, 2)
      if (count < 0) await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      if (!this.#closed) this.#onReadable()
    }
    this.#libc.close(this.#end)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#libc.eventfdWrite(this.#end)
  }
}

/**
 * See OperatingSystem.watch.
 * @throws NotAvailable
 */
export const watch = (fd: number, onReadable: (first?: Uint8Array) => void): Watch =>
  new DenoWatch(libc(), fd, onReadable)
