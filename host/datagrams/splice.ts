/** A flow on a TCP connection, for a tunnel of another program: `udp-wrap` and `udp-unwrap`. */

import type { SystemError } from '../errors.ts'
import type { QueuedBytes, TcpConnection, TcpHandlers } from '../runtime.ts'

/** The runtime queues no more than this: datagrams that wait are to be dropped, not kept. */
const QUEUE_BYTES = 16384

/** Handlers of a TCP connection that carries a flow; `ofFlow` are those of the flow. */
export class Splice implements TcpHandlers {
  readonly held: QueuedBytes = { toTcp: 0, fromTcp: 0, queueLimit: QUEUE_BYTES }
  /** One side is gone, perhaps before the other was there. */
  onOver: () => void = () => {}
  #connection: TcpConnection | undefined
  #flow: TcpConnection | undefined
  /** The rest of a frame that the connection did not take. */
  #rest: Uint8Array | undefined
  #isFlowEnded = false

  /** Both sides are there. */
  join(connection: TcpConnection, flow: TcpConnection): void {
    this.#connection = connection
    this.#flow = flow
    connection.resume()
    flow.resume()
    if (this.#isFlowEnded) connection.end()
  }

  // The connection's events

  onData(chunk: Uint8Array): void {
    this.#flow?.write(chunk, chunk.length)
  }

  onEnd(): void {
    this.#flow?.end()
  }

  onDrain(): void {
    const rest = this.#rest
    this.#rest = undefined
    if (rest !== undefined) this.#write(rest)
    if (this.#rest !== undefined) return
    if (this.#isFlowEnded) this.#connection?.end()
    else this.#flow?.resume()
  }

  onClose(error?: SystemError): void {
    this.#connection = undefined
    this.#flow?.reset(error?.message ?? 'ended')
    this.onOver()
  }

  readonly ofFlow: TcpHandlers = {
    onData: (frame) => this.#write(frame),
    onEnd: () => {
      this.#isFlowEnded = true
      if (this.#rest === undefined) this.#connection?.end()
    },
    onDrain() {},
    // both directions ended, and the connection with them
    onClose() {},
    onReset: () => {
      this.#connection?.reset()
      this.#connection = undefined
      this.onOver()
    },
  }

  #write(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length && this.#connection !== undefined) {
      const buffer = this.#connection.writeBuffer()
      const part = Math.min(buffer.length, bytes.length - at)
      buffer.set(bytes.subarray(at, at + part))
      const taken = this.#connection.write(buffer, part)
      at += taken
      if (taken === part) continue
      this.#rest = bytes.slice(at)
      this.#flow?.pause()
      return
    }
  }
}
