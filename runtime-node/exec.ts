/** Starts this program again in the same process (execv), with other options of Node. */
import { needsOption, runtimeOptions } from '../runtime-shared/address-space.ts'
import { libc, loadKoffi } from './ffi.ts'

const F_SETFD = 2
const STANDARD_STREAMS = [0, 1, 2]

/**
 * See Runtime.prepareMemory. Returns if nothing is to be done, or nothing can be: the engine reports the limit when it
 * starts. Call it while no socket is open.
 */
export function prepareMemory(): void {
  if (process.platform !== 'linux' || !needsOption()) return
  try {
    const execv = loadKoffi().load(null).func('int execv(const char *path, const char **words)')
    // Node set FD_CLOEXEC on them when it started
    for (const fd of STANDARD_STREAMS) libc().fcntl(fd, F_SETFD, 0)
    execv(process.execPath, [process.execPath, ...runtimeOptions(), ...process.argv.slice(1), null])
  } catch {
    // koffi is not available
  }
}
