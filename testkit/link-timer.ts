/**
 * Precise wake-ups for the link emulators: koffi, a timerfd, and memory for system calls.
 */
import { createRequire } from 'node:module'

/** Packets due within this time, in ms, are sent early; bounds the number of wake-ups. */
export const RELEASE_SLACK_MS = 0.2
const CLOCK_MONOTONIC = 1
const TFD_NONBLOCK = 0o4000
const TFD_CLOEXEC = 0o2000000

export type Koffi = typeof import('koffi')

/** The optional package koffi on Linux under Node; undefined elsewhere. */
export function loadKoffi(): Koffi | undefined {
  if (process.platform !== 'linux' || 'bun' in process.versions) return undefined
  try {
    return createRequire(import.meta.url)('koffi')
  } catch {
    return undefined
  }
}

/** The system calls of a Timer. */
export type TimerCalls = ReturnType<typeof timerCalls>

/** Binds the system calls of a Timer. */
export function timerCalls(koffi: Koffi) {
  const c = koffi.load(null)
  const number = (signature: string): ((...args: number[]) => number) => c.func(signature)
  return {
    address: (buffer: ArrayBuffer) => Number(koffi.address(buffer)),
    timerfdCreate: number('int timerfd_create(int, int)'),
    timerfdSettime: number('int timerfd_settime(int, int, uintptr_t, uintptr_t)'),
    read: number('intptr_t read(int, uintptr_t, size_t)'),
  }
}

/** A timerfd, more precise than the timers of the event loop. */
export class Timer {
  readonly fd: number
  readonly #calls: TimerCalls
  readonly #spec = new DataView(new ArrayBuffer(32))
  readonly #at: number
  #armedFor = Number.POSITIVE_INFINITY

  constructor(calls: TimerCalls) {
    this.#calls = calls
    this.#at = calls.address(this.#spec.buffer)
    this.fd = calls.timerfdCreate(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
  }

  /** Arms the timer for `due` (performance.now() time), unless it is armed for an earlier time. */
  arm(due: number, now: number): void {
    if (due >= this.#armedFor) return
    this.#armedFor = due
    const wait = Math.max(due - now, RELEASE_SLACK_MS)
    this.#spec.setInt32(16, Math.floor(wait / 1000), true)
    this.#spec.setInt32(24, Math.floor((wait % 1000) * 1e6), true)
    this.#calls.timerfdSettime(this.fd, 0, this.#at, 0)
  }

  /** After it fired. */
  clear(): void {
    this.#armedFor = Number.POSITIVE_INFINITY
    this.#calls.read(this.fd, this.#at, 8)
    this.#spec.setInt32(0, 0, true)
    this.#spec.setInt32(4, 0, true)
  }
}

/** The memory of a typed array. */
export function bufferOf(words: Uint32Array): ArrayBuffer {
  const { buffer } = words
  if (!(buffer instanceof ArrayBuffer)) throw new TypeError('not an ArrayBuffer')
  return buffer
}

/** Stores a 64-bit pointer in two words. */
export function setPointer(words: Uint32Array, at: number, pointer: number): void {
  words[at] = pointer >>> 0
  words[at + 1] = Math.floor(pointer / 2 ** 32)
}
