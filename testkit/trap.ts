/** Programs whose engine traps on demand. */
import { join } from 'node:path'
import { commandOf, type Program, projectRoot, type Running } from './process.ts'
import { waitFor } from './wait.ts'

/** More than the interval of pings of an idle endpoint. */
const TRAP_MS = 30_000

/** Command of a program with trap-hook.mjs preloaded. */
export function fragileCommand(program: Program): readonly string[] {
  const [runtime, ...script] = commandOf(program)
  const option = program === 'bun' ? '--preload' : '--import'
  return [runtime, option, join(projectRoot, 'testkit/trap-hook.mjs'), ...script]
}

/**
 * Makes the engine of a process trap and waits for the log line. An idle engine traps at its next ping, or when
 * `provoke` wakes it up.
 * @param pid of the process, or of one of its workers
 */
export async function trap(running: Running, pid = running.pid, provoke?: () => void): Promise<void> {
  const count = (): number => running.log().match(/the engine trapped: /g)?.length ?? 0
  const before = count()
  process.kill(pid, 'SIGUSR2')
  const timer = provoke && setInterval(provoke, 100)
  try {
    await waitFor('the engine trapped', () => count() > before, TRAP_MS, running.log)
  } finally {
    clearInterval(timer)
  }
}
