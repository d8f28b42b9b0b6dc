/**
 * Watches descriptors on Bun's loop. Bun.connect treats any descriptor as its own stream, so it gets a duplicate: it
 * reads the first datagram of a wake-up, and the owner reads the rest by system calls. Bun closes the duplicate after a
 * socket error (ENETDOWN of a packet socket whose interface went down) and after an empty datagram; it then gets a new
 * one.
 */
import type { Socket } from 'bun'
import type { Watch } from '../host/runtime.ts'
import { descriptor, syscalls } from './ffi.ts'

/** Delay before the next duplicate, ms, so that a persistent error does not cause a busy loop. */
const REARM_MS = 10

/**
 * See OperatingSystem.watch.
 * @throws NotAvailable
 */
export function watch(fd: number, onReadable: (first?: Uint8Array) => void): Watch {
  const calls = syscalls()
  let closed = false
  let current: Socket | undefined
  let rearm: ReturnType<typeof setTimeout> | undefined
  let isKept = true
  const again = (): void => {
    current = undefined
    if (!closed) rearm = setTimeout(arm, REARM_MS)
  }
  const arm = (): void => {
    let copy: number
    try {
      copy = calls.duplicate(fd)
    } catch {
      // out of descriptors: retry
      again()
      return
    }
    Bun.connect({
      ...descriptor(copy),
      socket: {
        binaryType: 'uint8array',
        open(socket) {
          if (closed) {
            socket.terminate()
            return
          }
          current = socket
          if (!isKept) socket.unref()
        },
        data(_, first: Uint8Array) {
          if (!closed) onReadable(first)
        },
        close: again,
        error(_, error) {
          // the owner threw: make the bug visible
          queueMicrotask(() => {
            throw error
          })
        },
      },
    }).catch(again)
    // for data or an error that arrived while unwatched
    if (!closed && rearm !== undefined) onReadable()
  }
  arm()
  return {
    keepAlive(isWanted) {
      isKept = isWanted
      if (isKept) current?.ref()
      else current?.unref()
    },
    close() {
      closed = true
      clearTimeout(rearm)
      current?.terminate()
      current = undefined
    },
  }
}

/** Interval of a timer that only keeps the event loop alive, ms: a signal handler does not. */
const KEEP_MS = 0x7fffffff

/** Callbacks of SIGIO, which does not identify the socket. */
const arrivals = new Set<() => void>()

const onSignal = (): void => {
  for (const onReadable of arrivals) onReadable()
}

/**
 * Calls back by SIGIO when data arrives at a socket, without reading it: Bun.connect would lose the sender and the
 * segment size.
 */
export function watchArrivals(fd: number, onReadable: () => void): Watch {
  // the handler is never removed: without one the signal ends the process
  if (!process.listeners('SIGIO').includes(onSignal)) process.on('SIGIO', onSignal)
  arrivals.add(onReadable)
  const keep = setInterval(() => {}, KEEP_MS)
  syscalls().signalArrivals(fd, process.pid)
  // for data that arrived before
  let begin = setImmediate(onReadable)
  return {
    pause() {
      arrivals.delete(onReadable)
      syscalls().ignoreArrivals(fd)
    },
    resume() {
      arrivals.add(onReadable)
      syscalls().signalArrivals(fd, process.pid)
      // no signal for what arrived meanwhile
      clearImmediate(begin)
      begin = setImmediate(onReadable)
    },
    keepAlive(isKept) {
      if (isKept) keep.ref()
      else keep.unref()
    },
    close() {
      arrivals.delete(onReadable)
      clearInterval(keep)
      clearImmediate(begin)
    },
  }
}
