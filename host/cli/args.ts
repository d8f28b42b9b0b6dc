/**
 * Parses the command line (protocol.md 10.5) into one of a few requests. Pure: prints nothing, reads no files, never
 * exits.
 */

import { LOG_FORMATS, LOG_LEVEL_MAX, LOG_LEVEL_MIN, type LogFormat } from '../log/log.ts'
import { LINK_PREFIX, PROGRAM } from '../version.ts'
import type { CommandEntry, CommandLine } from './commands/command.ts'
import { COMMANDS, findCommand } from './commands/table.ts'
import { closest, columns, type Option, optionsText, readWords } from './options.ts'

/** The parsed command line. `verbosity` is added to a log level by `adjustLevel`. */
export type Args =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | { readonly kind: 'list-methods' }
  /** A subcommand and its arguments. */
  | { readonly kind: 'command'; readonly entry: CommandEntry; readonly words: readonly string[] }
  | { readonly kind: 'genpsk'; readonly method: string | undefined; readonly verbosity: number }
  /** Print the firewall rule for a configuration. */
  | { readonly kind: 'obfs-firewall'; readonly config: string; readonly verbosity: number }
  | { readonly kind: 'hop-firewall'; readonly config: string; readonly ports: string | undefined }
  | {
      readonly kind: 'run'
      /** Path of the file; undefined: the environment of a plugin has the configuration. */
      readonly config: string | undefined
      readonly verbosity: number
      /** Overrides the config key `user`. */
      readonly user: string | undefined
      readonly daemonize: boolean
      readonly logFormat: LogFormat
    }
  | ArgsError

/**
 * A rejected command line: print the usage text if `usage`, then `message`, to stderr; exit with `status`.
 */
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
  {
    long: '--hop-firewall',
    value: '[ports]',
    isOptional: true,
    help: 'print the firewall rule for a server of clients that hop and exit',
  },
  { long: '--version', help: 'print the version and exit' },
]

const CRYPTO_OPTIONS: readonly Option[] = [
  { long: '--list-methods', help: 'list the encryption methods and exit' },
  {
    long: '--genpsk',
    value: '[method]',
    isOptional: true,
    help: 'print a random pre-shared key and exit',
    offers: 'methods',
  },
]

/** All options that are valid without a subcommand. */
export const MAIN_OPTIONS: readonly Option[] = [...OPTIONS, ...CRYPTO_OPTIONS]

/** All options and subcommands, for shell completions. */
export const COMMAND_LINE: CommandLine = { main: MAIN_OPTIONS, entries: COMMANDS }

/** The usage text. @param program the program name to show */
export function usageText(program: string): string {
  return `usage: ${program} [option]... [-c] <file>
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

/** The other users of a machine see its command lines, and a shell remembers them. */
const LINK_REFUSED = `a link contains the key, which does not belong on a command line: pass it on standard input, to "${PROGRAM} import -"`

function refuse(message: string, usage: boolean): ArgsError {
  return { kind: 'error', message, usage, status: 1 }
}

/** A word that is neither an option nor the only config file. */
function stray(word: string): ArgsError {
  return refuse(`unknown argument: ${JSON.stringify(word)}`, true)
}

const formatOf = (values: ReadonlyMap<string, string>): LogFormat =>
  LOG_FORMATS.find((format) => format === values.get('--log-format')) ?? 'plain'

/** By any of these variables shadowsocks says that it started the program as its plugin (SIP003). */
export const PLUGIN_VARIABLES = ['SS_REMOTE_HOST', 'SS_REMOTE_PORT', 'SS_LOCAL_HOST', 'SS_LOCAL_PORT'] as const

/** Arguments that shadowsocks-android gives a plugin; plugin.ts decides about them. */
export const ANDROID_WORDS: readonly string[] = ['-V', '-fast-open', '--fast-open']

/** The request that ends parsing as soon as its option is read. */
const AT_ONCE: ReadonlyMap<string, Args> = new Map([
  ['--help', { kind: 'help' }],
  ['--version', { kind: 'version' }],
  ['--list-methods', { kind: 'list-methods' }],
])

/**
 * Parses the arguments. A subcommand is recognized only as the first word. The last of a repeated option wins; one word
 * that is no option is the config file; `--` ends parsing: the rest is ignored.
 * @param argv the words after the program name
 * @param isPlugin whether shadowsocks started the program: it runs without a config file
 */
export function parseArgs(argv: readonly string[], isPlugin = false): Args {
  if (argv.some((word) => word.includes(LINK_PREFIX))) return refuse(LINK_REFUSED, false)
  const entry = findCommand(argv[0])
  if (entry !== undefined) return { kind: 'command', entry, words: argv.slice(1) }
  const values = new Map<string, string>()
  const flags = new Set<string>()
  let operand: string | undefined
  let verbosity = 0
  for (const found of readWords(MAIN_OPTIONS, isPlugin ? argv.filter((word) => !ANDROID_WORDS.includes(word)) : argv)) {
    if (found.kind === 'terminator') break
    if (found.kind === 'error') return refuse(found.message, found.message.startsWith('unknown'))
    if (found.kind === 'operand') {
      if (operand !== undefined || found.word === '' || found.word === '-') return stray(found.word)
      operand = found.word
      continue
    }
    const { option, value } = found
    const request = AT_ONCE.get(option.long)
    if (request !== undefined) return request
    if (option.long === '--verbose') verbosity += 1
    if (option.long === '--silence') verbosity -= 1
    if (option.long === '--log-format' && !LOG_FORMATS.some((format) => format === value))
      return refuse(`option ${option.long} ${value}: must be ${LOG_FORMATS.join(' or ')}`, false)
    flags.add(option.long)
    if (value !== undefined) values.set(option.long, value)
  }
  if (operand !== undefined && (flags.has('--config') || flags.has('--genpsk'))) return stray(operand)
  // all other options are ignored
  if (flags.has('--genpsk')) return { kind: 'genpsk', method: values.get('--genpsk'), verbosity }
  const config = values.get('--config') ?? operand
  if (config === undefined && isPlugin && !flags.has('--obfs-firewall') && !flags.has('--hop-firewall')) {
    if (flags.has('--daemonize'))
      return refuse('option -d (--daemonize): a plugin stays with the program that starts it', false)
    return { kind: 'run', config, verbosity, user: values.get('--user'), daemonize: false, logFormat: formatOf(values) }
  }
  if (config === undefined) return refuse('no config file: start with "kcptun-wasm init", or pass one with -c', true)
  const names = COMMANDS.map(({ name }) => name)
  const meant = config === operand ? closest(config, names) : undefined
  if (meant !== undefined) return refuse(`unknown command ${JSON.stringify(config)}, did you mean ${meant}?`, true)
  if (flags.has('--obfs-firewall')) return { kind: 'obfs-firewall', config, verbosity }
  if (flags.has('--hop-firewall')) return { kind: 'hop-firewall', config, ports: values.get('--hop-firewall') }
  const daemonize = flags.has('--daemonize')
  return { kind: 'run', config, verbosity, user: values.get('--user'), daemonize, logFormat: formatOf(values) }
}
