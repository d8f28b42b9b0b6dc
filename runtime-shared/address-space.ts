/**
 * V8 reserves 10 GiB of address space for each memory of WebAssembly, of which most is never touched: a guard that
 * replaces bounds checks. Below a limit of the address space (ulimit -v, LimitAS= of systemd) that fails, unless Node
 * is started with an option that makes it check bounds instead. JavaScriptCore does so by itself.
 */

/** In Node since 20.15 and 22.2. */
const OPTION = '--disable-wasm-trap-handler'

const PAGE: WebAssembly.MemoryDescriptor = { initial: 1 }

/** Whether this process was started with the option. */
export const isWithOption = (): boolean => process.execArgv.includes(OPTION)

/** Whether the engine's memory cannot be reserved here, but could be after a start with the option. */
export function needsOption(): boolean {
  if ('bun' in process.versions || isWithOption()) return false
  try {
    return new WebAssembly.Memory(PAGE).buffer.byteLength === 0
  } catch {
    return process.allowedNodeEnvironmentFlags.has(OPTION)
  }
}

/** Options of the runtime for another process of this program. */
export function runtimeOptions(): readonly string[] {
  return needsOption() ? [...process.execArgv, OPTION] : process.execArgv
}
