/** The command that starts this program, for the user to copy into a shell. */

import type { CommandConsole, Runtime } from '../../runtime.ts'
import { PROGRAM } from '../../version.ts'
import { CommandError } from './command.ts'

const PLAIN_WORD = /^[\w@%+=:,./-]+$/

/** A word, quoted for a POSIX shell if necessary. */
export const shellWord = (text: string): string => (PLAIN_WORD.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)

/** @throws CommandError */
export function consoleOf(runtime: Runtime): CommandConsole {
  if (runtime.commandConsole === undefined) throw new CommandError('not available on this system')
  return runtime.commandConsole
}

/** An executable: its name if that finds it, otherwise its path. */
function executableOf(path: string, directory: string, searched = ''): string {
  if (searched.split(':').some((folder) => `${folder}/${PROGRAM}` === path)) return PROGRAM
  return shellWord(path.startsWith(`${directory}/`) ? `.${path.slice(directory.length)}` : path)
}

/** The command that starts this program: its name if it is installed, otherwise runtime and script. */
export function invocationOf(runtime: Runtime): string {
  const { started, directory } = consoleOf(runtime)
  const { command, words = [], script } = started
  if (script === '') return executableOf(command, directory, runtime.os?.env('PATH'))
  if (script.split(/[\\/]/).at(-1) === PROGRAM) {
    // npx and bunx install the program outside of PATH
    if (runtime.os?.env('npm_command') !== 'exec') return PROGRAM
    return `${runtime.name === 'bun' ? 'bunx --bun' : 'npx'} ${PROGRAM}`
  }
  const shown = script.startsWith(`${directory}/`) ? script.slice(directory.length + 1) : script
  return [command, ...words, shown].map(shellWord).join(' ')
}
