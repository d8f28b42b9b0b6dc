/** The target of a server that listens on a Unix socket. */

import type { Dial, Dialling } from '../driver/stream.ts'
import { ConfigError, codeOf, quote, type SystemError } from '../errors.ts'
import { unixText } from '../net/unix-path.ts'
import type { Runtime, TcpConnection, Timer } from '../runtime.ts'

/**
 * While its backlog is full a Unix socket refuses at once, where TCP waits: it is tried again for this time, ms, with
 * pauses from the first to the longest.
 */
const BUSY_MS = 10_000
const BUSY_FIRST_MS = 10
const BUSY_LONGEST_MS = 320

/** What a user calls these errors. */
const FAILURES: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'refuses the connection: no program listens there',
  ENOENT: 'does not exist',
  EACCES: 'does not permit it: check its mode and owner',
  EPERM: 'does not permit it: check its mode and owner',
  // the backlog is full
  EAGAIN: 'accepts no connections',
}

/** What is wrong with a dial of a Unix socket, with its path. */
export function unixFailure(path: string, error: SystemError | undefined): SystemError {
  const code = codeOf(error)
  const words = FAILURES[code]
  const why = words === undefined ? `: ${error?.message ?? 'closed'}` : ` ${words} (${code})`
  return Object.assign(new Error(`${unixText(path)}${why}`, { cause: error }), code === '' ? {} : { code })
}

export class UnixTarget {
  readonly failure = undefined
  readonly #runtime: Runtime
  readonly #path: string

  constructor(runtime: Runtime, path: string) {
    this.#runtime = runtime
    this.#path = path
  }

  /** @throws ConfigError where there are no Unix sockets */
  async open(): Promise<void> {
    if (this.#runtime.unix !== undefined) return
    throw new ConfigError('connect', quote(unixText(this.#path)), 'this system has no Unix sockets')
  }

  close(): void {}

  dial(dialling: Dialling): Dial {
    const { unix, clock } = this.#runtime
    if (unix === undefined) throw new Error('no Unix sockets')
    const begunAt = clock.monotonic()
    let pause = BUSY_FIRST_MS
    let connection: TcpConnection
    let timer: Timer | undefined
    const onClose = (error?: SystemError): void => {
      if (codeOf(error) === 'EAGAIN' && clock.monotonic() - begunAt < BUSY_MS) {
        timer = clock.setTimer(attempt, pause)
        pause = Math.min(2 * pause, BUSY_LONGEST_MS)
      } else dialling.onFailed(unixFailure(this.#path, error))
    }
    const attempt = (): void => {
      const handlers = { onData() {}, onEnd() {}, onDrain() {}, onClose }
      connection = unix.dial(this.#path, handlers, () => dialling.onOpen(connection))
    }
    attempt()
    return {
      cancel() {
        clock.clearTimer(timer)
        connection.reset()
      },
    }
  }
}
