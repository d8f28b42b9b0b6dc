/**
 * A log file. Lines are appended in the background, so that a disk that stalls holds up nothing else; those that wait
 * are bounded. An error is reported on standard error at once, and in the file when it is over.
 */

import { codeOf, messageOf } from '../errors.ts'
import { formatDuration } from '../format.ts'
import type { Clock, LogFileCalls } from '../runtime.ts'
import type { FileWriter, Log } from './log.ts'

/** Lines that wait while others are written, UTF-16 units. */
const WAITING_MAX = 262_144
/** Pause after an error, and after a FIFO was full, ms. */
const RETRY_MS = 1000
const FULL_MS = 100
/** How long the end of the process waits for the last lines, ms. */
const LAST_LINES_MS = 1000

const NEWLINE = 10
const SLOW = 'the log file is written too slowly'

/** An open log file. */
export class LogFile implements FileWriter {
  readonly #calls: LogFileCalls
  readonly #clock: Clock
  readonly #log: Log
  #path: string
  #fd: number
  /** Opened in its place; what was logged before is written first. */
  #next: number | undefined
  #waiting: string[] = []
  #waitingLength = 0
  /** Being written. */
  #chunk: Uint8Array<ArrayBuffer> = new Uint8Array(0)
  /** Whether the last write ended within a line. */
  #isCut = false
  /** When the write under way began. */
  #busySince: number | undefined
  /** Whether a retry is pending. */
  #isPaused = false
  #failure = ''
  #failedAt = 0
  #onIdle: (() => void)[] = []
  /** Whether this process created it. */
  isNew: boolean
  reason = SLOW

  /** @throws Error if it cannot be opened */
  constructor(calls: LogFileCalls, clock: Clock, log: Log, path: string) {
    this.#calls = calls
    this.#clock = clock
    this.#log = log
    this.#path = path
    const { fd, isNew } = calls.open(path)
    this.#fd = fd
    this.isNew = isNew
  }

  get path(): string {
    return this.#path
  }

  /**
   * Opens the file again, or another one, for the lines from now on.
   * @throws Error if it cannot be opened; lines go where they went before
   */
  reopen(path = this.#path): void {
    const { fd, isNew } = this.#calls.open(path)
    this.#path = path
    this.isNew = isNew
    if (this.#next !== undefined) this.#calls.close(this.#next)
    this.#next = fd
    if (this.#busySince === undefined) {
      this.#switch()
      return
    }
    const waiting = this.#takeWaiting()
    const whole = new Uint8Array(this.#chunk.length + waiting.length)
    whole.set(this.#chunk)
    whole.set(waiting, this.#chunk.length)
    this.#chunk = whole
  }

  /** Ends the use of the file, after the lines that were logged. */
  async close(): Promise<void> {
    await this.flush()
    if (this.#busySince !== undefined) return
    if (this.#fd >= 0) this.#calls.close(this.#fd)
    this.#fd = -1
  }

  setOwner(uid: number | undefined, gid: number | undefined): void {
    this.#calls.setOwner(this.#next ?? this.#fd, uid, gid)
  }

  write(line: string): boolean {
    if (this.#waitingLength + line.length > WAITING_MAX) {
      this.reason = this.#failure === '' ? SLOW : `the log file could not be written: ${this.#failure}`
      return false
    }
    this.#waiting.push(line)
    this.#waitingLength += line.length
    this.#pump()
    return true
  }

  /** Resolves when all lines are written, or cannot be soon. */
  flush(): Promise<void> {
    if (this.#busySince === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onIdle.push(resolve)
      this.#clock.setTimer(resolve, LAST_LINES_MS)
    })
  }

  #takeWaiting(): Uint8Array<ArrayBuffer> {
    const bytes = new TextEncoder().encode(this.#waiting.join(''))
    this.#waiting = []
    this.#waitingLength = 0
    return bytes
  }

  #pump(): void {
    if (this.#busySince !== undefined || this.#isPaused || this.#fd < 0) return
    if (this.#chunk.length === 0) this.#chunk = this.#takeWaiting()
    if (this.#chunk.length === 0) {
      this.#idle()
      return
    }
    this.#busySince = this.#clock.monotonic()
    this.#calls.write(this.#fd, this.#chunk, (error, written) => this.#onWritten(error, written))
  }

  #idle(): void {
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  #onWritten(error: Error | null, written: number): void {
    this.#busySince = undefined
    // also before an error
    if (written > 0) this.#isCut = this.#chunk[written - 1] !== NEWLINE
    this.#chunk = this.#chunk.subarray(written)
    if (error === null) {
      if (this.#next !== undefined && this.#chunk.length === 0) this.#switch()
      this.#recovered()
      this.#pump()
      return
    }
    const isFull = codeOf(error) === 'EAGAIN'
    if (!isFull) this.#failed(messageOf(error))
    this.#idle()
    if (this.#next !== undefined) {
      this.#switch()
      return
    }
    this.#isPaused = true
    this.#clock.setTimer(
      () => {
        this.#isPaused = false
        this.#pump()
      },
      isFull ? FULL_MS : RETRY_MS,
    )
  }

  /** Goes on in the file opened last. */
  #switch(): void {
    if (this.#next === undefined) return
    // the rest of a line belongs to the old file
    if (this.#isCut) this.#chunk = this.#chunk.subarray(this.#chunk.indexOf(NEWLINE) + 1)
    this.#isCut = false
    this.#calls.close(this.#fd)
    this.#fd = this.#next
    this.#next = undefined
    this.#isPaused = false
    this.#pump()
  }

  #failed(message: string): void {
    if (this.#failure === '') {
      this.#failedAt = this.#clock.monotonic()
      this.#log.fileFailed(`the log file ${this.#path} cannot be written: ${message}`)
    }
    this.#failure = message
  }

  #recovered(): void {
    if (this.#failure === '') return
    const duration = formatDuration(this.#clock.monotonic() - this.#failedAt)
    const text = `the log file could not be written for ${duration}: ${this.#failure}`
    this.#failure = ''
    this.#log.warning(text)
  }

  /** At the end of the process, where nothing in the background follows. */
  writeLast(): void {
    const isStuck = this.#busySince !== undefined && this.#clock.monotonic() - this.#busySince > LAST_LINES_MS
    if (isStuck || this.#fd < 0) return
    const chunk = this.#busySince === undefined ? this.#chunk : new Uint8Array(0)
    try {
      this.#calls.writeNow(this.#fd, chunk)
      this.#calls.writeNow(this.#next ?? this.#fd, this.#takeWaiting())
    } catch {
      // nowhere to report it
    }
  }
}
