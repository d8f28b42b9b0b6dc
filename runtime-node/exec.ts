/** Starts this program again in the same process (execv), with other options of Node. */
import { readFileSync } from 'node:fs'
import { addressSpaceLimit, RAISE_LIMIT } from '../host/linux/address-space.ts'
import { isWithOption, needsOption } from '../runtime-shared/address-space.ts'
import { programWords } from '../runtime-shared/program.ts'
import { libc, loadKoffi } from './ffi.ts'

const F_SETFD = 2
const STANDARD_STREAMS = [0, 1, 2]
/** Below this limit of the address space, KiB, Node may abort at any time. */
const LEAST_KIB = 1_000_000
const files = { readText: (path: string): string => readFileSync(path, 'latin1') }

/**
 * See Runtime.prepareMemory. Returns if nothing is to be done, or nothing can be: the engine reports the limit when it
 * starts. Call it while no socket is open.
 */
export function prepareMemory(warn: (text: string) => void, mayRestart = true): void {
  if (process.platform !== 'linux' || isWithOption()) return
  const limit = addressSpaceLimit(files)
  // before anything else: V8 aborts the process when it gets no memory
  if (limit !== undefined && limit < LEAST_KIB)
    warn(`the address space is limited to ${limit} KiB, with which Node may abort: raise the limit (${RAISE_LIMIT})`)
  if (!mayRestart || !needsOption()) return
  try {
    const execv = loadKoffi().load(null).func('int execv(const char *path, const char **words)')
    // Node set FD_CLOEXEC on them when it started
    for (const fd of STANDARD_STREAMS) libc().fcntl(fd, F_SETFD, 0)
    execv(process.execPath, [process.execPath, ...programWords(), null])
  } catch {
    // koffi is not available
  }
}
