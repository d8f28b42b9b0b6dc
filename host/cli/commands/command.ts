/**
 * What a subcommand is (`kcptun-wasm NAME ...`), and the way from the words behind its name to its exit status. Which
 * ones exist is defined in `table.ts`.
 */

import type { RuntimeCrypto } from '../../crypto/open.ts'
import { ConfigError } from '../../errors.ts'
import type { Runtime } from '../../runtime.ts'
import { PROGRAM } from '../../version.ts'
import { type Given, type Offers, type Option, optionsText, parseOptions } from '../options.ts'

/** Everything that can stand on the command line. */
export interface CommandLine {
  /** The options that stand without a subcommand. */
  readonly main: readonly Option[]
  readonly entries: readonly CommandEntry[]
}

export interface CommandContext {
  readonly runtime: Runtime
  /** The runtime's ciphers. */
  readonly crypto: RuntimeCrypto
  readonly commandLine: CommandLine
}

/** What each file of a subcommand exports as `command`. */
export interface Command {
  /** Without -h, --help, which every command has. */
  readonly options: readonly Option[]
  /** The words it takes beside options, as in usage texts (`<shell>`); absent = none. */
  readonly operand?: { readonly name: string; readonly offers: Offers }
  /** Further lines of the usage text, behind the options. */
  readonly notes?: string
  /**
   * Does it.
   * @returns exit status, 0 or 1
   * @throws CommandError, ConfigError: one line on stderr and status 1
   */
  run(context: CommandContext, given: Given): Promise<number>
}

/** Why a command cannot go on, for people; printed without a stack trace. */
export class CommandError extends Error {
  override name = 'CommandError'
}

/** An entry of the table. The file behind it is loaded only when it is wanted. */
export interface CommandEntry {
  readonly name: string
  /** One line for the usage text and for shells. */
  readonly summary: string
  load(): Promise<{ readonly command: Command }>
}

export const HELP: Option = { long: '--help', short: '-h', help: 'show this and exit' }

export function commandUsage({ name, summary }: CommandEntry, command: Command): string {
  const operand = command.operand === undefined ? '' : ` ${command.operand.name}`
  const notes = command.notes === undefined ? '' : `\n${command.notes}\n`
  const options = optionsText([HELP, ...command.options])
  return `usage: ${PROGRAM} ${name} [option]...${operand}\n${summary}\n\noptions:\n${options}${notes}`
}

/**
 * Runs a command: asked-for help to stdout, errors to stderr.
 * @param words the words behind the command's name
 * @returns exit status
 */
export async function runCommand(
  context: CommandContext,
  entry: CommandEntry,
  words: readonly string[],
): Promise<number> {
  const { runtime } = context
  const { command } = await entry.load()
  const refuse = (text: string): number => {
    runtime.print('stderr', `${PROGRAM} ${entry.name}: ${text}\n`)
    return 1
  }
  const hint = `"${PROGRAM} ${entry.name} --help" shows the usage`
  const given = parseOptions([HELP, ...command.options], words)
  if (typeof given === 'string') return refuse(`${given}; ${hint}`)
  if (given.flags.has(HELP.long)) {
    runtime.print('stdout', commandUsage(entry, command))
    return 0
  }
  const [first, second] = given.operands
  const stray = command.operand === undefined ? first : second
  if (stray !== undefined) return refuse(`stray argument: ${JSON.stringify(stray)}; ${hint}`)
  try {
    return await command.run(context, given)
  } catch (error) {
    if (error instanceof CommandError || error instanceof ConfigError) return refuse(error.message)
    throw error
  }
}
