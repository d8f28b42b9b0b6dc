/** Splits the text of a shell into commands and their words, as far as a command line with flags needs it. */

export interface Word {
  readonly text: string
  /** A shell would replace a part of it: `$NAME`, `$(...)` or backticks outside of single quotes. */
  readonly expands: boolean
}

/** Characters that a backslash escapes between double quotes. */
const ESCAPED_IN_QUOTES = '"\\$`'

class Splitter {
  readonly #text: string
  #at = 0
  #commands: Word[][] = []
  #words: Word[] = []
  #word: string | undefined
  #expands = false
  /** Words that follow, up to the end of the command, are redirections. */
  #isOver = false

  constructor(text: string) {
    this.#text = text
  }

  split(): readonly (readonly Word[])[] {
    while (this.#at < this.#text.length) this.#step(this.#text[this.#at++] ?? '')
    this.#endCommand()
    return this.#commands
  }

  #endWord(): void {
    if (this.#word !== undefined && !this.#isOver) this.#words.push({ text: this.#word, expands: this.#expands })
    this.#word = undefined
    this.#expands = false
  }

  #endCommand(): void {
    this.#endWord()
    if (this.#words.length > 0) this.#commands.push(this.#words)
    this.#words = []
    this.#isOver = false
  }

  #add(text: string): void {
    this.#word = (this.#word ?? '') + text
  }

  #step(character: string): void {
    if (character === '\\') this.#escape()
    else if (character === "'") this.#single()
    else if (character === '"') this.#double()
    else if (character === '\n' || character === ';' || character === '&' || character === '|') this.#endCommand()
    else if (/\s/.test(character)) this.#endWord()
    else if (character === '>' || character === '<') this.#redirect()
    else if (character === '#' && this.#word === undefined) this.#at = this.#lineEnd()
    else {
      this.#expands ||= character === '$' || character === '`'
      this.#add(character)
    }
  }

  #lineEnd(): number {
    const end = this.#text.indexOf('\n', this.#at)
    return end < 0 ? this.#text.length : end
  }

  #escape(): void {
    const next = this.#text[this.#at++] ?? ''
    // a line that continues, also one with the line ends of Windows
    if (next === '\r' && this.#text[this.#at] === '\n') this.#at += 1
    else if (next !== '\n') this.#add(next)
  }

  #single(): void {
    const end = this.#text.indexOf("'", this.#at)
    this.#add(this.#text.slice(this.#at, end < 0 ? undefined : end))
    this.#at = end < 0 ? this.#text.length : end + 1
  }

  #double(): void {
    this.#add('')
    while (this.#at < this.#text.length) {
      let character = this.#text[this.#at++] ?? ''
      if (character === '"') return
      if (character === '\\' && ESCAPED_IN_QUOTES.includes(this.#text[this.#at] ?? ' ')) {
        character = this.#text[this.#at++] ?? ''
      } else this.#expands ||= character === '$' || character === '`'
      this.#add(character)
    }
  }

  /** `>> file`, `2>&1`: nothing behind them is a word of the command. */
  #redirect(): void {
    if (this.#word !== undefined && /^\d$/.test(this.#word)) this.#word = undefined
    this.#endWord()
    this.#isOver = true
    if (this.#text[this.#at] === '&') this.#at += 1
  }
}

/** The commands of a text, in order, with their words. Comments and redirections are left out. */
export function splitCommands(text: string): readonly (readonly Word[])[] {
  return new Splitter(text).split()
}
