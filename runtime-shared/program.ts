/** How this program was started, and the words that start it again. */
import type { CommandConsole } from '../host/runtime.ts'
import { runtimeOptions } from './address-space.ts'

let isExecutable = false

/** Call it first where runtime and program are one file: there is no script, and options of the runtime are ours. */
export function becomeExecutable(): void {
  isExecutable = true
}

/** Whether runtime and program are one file. */
export const isOneFile = (): boolean => isExecutable

/** Arguments of `process.execPath` for another process of this program. */
export const programWords = (): string[] =>
  isExecutable ? process.argv.slice(2) : [...runtimeOptions(), ...process.argv.slice(1)]

/** See CommandConsole.started. */
export const started = (): CommandConsole['started'] =>
  isExecutable ? { command: process.execPath, script: '' } : { command: process.argv0, script: process.argv[1] ?? '' }
