/**
 * The log (protocol.md 10.6): levels, line format, outputs, and repeats limited to one a second. Where lines go and
 * what time it is are injected. Hot paths ask `at(level)` first, so that no text is built for a line that nobody
 * gets.
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
/** In force until the configuration is read. */
export const LOG_LEVEL_DEFAULT = LOG_NOTICE

/** First letter of a line, by level. Notice shares its letter with info, very verbose with verbose. */
const LETTERS = '-FEWIIDVV'
/** ANSI colours of a whole line, by level (output `terminal`): red, yellow, green, plain, cyan, grey. */
const COLOURS = ['', '31', '31', '33', '32', '', '36', '90', '90'] as const

/** Least time between two lines of one key, in ms. */
const LIMIT_INTERVAL_MS = 1000
/** Keys remembered for limiting; the one that was used first is forgotten for a new one. */
const LIMIT_KEYS_MAX = 256

/** How lines on standard output and standard error look; the system log has its own form. */
export const LOG_FORMATS = ['plain', 'json'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]

/** Warnings and worse that are remembered, and the longest text of one, UTF-16 units. */
const RECENT_MAX = 32
const RECENT_CHARS_MAX = 400

/** A line of level warning or worse, as it is remembered for the dashboard. */
export interface RecentLine {
  /** ms since the epoch */
  readonly at: number
  /** 1 fatal, 2 error, 3 warning */
  readonly level: number
  readonly text: string
}

type Output = 'stdout' | 'stderr' | 'terminal' | 'syslog' | 'discard'

interface Limit {
  /** ms since the epoch of the last line written */
  last: number
  suppressed: number
}

/** Matches what would break the one-line format or fool a terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g

const escapeControl = (char: string) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`

export type Print = (stream: 'stdout' | 'stderr', text: string) => void

export type OpenSyslog = (now: () => Date) => SyslogWriter

const noSyslog: OpenSyslog = () => {
  throw new Error('not available here')
}

export class Log {
  readonly #print: Print
  readonly #now: () => Date
  readonly #limits = new Map<string, Limit>()
  readonly #recent: RecentLine[] = []
  /** Lines remembered so far, including those dropped since: a viewer detects new lines by it. */
  remembered = 0
  #level = LOG_LEVEL_DEFAULT
  #output: Output = 'stdout'
  #format: LogFormat = 'plain'
  readonly #openSyslog: OpenSyslog
  #syslog: SyslogWriter | undefined
  #syslogWarned = false
  #detached = false

  /**
   * @param print Runtime.print
   * @param now wall clock
   * @param openSyslog connects to the system log; throws when there is none
   */
  constructor(print: Print, now: () => Date = () => new Date(), openSyslog: OpenSyslog = noSyslog) {
    this.#print = print
    this.#now = now
    this.#openSyslog = openSyslog
  }

  get level(): number {
    return this.#level
  }

  /** Whether lines go to standard output or standard error. */
  get visible(): boolean {
    return this.#output !== 'syslog' && this.#output !== 'discard'
  }

  /** Sets the level: 0 (silence) to 8 (very verbose); others are clamped. */
  setLevel(level: number): void {
    this.#level = Math.min(Math.max(level, LOG_LEVEL_MIN), LOG_LEVEL_MAX)
  }

  setFormat(format: LogFormat): void {
    this.#format = format
  }

  /** Sets the output by its config name (`log`). An unknown name changes nothing and gives a warning. */
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
          `config key log = ${JSON.stringify(name)}: must be stdout, stderr, terminal, syslog or discard, unchanged`,
        )
    }
  }

  /** There is no terminal any more: what would go to standard output or standard error goes to the system log from now on. */
  detach(): void {
    this.#detached = true
    this.setOutput(this.#output)
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

  /** Whether a line of this level would be written. */
  at(level: number): boolean {
    return level <= this.#level && level > LOG_SILENCE && this.#output !== 'discard'
  }

  /** The last warnings and worse, oldest first. They need not have been written anywhere; limited ones are. */
  get recent(): readonly RecentLine[] {
    return this.#recent
  }

  #remember(level: number, text: string): void {
    if (this.#recent.length === RECENT_MAX) this.#recent.shift()
    const short = text.length > RECENT_CHARS_MAX ? `${text.slice(0, RECENT_CHARS_MAX)}...` : text
    this.#recent.push({ at: this.#now().getTime(), level, text: short })
    this.remembered++
  }

  /** Writes one line `<L> <time> <text>`, or a JSON object. Control characters in the text are escaped. */
  write(level: number, text: string): void {
    if (level <= LOG_WARNING && level > LOG_SILENCE) this.#remember(level, text)
    if (!this.at(level)) {
      return
    }
    if (this.#format === 'json' && this.#output !== 'syslog') {
      this.#print(this.#output === 'stdout' ? 'stdout' : 'stderr', `${jsonLine(level, this.#now(), text)}\n`)
      return
    }
    const clean = text.replace(CONTROL, escapeControl)
    if (this.#output === 'syslog') {
      this.#syslog?.(level, clean)
      return
    }
    const line = `${LETTERS[level] ?? 'V'} ${formatTimestamp(this.#now())} ${clean}`
    if (this.#output !== 'terminal') {
      this.#print(this.#output === 'stdout' ? 'stdout' : 'stderr', `${line}\n`)
      return
    }
    const colour = COLOURS[level] ?? ''
    this.#print('stderr', colour === '' ? `${line}\n` : `\u001b[${colour}m${line}\u001b[0m\n`)
  }

  /**
   * Writes at most one line a second for each key; the next line says how many were left out.
   * @param key a constant, such as `udp send`
   * @param text built only when the line is written, if it is a function
   */
  limited(key: string, level: number, text: string | (() => string)): void {
    if (!this.at(level)) {
      return
    }
    const now = this.#now().getTime()
    const limit = this.#limits.get(key)
    // A wall clock may be set back: that must not silence a key.
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
    this.write(level, suppressed === 0 ? line : `${line} (${suppressed} more like this were left out)`)
  }

  fatal(text: string): void {
    this.write(LOG_FATAL, text)
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
