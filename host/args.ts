/**
 * The command line (protocol.md 10.5), parsed into one of a few requests. Pure: prints nothing, reads no file, ends
 * no process.
 */

import { LOG_LEVEL_MAX, LOG_LEVEL_MIN } from './log.ts'

/** What the command line asks for. `verbosity` is to be added to a log level with `adjustLevel`. */
export type Args =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | { readonly kind: 'list-methods' }
  | { readonly kind: 'genpsk'; readonly method: string; readonly verbosity: number }
  | {
      readonly kind: 'run'
      readonly config: string
      readonly verbosity: number
      /** Overrides the key `user` of the configuration. */
      readonly user: string | undefined
      readonly daemonize: boolean
    }
  | ArgsError

/** Log `message` at level error, print the usage text to stderr when `usage` says so, exit with `status`. */
export interface ArgsError {
  readonly kind: 'error'
  readonly message: string
  readonly usage: boolean
  readonly status: 1
}

/** The usage text, for stderr. @param program name it was called by */
export function usageText(program: string): string {
  return `usage: ${program} <option>...
  -h, --help                 show usage and exit
  -c, --config <file>        the JSON config file
  -v, --verbose              log more, may be repeated ("-v -v" shows debug messages)
  -s, --silence              log less, may be repeated
  -u, --user [user][:[group]]
                             run as this identity once all sockets are open
  -d, --daemonize            run in the background, log to syslog
  --version                  show the version and exit

crypto options:
  --list-methods             list the encryption methods and exit
  --genpsk <method>          print a random pre-shared key and exit
`
}

/** A log level changed by the -v and -s of the command line, clamped to 0..8. */
export function adjustLevel(level: number, verbosity: number): number {
  return Math.min(Math.max(level + verbosity, LOG_LEVEL_MIN), LOG_LEVEL_MAX)
}

function refuse(message: string, usage: boolean): ArgsError {
  return { kind: 'error', message, usage, status: 1 }
}

/**
 * Parses the arguments. Options are separate words; the last of a repeated option wins; `--` ends parsing and the
 * rest is ignored.
 * @param argv the words after the program's name
 */
export function parseArgs(argv: readonly string[]): Args {
  let config: string | undefined
  let user: string | undefined
  let genpsk: string | undefined
  let daemonize = false
  let verbosity = 0
  for (let index = 0; index < argv.length; index += 1) {
    const option = argv[index]
    const value = argv[index + 1]
    switch (option) {
      // These act as soon as they are met.
      case '-h':
      case '--help':
        return { kind: 'help' }
      case '--version':
        return { kind: 'version' }
      case '--list-methods':
        return { kind: 'list-methods' }
      case '-v':
      case '--verbose':
        verbosity += 1
        continue
      case '-s':
      case '--silence':
        verbosity -= 1
        continue
      case '-d':
      case '--daemonize':
        daemonize = true
        continue
      case '-c':
      case '--config':
        config = value
        break
      case '-u':
      case '--user':
        user = value
        break
      case '--genpsk':
        genpsk = value
        break
      case '--':
        return request(config, user, genpsk, daemonize, verbosity)
      default:
        return refuse(`unknown argument: ${JSON.stringify(option)}`, true)
    }
    if (value === undefined) {
      return refuse(`option ${option} needs an argument`, false)
    }
    index += 1
  }
  return request(config, user, genpsk, daemonize, verbosity)
}

/** What is wanted once every option was understood. --genpsk comes first, other options do not matter to it. */
function request(
  config: string | undefined,
  user: string | undefined,
  genpsk: string | undefined,
  daemonize: boolean,
  verbosity: number,
): Args {
  if (genpsk !== undefined) {
    return { kind: 'genpsk', method: genpsk, verbosity }
  }
  if (config === undefined) {
    return refuse('a config file must be given with -c', true)
  }
  return { kind: 'run', config, verbosity, user, daemonize }
}
