/**
 * Watches descriptors on libuv's loop with uv_poll through koffi. A socket error (ENETDOWN of a packet socket whose
 * interface went down) stops a uv_poll; it is restarted after the owner has read, and thereby cleared, the error.
 */
import type { Watch } from '../host/runtime.ts'
import { loadKoffi } from './ffi.ts'

type Poll = ReturnType<ReturnType<typeof loadKoffi>['node']['poll']>

const READABLE = { readable: true } as const

/** Active handles: an unreferenced handle is garbage collected and stops reporting. */
const handles = new Set<Poll>()

/** A handle that reports while the process ends, when no JavaScript may run, aborts it (koffi 3.3.4). */
function stopAll(): void {
  for (const handle of handles) handle.stop()
}

/**
 * See OperatingSystem.watch.
 * @throws NotAvailable
 */
export function watch(fd: number, onReadable: (first?: Uint8Array) => void): Watch {
  let handle: Poll | undefined
  // koffi passes a status (0 or -errno) and the events; its types declare only the events
  const onEvent = (status: unknown): void => {
    if (handle !== undefined) onReadable()
    if (status !== 0) handle?.start(READABLE, onEvent)
  }
  handle = loadKoffi().node.poll(fd, READABLE, onEvent)
  if (handles.size === 0) process.on('exit', stopAll)
  handles.add(handle)
  return {
    pause: () => handle?.stop(),
    resume: () => handle?.start(READABLE, onEvent),
    keepAlive(isKept) {
      if (isKept) handle?.ref()
      else handle?.unref()
    },
    close() {
      if (handle === undefined) return
      handles.delete(handle)
      if (handles.size === 0) process.off('exit', stopAll)
      handle.close()
      handle = undefined
    },
  }
}
