/**
 * Interface and runner of a subcommand (`kcptun-wasm NAME ...`), from its arguments to its exit status. The subcommands
 * are listed in `table.ts`.
 */

import type { RuntimeCrypto } from '../../crypto/open.ts'
import { ConfigError, codeOf, messageOf } from '../../errors.ts'
import type { Runtime } from '../../runtime.ts'
import { readRemedy } from '../../service/identity.ts'
import { PROGRAM } from '../../version.ts'
import { type Given, type Offers, type Option, optionsText, parseOptions } from '../options.ts'

/** All options and subcommands of the command line. */
export interface CommandLine {
  /** The options that are valid without a subcommand. */
  readonly main: readonly Option[]
  readonly entries: readonly CommandEntry[]
}

export interface CommandContext {
  readonly runtime: Runtime
  /** The runtime's ciphers. */
  readonly crypto: RuntimeCrypto
  readonly commandLine: CommandLine
}

/** A subcommand; its file exports it as `command`. */
export interface Command {
  /** Options, excluding -h and --help, which every subcommand has. */
  readonly options: readonly Option[]
  /** The operand as shown in usage texts (`<shell>`), and how many there may be (1); absent = none. */
  readonly operand?: { readonly name: string; readonly offers: Offers; readonly most?: number }
  /** Further lines of the usage text, after the options. */
  readonly notes?: string
  /**
   * Executes the subcommand.
   * @returns exit status
   * @throws CommandError, ConfigError: one line on stderr and status 1
   */
  run(context: CommandContext, given: Given): Promise<number>
}

/** A failure of a subcommand. The message is meant for the user and printed without a stack trace. */
export class CommandError extends Error {
  override name = 'CommandError'
}

/** An entry of the subcommand table. The implementation is loaded on demand. */
export interface CommandEntry {
  readonly name: string
  /** One line for the usage text and shell completions. */
  readonly summary: string
  load(): Promise<{ readonly command: Command }>
}

/** @returns the config file of the arguments @throws CommandError without one */
export function configPath(given: Given): string {
  const path = given.values.get('--config') ?? given.operands[0]
  if (path === undefined) {
    throw new CommandError(`no config file: start with "${PROGRAM} init", or pass one with -c`)
  }
  return path
}

/**
 * Reads a config file.
 * @throws CommandError that names the file and what to do
 */
export async function readConfigFile(runtime: Runtime, path: string): Promise<Uint8Array> {
  try {
    return await runtime.readFile(path)
  } catch (error) {
    const isMissing = codeOf(error) === 'ENOENT'
    const reason = isMissing ? `no such file (ENOENT); "${PROGRAM} init" writes one` : messageOf(error)
    throw new CommandError(`config file ${path}: ${reason}${readRemedy(error, runtime.os, path)}`)
  }
}

/** Of commands that are about one tunnel. */
export const TUNNEL: Option = { long: '--tunnel', value: '<name>', help: 'which tunnel, if the file has several' }

export const HELP: Option = { long: '--help', short: '-h', help: 'print this help and exit' }

export function commandUsage({ name, summary }: CommandEntry, command: Command): string {
  const operand = command.operand === undefined ? '' : ` ${command.operand.name}`
  const notes = command.notes === undefined ? '' : `\n${command.notes}\n`
  const options = optionsText([HELP, ...command.options])
  return `usage: ${PROGRAM} ${name} [option]...${operand}\n${summary}\n\noptions:\n${options}${notes}`
}

/**
 * Runs a subcommand. The help text goes to stdout, errors go to stderr.
 * @param words the words after the name of the subcommand
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
  const hint = `see "${PROGRAM} ${entry.name} --help"`
  const given = parseOptions([HELP, ...command.options], words)
  if (typeof given === 'string') return refuse(`${given}; ${hint}`)
  if (given.flags.has(HELP.long)) {
    runtime.print('stdout', commandUsage(entry, command))
    return 0
  }
  // a config file needs no -c
  const isConfig = command.options.some(({ long }) => long === '--config') && !given.values.has('--config')
  const most = command.operand?.most ?? (command.operand === undefined && !isConfig ? 0 : 1)
  const stray = given.operands[most]
  if (stray !== undefined) return refuse(`unexpected argument: ${JSON.stringify(stray)}; ${hint}`)
  try {
    return await command.run(context, given)
  } catch (error) {
    if (error instanceof CommandError || error instanceof ConfigError) return refuse(error.message)
    throw error
  }
}
