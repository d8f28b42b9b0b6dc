/**
 * Adopts a connecting descriptor. node:net of Deno reports one as connected at once, whatever becomes of it, so poll(2)
 * waits for the end of the handshake and SO_ERROR tells how it ended; only then the descriptor becomes a socket. The
 * wait takes a thread of Deno's pool: for the few connections of a cover, not for every dial.
 */
import { systemError, toError } from '../host/errors.ts'
import { POLLOUT, SO_ERROR } from '../host/linux/libc.ts'
import type { OperatingSystem, TcpConnection, TcpHandlers, Watch } from '../host/runtime.ts'
import { syscalls } from './ffi.ts'
import { watchEvents } from './watch.ts'

const WRITE_BUFFER_BYTES = 65536

/** A connection whose socket exists once the handshake is over; what was called before is done then. */
class AdoptedConnection implements TcpConnection {
  readonly remote = undefined
  readonly #fd: number
  readonly #adopt: OperatingSystem['adoptConnection']
  readonly #onOpen: () => void
  #handlers: TcpHandlers
  #watch: Watch | undefined
  #socket: TcpConnection | undefined
  #buffer: Uint8Array | undefined
  #starved = false
  #reads = false
  #ends = false

  constructor(fd: number, handlers: TcpHandlers, onOpen: () => void, adopt: OperatingSystem['adoptConnection']) {
    this.#fd = fd
    this.#handlers = handlers
    this.#onOpen = onOpen
    this.#adopt = adopt
    this.#watch = watchEvents(fd, POLLOUT, () => this.#settle())
  }

  /** The handshake is over. */
  #settle(): void {
    this.#watch?.close()
    this.#watch = undefined
    try {
      const calls = syscalls()
      const errno = calls.getOption(this.#fd, SO_ERROR)
      if (errno !== 0) {
        const code = calls.errorName(errno)
        throw systemError(code, 'the connection failed', 'connect')
      }
      this.#socket = this.#adopt(this.#fd, this.#handlers, () => this.#opened())
    } catch (error) {
      syscalls().close(this.#fd)
      this.#handlers.onClose(toError(error))
      return
    }
    if (this.#reads) this.#socket.resume()
    if (this.#ends) this.#socket.end()
  }

  #opened(): void {
    this.#onOpen()
    if (!this.#starved) return
    this.#starved = false
    this.#handlers.onDrain()
  }

  /** Gives up before the handshake is over; a peer that answers gets a reset of the kernel. */
  #abandon(): void {
    if (this.#watch === undefined) return
    this.#watch.close()
    this.#watch = undefined
    syscalls().close(this.#fd)
  }

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#socket?.attach(handlers)
  }

  writeBuffer(): Uint8Array {
    if (this.#socket !== undefined) return this.#socket.writeBuffer()
    this.#buffer ??= new Uint8Array(WRITE_BUFFER_BYTES)
    return this.#buffer
  }

  write(buffer: Uint8Array, length: number): number {
    if (this.#socket !== undefined) return this.#socket.write(buffer, length)
    this.#starved = true
    return 0
  }

  pause(): void {
    this.#reads = false
    this.#socket?.pause()
  }

  resume(): void {
    this.#reads = true
    this.#socket?.resume()
  }

  end(): void {
    this.#ends = true
    this.#socket?.end()
  }

  reset(): void {
    this.#socket?.reset()
    this.#abandon()
  }

  close(): void {
    this.#socket?.close()
    this.#abandon()
  }
}

/**
 * OperatingSystem.adoptConnection on that for connected descriptors.
 * @param adopt takes a connected descriptor
 */
export const adoptConnecting =
  (adopt: OperatingSystem['adoptConnection']): OperatingSystem['adoptConnection'] =>
  (fd, handlers, onOpen) =>
    new AdoptedConnection(fd, handlers, onOpen, adopt)
