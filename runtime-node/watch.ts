/**
 * Descriptors of system calls on libuv's loop, by uv_poll through koffi. A socket error (ENETDOWN of a packet socket whose
 * interface went down) stops a uv_poll; it goes on once the owner has read the error, which clears it.
 */
import type { Watch } from '../host/runtime.ts'
import { loadKoffi } from './ffi.ts'

type Poll = ReturnType<ReturnType<typeof loadKoffi>['node']['poll']>

const READABLE = { readable: true } as const

/** Handles in use: an unreferenced one is garbage collected, and its events with it. */
const handles = new Set<Poll>()

/** See OperatingSystem.watch. @throws NotAvailable */
export function watch(fd: number, onReadable: (first?: Uint8Array) => void): Watch {
  let handle: Poll | undefined
  // koffi calls back with a status, 0 or -errno, and the events; its types know only those
  const onEvent = (status: unknown): void => {
    if (handle !== undefined) onReadable()
    if (status !== 0) handle?.start(READABLE, onEvent)
  }
  handle = loadKoffi().node.poll(fd, READABLE, onEvent)
  handles.add(handle)
  return {
    close() {
      if (handle === undefined) return
      handles.delete(handle)
      handle.close()
      handle = undefined
    },
  }
}
