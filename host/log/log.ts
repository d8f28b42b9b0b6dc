/**
 * The log (protocol.md 10.6): levels, line format, outputs, and rate limiting of repeated lines. Output functions and
 * clock are injected. Hot paths check `at(level)` first, to avoid formatting lines that are not written.
 */

import { messageOf } from '../errors.ts'
import { formatTimestamp } from '../format.ts'
import { jsonLine } from './json.ts'
import type { SyslogWriter } from './syslog.ts'

export const LOG_SILENCE = 0
export const LOG_FATAL = 1
export const LOG_ERROR = 2
export const LOG_WARNING = 3
export const LOG_NOTICE = 4
export const LOG_INFO = 5
export const LOG_DEBUG = 6
export const LOG_VERBOSE = 7
export const LOG_VERY_VERBOSE = 8

export const LOG_LEVEL_MIN = LOG_SILENCE
export const LOG_LEVEL_MAX = LOG_VERY_VERBOSE
/** The level until the configuration is read. */
export const LOG_LEVEL_DEFAULT = LOG_NOTICE

/** First letter of a line, by level. Notice shares its letter with info, very verbose with verbose. */
const LETTERS = '-FEWIIDVV'
/** ANSI colours of a whole line, by level (output `terminal`): red, yellow, green, plain, cyan, grey. */
const COLOURS = ['', '31', '31', '33', '32', '', '36', '90', '90'] as const

/** Minimum interval between two lines of one key, in ms. */
const LIMIT_INTERVAL_MS = 1000
/** Maximum number of rate-limited keys; a new key then replaces the oldest one. */
const LIMIT_KEYS_MAX = 256

/** Formats of lines on standard output and standard error; the system log has its own format. */
export const LOG_FORMATS = ['plain', 'json'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]

/** Pauses between attempts to log the number of dropped lines while the reader is slow, ms. They double. */
const RETRY_MIN_MS = 1000
const RETRY_MAX_MS = 64_000

/** Number of recent warnings and errors kept. */
const RECENT_MAX = 32
/** Maximum length of their texts, UTF-16 units. */
const RECENT_CHARS_MAX = 400

/** A recent line of level warning or worse, for the dashboard. */
export interface RecentLine {
  /** ms since the epoch */
  readonly at: number
  /** 1 fatal, 2 error, 3 warning */
  readonly level: number
  readonly text: string
}

type Output = 'stdout' | 'stderr' | 'terminal' | 'syslog' | 'discard' | 'file'

/** A file as the output. */
export interface FileWriter {
  /** Takes a line for the file. @returns false if it is dropped: too many wait */
  write(line: string): boolean
  /** Why lines wait. */
  readonly reason: string
}

interface Limit {
  /** ms since the epoch of the last line written */
  last: number
  suppressed: number
}

/** Matches characters that would break the one-line format or control a terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g

const escapeControl = (char: string) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`

const tagged = (text: string, tunnel: string | undefined): string =>
  tunnel === undefined ? text : `[${tunnel}] ${text}`

/** Writes a line; false means that it was dropped because the reader is slow. */
export type Print = (stream: 'stdout' | 'stderr', text: string) => unknown

export type OpenSyslog = (now: () => Date) => SyslogWriter

const noSyslog: OpenSyslog = () => {
  throw new Error('not available on this system')
}

/** A log with a level, a format and an output. */
export class Log {
  #print: Print
  readonly #now: () => Date
  readonly #limits = new Map<string, Limit>()
  readonly #recent: RecentLine[] = []
  /** Total number of recent lines so far, including dropped ones, to detect new lines. */
  remembered = 0
  #level = LOG_LEVEL_DEFAULT
  #output: Output = 'stdout'
  #format: LogFormat = 'plain'
  readonly #openSyslog: OpenSyslog
  #syslog: SyslogWriter | undefined
  #syslogWarned = false
  #file: FileWriter | undefined
  #detached = false
  readonly #later: (callback: () => void, ms: number) => unknown
  /** Lines dropped by the output since the last one that it took. */
  #dropped = 0

  /**
   * @param print writes to a standard stream
   * @param now wall clock
   * @param openSyslog connects to the system log; throws if there is none
   * @param later sets a timer; without it the number of dropped lines is logged with the next line only
   */
  constructor(
    print: Print,
    now: () => Date = () => new Date(),
    openSyslog: OpenSyslog = noSyslog,
    later: (callback: () => void, ms: number) => unknown = () => {},
  ) {
    this.#print = print
    this.#now = now
    this.#openSyslog = openSyslog
    this.#later = later
  }

  /** Replaces the function that writes to a standard stream. */
  setPrint(print: Print): void {
    this.#print = print
  }

  get level(): number {
    return this.#level
  }

  /** Sets the level, clamped to 0 (silence) to 8 (very verbose). */
  setLevel(level: number): void {
    this.#level = Math.min(Math.max(level, LOG_LEVEL_MIN), LOG_LEVEL_MAX)
  }

  setFormat(format: LogFormat): void {
    this.#format = format
  }

  /** Sets the output by its name in the configuration (`log`). An unknown name only logs a warning. */
  setOutput(name: string): void {
    switch (name) {
      case 'stdout':
      case 'stderr':
      case 'terminal':
        if (this.#detached) this.#toSyslog()
        else this.#output = name
        break
      case 'syslog':
        this.#toSyslog()
        break
      case 'discard':
        this.#output = name
        break
      default:
        this.warning(
          `config key log = ${JSON.stringify(name)}: must be stdout, stderr, terminal, syslog, discard or file:PATH; not changed`,
        )
    }
  }

  /** Writes to a file from now on. */
  setFile(file: FileWriter): void {
    this.#file = file
    this.#output = 'file'
  }

  get isInFile(): boolean {
    return this.#output === 'file'
  }

  /** Redirects standard output and standard error to the system log, for a process without a terminal. */
  detach(): void {
    this.#detached = true
    if (this.#output !== 'file') this.setOutput(this.#output)
  }

  /** Reports on standard error, and on the dashboard, that the file cannot be written. */
  fileFailed(text: string): void {
    this.remember(LOG_ERROR, text)
    this.#print('stderr', `${text.replace(CONTROL, escapeControl)}\n`)
  }

  #toSyslog(): void {
    try {
      this.#syslog ??= this.#openSyslog(this.#now)
      this.#output = 'syslog'
    } catch (error) {
      this.#output = 'stderr'
      if (this.#syslogWarned) return
      this.#syslogWarned = true
      const instead = this.#detached ? 'further lines are lost' : 'logging to stderr'
      this.warning(`no system log, ${instead}: ${messageOf(error)}`)
    }
  }

  /** Whether a line of this level is written. */
  at(level: number): boolean {
    return level <= this.#level && level > LOG_SILENCE && this.#output !== 'discard'
  }

  /**
   * The recent lines of level warning or worse, oldest first. Includes lines not written because of level or output.
   */
  get recent(): readonly RecentLine[] {
    return this.#recent
  }

  protected remember(level: number, text: string): void {
    if (this.#recent.length === RECENT_MAX) this.#recent.shift()
    const short = text.length > RECENT_CHARS_MAX ? `${text.slice(0, RECENT_CHARS_MAX)}...` : text
    this.#recent.push({ at: this.#now().getTime(), level, text: short })
    this.remembered++
  }

  /**
   * Writes one line `<L> <time> <text>`, or a JSON object. Control characters are escaped.
   * @param tunnel the tunnel that it is about, one of several
   */
  write(level: number, text: string, tunnel?: string): void {
    if (level <= LOG_WARNING && level > LOG_SILENCE) this.remember(level, tagged(text, tunnel))
    if (!this.at(level)) {
      return
    }
    if (this.#reportDropped() && this.#put(level, text, tunnel)) return
    this.#dropped++
    if (this.#dropped === 1) this.#retry(RETRY_MIN_MS)
  }

  /** Passes a line to the output. @returns false if it was dropped */
  #put(level: number, text: string, tunnel?: string): boolean {
    if (this.#format === 'json' && this.#output !== 'syslog') {
      const line = `${jsonLine(level, this.#now(), text, tunnel)}\n`
      if (this.#output === 'file') return this.#file?.write(line) !== false
      return this.#print(this.#output === 'stdout' ? 'stdout' : 'stderr', line) !== false
    }
    const clean = tagged(text, tunnel).replace(CONTROL, escapeControl)
    if (this.#output === 'syslog') return this.#syslog?.(level, clean) !== false
    const line = `${LETTERS[level] ?? 'V'} ${formatTimestamp(this.#now())} ${clean}`
    if (this.#output === 'file') return this.#file?.write(`${line}\n`) !== false
    if (this.#output !== 'terminal') {
      return this.#print(this.#output === 'stdout' ? 'stdout' : 'stderr', `${line}\n`) !== false
    }
    const colour = COLOURS[level] ?? ''
    return this.#print('stderr', colour === '' ? `${line}\n` : `\u001b[${colour}m${line}\u001b[0m\n`) !== false
  }

  /** Logs how many lines were dropped, if any. @returns false while the reader is slow */
  #reportDropped(): boolean {
    if (this.#dropped === 0 || this.#output === 'discard') return true
    const lines = this.#dropped === 1 ? '1 log line was' : `${this.#dropped} log lines were`
    const why = this.#output === 'file' ? this.#file?.reason : 'the reader of the log did not take them'
    const text = `${lines} dropped: ${why}`
    if (!this.#put(LOG_WARNING, text)) return false
    this.#dropped = 0
    this.remember(LOG_WARNING, text)
    return true
  }

  /** Retries to log the number of dropped lines, also if no further line follows. */
  #retry(pause: number): void {
    this.#later(() => {
      if (!this.#reportDropped()) this.#retry(Math.min(2 * pause, RETRY_MAX_MS))
    }, pause)
  }

  /**
   * Writes at most one line per second for each key; the next line reports the number of suppressed lines.
   * @param key a constant, such as `udp send`
   * @param text a function is called only if the line is written
   */
  limited(key: string, level: number, text: string | (() => string)): void {
    if (!this.at(level)) {
      return
    }
    const now = this.#now().getTime()
    const limit = this.#limits.get(key)
    // a wall clock that was set back must not silence a key
    if (limit !== undefined && now >= limit.last && now - limit.last < LIMIT_INTERVAL_MS) {
      limit.suppressed += 1
      return
    }
    const suppressed = limit?.suppressed ?? 0
    if (limit === undefined) {
      this.#forgetOldest()
      this.#limits.set(key, { last: now, suppressed: 0 })
    } else {
      limit.last = now
      limit.suppressed = 0
    }
    const line = typeof text === 'string' ? text : text()
    this.write(level, suppressed === 0 ? line : `${line} (similar lines suppressed: ${suppressed})`)
  }

  /** What ends the program: goes to standard error too if level or output hide it. */
  fatal(text: string): void {
    this.write(LOG_FATAL, text)
    if (!this.at(LOG_FATAL) || this.#output === 'syslog' || this.#output === 'file') {
      this.#print('stderr', `${text.replace(CONTROL, escapeControl)}\n`)
    }
  }

  error(text: string): void {
    this.write(LOG_ERROR, text)
  }

  warning(text: string): void {
    this.write(LOG_WARNING, text)
  }

  notice(text: string): void {
    this.write(LOG_NOTICE, text)
  }

  info(text: string): void {
    this.write(LOG_INFO, text)
  }

  debug(text: string): void {
    this.write(LOG_DEBUG, text)
  }

  verbose(text: string): void {
    this.write(LOG_VERBOSE, text)
  }

  #forgetOldest(): void {
    if (this.#limits.size >= LIMIT_KEYS_MAX) {
      for (const oldest of this.#limits.keys()) {
        this.#limits.delete(oldest)
        return
      }
    }
  }
}
