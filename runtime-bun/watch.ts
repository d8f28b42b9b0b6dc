/**
 * Descriptors of system calls on Bun's loop. Bun.connect takes any descriptor for a stream of its own, so it gets a
 * duplicate: it reads the first datagram of a wake-up, the owner the rest by system calls. It gives the duplicate up after
 * a socket error (ENETDOWN of a packet socket whose interface went down) and after a datagram without bytes; then it gets
 * another one.
 */
import type { Socket } from 'bun'
import type { Watch } from '../host/runtime.ts'
import { descriptor, syscalls } from './ffi.ts'

/** The next duplicate comes after this time: an error that does not go away must not spin. */
const REARM_MS = 10

/** See OperatingSystem.watch. @throws NotAvailable */
export function watch(fd: number, onReadable: (first?: Uint8Array) => void): Watch {
  const calls = syscalls()
  let closed = false
  let current: Socket | undefined
  let rearm: ReturnType<typeof setTimeout> | undefined
  const again = (): void => {
    current = undefined
    if (!closed) rearm = setTimeout(arm, REARM_MS)
  }
  const arm = (): void => {
    let copy: number
    try {
      copy = calls.duplicate(fd)
    } catch {
      // no descriptor is left: try again
      again()
      return
    }
    Bun.connect({
      ...descriptor(copy),
      socket: {
        binaryType: 'uint8array',
        open(socket) {
          if (closed) socket.terminate()
          else current = socket
        },
        data(_, first: Uint8Array) {
          if (!closed) onReadable(first)
        },
        close: again,
        error(_, error) {
          // the owner threw: that is a bug and must show as one
          queueMicrotask(() => {
            throw error
          })
        },
      },
    }).catch(again)
    // what arrived while nothing watched, or an error
    if (!closed && rearm !== undefined) onReadable()
  }
  arm()
  return {
    close() {
      closed = true
      clearTimeout(rearm)
      current?.terminate()
      current = undefined
    },
  }
}

/** A timer that never fires but keeps the event loop, ms: a signal handler does not. */
const KEEP_MS = 0x7fffffff

/** Callbacks of SIGIO, which does not say where something arrived. */
const arrivals = new Set<() => void>()

const onSignal = (): void => {
  for (const onReadable of arrivals) onReadable()
}

/**
 * Calls back whenever something arrives at a socket, by SIGIO, and takes nothing off it: what Bun.connect reads comes without
 * its sender and the size of its segments.
 */
export function watchArrivals(fd: number, onReadable: () => void): Watch {
  // the handler stays for good: without one the signal ends the process
  if (!process.listeners('SIGIO').includes(onSignal)) process.on('SIGIO', onSignal)
  arrivals.add(onReadable)
  const keep = setInterval(() => {}, KEEP_MS)
  syscalls().signalArrivals(fd, process.pid)
  // for what came before
  const begin = setImmediate(onReadable)
  return {
    close() {
      arrivals.delete(onReadable)
      clearInterval(keep)
      clearImmediate(begin)
    },
  }
}
