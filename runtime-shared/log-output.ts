/**
 * Standard output and standard error as log outputs: a write never waits for the reader. O_NONBLOCK is a property of
 * the open file, which the processes that started this one share, so it is not set there: pipes and terminals are
 * opened again through /proc, with an open file of our own. What cannot be opened again (sockets, files of another
 * user) is written to only while poll(2) reports room, or are made non-blocking where it cannot be called.
 */
import { constants, fstatSync, openSync, writeSync } from 'node:fs'
import { codeOf } from '../host/errors.ts'
import type { Syscalls } from '../host/linux/syscalls.ts'
import type { LogPrint } from '../host/runtime.ts'

/** Bytes that a pipe takes without waiting when poll(2) reports room (PIPE_BUF of Linux). */
const PIPE_BYTES = 4096

const DESCRIPTORS = { stdout: 1, stderr: 2 } as const

/** A descriptor, and whether a write to it may take `length` bytes without waiting. */
interface Target {
  readonly fd: number
  /** Most bytes of one write. */
  readonly chunk: number
  hasRoom(): boolean
}

const always = (): boolean => true

function openAgain(path: string): number | undefined {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch {
    return undefined
  }
}

function targetOf(fd: number, syscalls: (() => Syscalls) | undefined): Target {
  const inherited: Target = { fd, chunk: Number.POSITIVE_INFINITY, hasRoom: always }
  if (process.platform !== 'linux') return inherited
  try {
    const stat = fstatSync(fd)
    // a file takes every write, and an open file of our own would have an offset of its own
    if (stat.isFile()) return inherited
    const isTerminal = stat.isCharacterDevice()
    // the controlling terminal may be opened by every user, unlike its device
    const own = stat.isSocket()
      ? undefined
      : (openAgain(`/proc/self/fd/${fd}`) ?? (isTerminal ? openAgain('/dev/tty') : undefined))
    if (own !== undefined) return { ...inherited, fd: own }
    return polled(fd, syscalls) ?? nonBlocking(inherited)
  } catch {
    // closed
    return inherited
  }
}

function polled(fd: number, syscalls: (() => Syscalls) | undefined): Target | undefined {
  try {
    const calls = syscalls?.()
    if (calls === undefined) return undefined
    return { fd, chunk: PIPE_BYTES, hasRoom: () => calls.isWritable(fd) }
  } catch {
    return undefined
  }
}

function nonBlocking(target: Target): Target {
  // both runtimes make the descriptor non-blocking when they create the stream, which the getter does
  void (target.fd === DESCRIPTORS.stdout ? process.stdout : process.stderr)
  return target
}

/** One standard stream. */
class LogStream {
  readonly #target: Target
  /** The rest of a line of which a part was written. */
  #rest = new Uint8Array(0)

  constructor(target: Target) {
    this.#target = target
  }

  /** Writes a line. @returns false if it is dropped: the reader is slow */
  write(text: string): boolean {
    if (!this.#flush()) return false
    const line = new TextEncoder().encode(text)
    const written = this.#put(line)
    if (written === 0) return false
    // completed before the next line
    this.#rest = line.subarray(written)
    return true
  }

  #flush(): boolean {
    this.#rest = this.#rest.subarray(this.#put(this.#rest))
    return this.#rest.length === 0
  }

  /** @returns bytes written, all if the reader is gone: nobody misses them */
  #put(bytes: Uint8Array): number {
    const { fd, chunk, hasRoom } = this.#target
    let written = 0
    try {
      while (written < bytes.length && hasRoom()) {
        written += writeSync(fd, bytes, written, Math.min(bytes.length - written, chunk))
      }
      return written
    } catch (error) {
      return codeOf(error) === 'EAGAIN' ? written : bytes.length
    }
  }
}

/**
 * Opens both streams. Call it before the identity of the process changes.
 * @param syscalls for poll(2); undefined: native code is not to be loaded for this
 */
export function openLogOutput(syscalls: (() => Syscalls) | undefined): LogPrint {
  const open = (stream: keyof typeof DESCRIPTORS): LogStream => new LogStream(targetOf(DESCRIPTORS[stream], syscalls))
  const streams = { stdout: open('stdout'), stderr: open('stderr') }
  return (stream, text) => streams[stream].write(text)
}
