/**
 * The screen of `top`: draws frames (frame.ts) of what the program reports (feed.ts) once per second, handles keys, and
 * restores the terminal on every exit.
 */

import type { Runtime, Terminal } from '../../runtime.ts'
import { explain, fetchStatistics, follow, type Source } from './feed.ts'
import { frame, HISTORY_MAX, ORDERS, type Style, type View } from './frame.ts'
import { type Rates, ratesOf, readHistory, readSample, type Sample } from './sample.ts'

/** Interval between two frames, ms, of which a sample may be early. */
const INTERVAL_MS = 1000
const SLACK_MS = 250
/** Maximum number of lines of a single frame without a terminal. */
const ONCE_ROWS = 10_000

/** Switches to the alternate screen without cursor and line wrapping, and back. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l'
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l'
const HOME = '\x1b[H'
const CLEAR_LINE = '\x1b[K'
const CLEAR_BELOW = '\x1b[J'

/** Matches one key: a single read may return several. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: keys send control characters
const KEYS = /\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])|[\s\S]/g

/** Holds the state to draw. */
class Watch {
  readonly source: Source
  #sample: Sample | undefined
  #rates: Rates | undefined
  readonly #received: number[] = []
  readonly #sent: number[] = []
  #order = 0
  #offset = 0
  #trouble: string | undefined

  constructor(source: Source) {
    this.source = source
  }

  get view(): View {
    return {
      url: this.source.url,
      sample: this.#sample,
      rates: this.#rates,
      received: this.#received,
      sent: this.#sent,
      order: ORDERS[this.#order] ?? 'rate',
      offset: this.#offset,
      trouble: this.#trouble,
    }
  }

  /** Requests one document. @throws Error without an answer */
  async ask(): Promise<void> {
    try {
      this.onSample(await fetchStatistics(this.source))
    } catch (error) {
      this.onTrouble(explain(error))
      throw new Error(this.#trouble)
    }
  }

  /** The program begins a stream: its history is shown in place of what was seen here. */
  onHello(hello: unknown): void {
    const { received, sent } = readHistory(hello, Date.now() / 1000, HISTORY_MAX)
    this.#received.splice(0, this.#received.length, ...received)
    this.#sent.splice(0, this.#sent.length, ...sent)
  }

  onSample(document: unknown): void {
    const sample = readSample(document)
    const before = this.#sample
    this.#trouble = undefined
    // several samples a second come at a stream
    const age = sample.uptimeMs - (before?.uptimeMs ?? Number.NEGATIVE_INFINITY)
    if (age >= 0 && age < INTERVAL_MS - SLACK_MS) return
    this.#rates = ratesOf(before, sample)
    if (before !== undefined) {
      remember(this.#received, this.#rates.received)
      remember(this.#sent, this.#rates.sent)
    }
    this.#sample = sample
    this.scroll(0)
  }

  onTrouble(reason: string): void {
    this.#trouble = `no statistics from ${this.source.url}: ${reason}`
  }

  nextOrder(): void {
    this.#order = (this.#order + 1) % ORDERS.length
    this.#offset = 0
  }

  scroll(by: number): void {
    const last = Math.max((this.#sample?.sessions.length ?? 0) - 1, 0)
    this.#offset = Math.min(Math.max(this.#offset + by, 0), last)
  }
}

function remember(history: number[], value: number): void {
  history.push(value)
  if (history.length > HISTORY_MAX) history.shift()
}

/** Colours unless NO_COLOR is set, block characters in a UTF-8 locale. */
function styleOf(runtime: Runtime, isScreen: boolean): Style {
  const env = (name: string): string => runtime.os?.env(name) ?? ''
  const locale = env('LC_ALL') || env('LC_CTYPE') || env('LANG')
  return { color: isScreen && env('NO_COLOR') === '', blocks: /utf-?8/i.test(locale), keys: isScreen }
}

/** Prints one frame with the rates of one second to standard output. @throws Error without an answer */
export async function showOnce(runtime: Runtime, source: Source): Promise<void> {
  const watch = new Watch(source)
  await watch.ask()
  await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS))
  await watch.ask()
  const columns = runtime.terminal?.size().columns ?? 80
  const lines = frame(watch.view, columns, ONCE_ROWS, styleOf(runtime, false))
  runtime.print('stdout', lines.map((line) => `${line.trimEnd()}\n`).join(''))
}

/** Draws frames until a key or a signal ends the program. */
export async function show(runtime: Runtime, terminal: Terminal, source: Source): Promise<void> {
  const watch = new Watch(source)
  const style = styleOf(runtime, true)
  const over = new AbortController()
  const leave = (): void => {
    if (over.signal.aborted) return
    over.abort()
    runtime.print('stdout', LEAVE)
    terminal.endKeys()
  }
  const draw = (): void => {
    if (over.signal.aborted) return
    const { columns, rows } = terminal.size()
    const lines = frame(watch.view, columns, rows, style)
    // each line is cleared before it is written: after a full line the cursor is on its last character
    const picture = lines.map((line) => CLEAR_LINE + line).join('\r\n')
    runtime.print('stdout', `${HOME}${picture}${lines.length < rows ? `\r\n${CLEAR_BELOW}` : ''}`)
  }
  terminal.onExit(leave)
  const end = (): void => runtime.exit(0)
  runtime.onTerminate(end)
  runtime.onReload(end)
  terminal.onResize(draw)
  runtime.print('stdout', ENTER)
  try {
    terminal.onKeys((text) => {
      for (const key of text.match(KEYS) ?? []) {
        const action = keyAction(key, terminal.size().rows)
        if (action === 'quit') leave()
        else if (action === 'order') watch.nextOrder()
        else if (action !== undefined) watch.scroll(action)
      }
      draw()
    })
    draw()
    const then = <Given>(action: (given: Given) => void): ((given: Given) => void) => {
      return (given) => {
        action(given)
        draw()
      }
    }
    const handlers = {
      onHello: (hello: unknown) => watch.onHello(hello),
      onSample: then((document: unknown) => watch.onSample(document)),
      onTrouble: then((reason: string) => watch.onTrouble(reason)),
    }
    await follow(source, handlers, INTERVAL_MS, over.signal)
  } finally {
    leave()
  }
}

/** The action of a key; a number scrolls by this many lines. */
export function keyAction(key: string, rows: number): 'quit' | 'order' | number | undefined {
  switch (key) {
    case 'q':
    case 'Q':
    case '\x03':
    case '\x04':
      return 'quit'
    case 's':
      return 'order'
    case '\x1b[A':
    case '\x1bOA':
    case 'k':
      return -1
    case '\x1b[B':
    case '\x1bOB':
    case 'j':
      return 1
    case '\x1b[5~':
      return -rows
    case '\x1b[6~':
    case ' ':
      return rows
    case '\x1b[H':
    case '\x1b[1~':
      return Number.NEGATIVE_INFINITY
    case '\x1b[F':
    case '\x1b[4~':
      return Number.POSITIVE_INFINITY
    default:
      return undefined
  }
}
