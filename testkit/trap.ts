/** Programs whose engine traps on demand. */
import { join } from 'node:path'
import { commandOf, type Program, projectRoot, type Running } from './process.ts'
import { waitFor } from './wait.ts'

/** More than the time between two pings of an idle end. */
const TRAP_MS = 30_000

/** The command of a program that loads trap-hook.mjs first. */
export function fragileCommand(program: Program): readonly string[] {
  const [runtime, ...script] = commandOf(program)
  const option = program === 'bun' ? '--preload' : '--import'
  return [runtime, option, join(projectRoot, 'testkit/trap-hook.mjs'), ...script]
}

/**
 * Makes a process trap, and waits until it did. An idle one does so at its next ping, or when `provoke` wakes it.
 * @param pid of the process, or of one of its workers
 */
export async function trap(running: Running, pid = running.pid, provoke?: () => void): Promise<void> {
  const count = (): number => running.log().match(/the engine trapped: /g)?.length ?? 0
  const before = count()
  process.kill(pid, 'SIGUSR2')
  const timer = provoke && setInterval(provoke, 100)
  try {
    await waitFor('the trap', () => count() > before, TRAP_MS, running.log)
  } finally {
    clearInterval(timer)
  }
}
