/**
 * Parses the command line (protocol.md 10.5) into one of a few requests. Pure: prints nothing, reads no files, never
 * exits.
 */

import { LOG_FORMATS, LOG_LEVEL_MAX, LOG_LEVEL_MIN, type LogFormat } from '../log/log.ts'
import type { CommandEntry, CommandLine } from './commands/command.ts'
import { COMMANDS, findCommand } from './commands/table.ts'
import { columns, findOption, type Option, optionsText } from './options.ts'

/** The parsed command line. `verbosity` is added to a log level by `adjustLevel`. */
export type Args =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | { readonly kind: 'list-methods' }
  /** A subcommand and its arguments. */
  | { readonly kind: 'command'; readonly entry: CommandEntry; readonly words: readonly string[] }
  | { readonly kind: 'genpsk'; readonly method: string; readonly verbosity: number }
  /** Print the firewall rule for a configuration. */
  | { readonly kind: 'obfs-firewall'; readonly config: string; readonly verbosity: number }
  | {
      readonly kind: 'run'
      readonly config: string
      readonly verbosity: number
      /** Overrides the config key `user`. */
      readonly user: string | undefined
      readonly daemonize: boolean
      readonly logFormat: LogFormat
    }
  | ArgsError

/** A rejected command line: log `message` as error, print the usage text to stderr if `usage`, exit with `status`. */
export interface ArgsError {
  readonly kind: 'error'
  readonly message: string
  readonly usage: boolean
  readonly status: 1
}

/** Options of the tunnel. */
const OPTIONS: readonly Option[] = [
  { long: '--help', short: '-h', help: 'print this help and exit' },
  { long: '--config', short: '-c', value: '<file>', help: 'JSON config file', offers: 'files' },
  { long: '--verbose', short: '-v', help: 'increase the log level, repeatable ("-v -v" for debug messages)' },
  { long: '--silence', short: '-s', help: 'decrease the log level, repeatable' },
  { long: '--user', short: '-u', value: '[user][:[group]]', help: 'switch to this identity after opening all sockets' },
  { long: '--daemonize', short: '-d', help: 'run in the background, log to syslog' },
  { long: '--log-format', value: '<format>', help: 'log format: plain (default) or json', offers: LOG_FORMATS },
  { long: '--obfs-firewall', help: 'print the firewall rule for obfs dpi/tcp and exit' },
  { long: '--version', help: 'print the version and exit' },
]

const CRYPTO_OPTIONS: readonly Option[] = [
  { long: '--list-methods', help: 'list the encryption methods and exit' },
  { long: '--genpsk', value: '<method>', help: 'print a random pre-shared key and exit', offers: 'methods' },
]

/** All options that are valid without a subcommand. */
export const MAIN_OPTIONS: readonly Option[] = [...OPTIONS, ...CRYPTO_OPTIONS]

/** All options and subcommands, for shell completions. */
export const COMMAND_LINE: CommandLine = { main: MAIN_OPTIONS, entries: COMMANDS }

/** The usage text, for stderr. @param program the program name to show */
export function usageText(program: string): string {
  return `usage: ${program} <option>...
       ${program} <command> [option]...
${optionsText(OPTIONS)}
crypto options:
${optionsText(CRYPTO_OPTIONS)}
commands ("${program} <command> --help" for details):
${columns(COMMANDS.map(({ name, summary }) => [name, summary]))}`
}

/** A log level adjusted by -v and -s, clamped to 0..8. */
export function adjustLevel(level: number, verbosity: number): number {
  return Math.min(Math.max(level + verbosity, LOG_LEVEL_MIN), LOG_LEVEL_MAX)
}

function refuse(message: string, usage: boolean): ArgsError {
  return { kind: 'error', message, usage, status: 1 }
}

/**
 * Parses the arguments. A subcommand is recognized only as the first word. Options are separate words, the last of a
 * repeated option wins, and `--` ends parsing: the rest is ignored.
 * @param argv the words after the program name
 */
export function parseArgs(argv: readonly string[]): Args {
  const entry = findCommand(argv[0])
  if (entry !== undefined) {
    return { kind: 'command', entry, words: argv.slice(1) }
  }
  let config: string | undefined
  let user: string | undefined
  let genpsk: string | undefined
  let daemonize = false
  let firewall = false
  let logFormat: LogFormat | undefined = 'plain'
  let verbosity = 0
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? ''
    if (word === '--') {
      break
    }
    const option = findOption(MAIN_OPTIONS, word)
    if (option === undefined) {
      return refuse(`unknown argument: ${JSON.stringify(word)}`, true)
    }
    const value = argv[index + 1]
    if (option.value !== undefined) {
      if (value === undefined) return refuse(`option ${word} requires an argument`, false)
      index += 1
    }
    switch (option.long) {
      // these take effect immediately
      case '--help':
        return { kind: 'help' }
      case '--version':
        return { kind: 'version' }
      case '--list-methods':
        return { kind: 'list-methods' }
      case '--verbose':
        verbosity += 1
        break
      case '--silence':
        verbosity -= 1
        break
      case '--daemonize':
        daemonize = true
        break
      case '--obfs-firewall':
        firewall = true
        break
      case '--config':
        config = value
        break
      case '--user':
        user = value
        break
      case '--genpsk':
        genpsk = value
        break
      case '--log-format':
        logFormat = LOG_FORMATS.find((format) => format === value)
        if (logFormat === undefined)
          return refuse(`option ${word} ${value}: must be ${LOG_FORMATS.join(' or ')}`, false)
        break
    }
  }
  if (genpsk !== undefined) {
    // all other options are ignored
    return { kind: 'genpsk', method: genpsk, verbosity }
  }
  if (config === undefined) {
    return refuse('no config file given: use -c <file>', true)
  }
  if (firewall) {
    return { kind: 'obfs-firewall', config, verbosity }
  }
  return { kind: 'run', config, verbosity, user, daemonize, logFormat }
}
