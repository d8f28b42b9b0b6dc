/** Obtains values from the options of a subcommand, or by prompting on the terminal. */

import { ConfigError } from '../../errors.ts'
import type { Runtime } from '../../runtime.ts'
import type { Given, Option } from '../options.ts'
import { CommandError } from './command.ts'
import { consoleOf } from './invocation.ts'

export interface Question {
  /** The option for the same value. */
  readonly option: Option
  readonly text: string
  /** Value of an empty answer. */
  readonly preset?: string
}

export class Prompt {
  readonly #runtime: Runtime
  readonly #given: Given

  constructor(runtime: Runtime, given: Given) {
    this.#runtime = runtime
    this.#given = given
  }

  has({ long }: Option): boolean {
    return this.#given.values.has(long)
  }

  /** How often an option is given. */
  count({ long }: Option): number {
    return this.#given.lists.get(long)?.length ?? 0
  }

  /**
   * Checks that missing options can be prompted for. Call it before the first question.
   * @throws CommandError listing the missing options if there is no terminal
   */
  expect(options: readonly Option[]): void {
    const commandConsole = consoleOf(this.#runtime)
    const missing = options.filter((option) => !this.has(option))
    if (missing.length === 0 || (commandConsole.isTerminal('stdin') && commandConsole.isTerminal('stderr'))) return
    const names = missing.map(({ long, value }) => `${long} ${value}`)
    throw new CommandError(`missing options: ${names.join(', ')} (no terminal for prompts)`)
  }

  /**
   * The value of an option, or `preset`.
   * @param read parses the text; throws ConfigError
   * @throws CommandError
   */
  flag<Result>(option: Option, preset: string, read: (text: string) => Result): Result {
    return this.#read(option, this.#given.values.get(option.long) ?? preset, read)
  }

  /**
   * The values of an option that may be repeated; none: the answer to a question.
   * @param read as above
   * @throws CommandError
   */
  async several<Result>(question: Question, read: (text: string) => Result): Promise<readonly [Result, ...Result[]]> {
    const { option } = question
    const [first, ...others] = this.#given.lists.get(option.long) ?? []
    if (first === undefined) return [await this.get(question, read)]
    return [this.#read(option, first, read), ...others.map((text) => this.#read(option, text, read))]
  }

  #read<Result>(option: Option, text: string, read: (text: string) => Result): Result {
    try {
      return read(text)
    } catch (error) {
      if (error instanceof ConfigError) throw new CommandError(`${option.long} ${text}: ${error.reason}`)
      throw error
    }
  }

  /**
   * The value of an option, or the answer to a question. The question is repeated until the answer is valid.
   * @param read as above
   * @throws CommandError
   */
  async get<Result>({ option, text, preset }: Question, read: (text: string) => Result): Promise<Result> {
    if (this.has(option)) return this.flag(option, '', read)
    while (true) {
      const answer = await consoleOf(this.#runtime).ask(`${text}${preset === undefined ? '' : ` [${preset}]`}: `)
      if (answer === undefined) {
        this.#runtime.print('stderr', '\n')
        throw new CommandError(`no answer: use the option ${option.long}`)
      }
      try {
        const wanted = answer.trim() || preset
        if (wanted !== undefined) return read(wanted)
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error
        this.#runtime.print('stderr', `  ${JSON.stringify(answer.trim())}: ${error.reason}\n`)
      }
    }
  }
}
