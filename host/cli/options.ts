/**
 * Command line options as data. The parsers, usage texts and shell completions are generated from the same tables, so
 * they cannot diverge. The options are defined in `args.ts` and `commands/`.
 */

/** Completions for the argument of an option. `methods` = names of encryption methods. */
export type Offers = 'files' | 'directories' | 'methods' | readonly string[]

/** One option. Names include their dashes. */
export interface Option {
  readonly long: string
  readonly short?: string
  /** Placeholder of the argument, such as `<file>`; absent = takes none. */
  readonly value?: string
  /** One line for the usage text; `\n` breaks it. */
  readonly help: string
  /** Absent = no completions. */
  readonly offers?: Offers
}

/** The parsed arguments of a subcommand. */
export interface Given {
  /** Arguments by long name; the last of a repeated option wins. */
  readonly values: ReadonlyMap<string, string>
  /** Long names of the options given that take no argument. */
  readonly flags: ReadonlySet<string>
  /** Words that are not options. */
  readonly operands: readonly string[]
}

/** Column at which the help of an option starts. */
const HELP_COLUMN = 29

export function findOption(options: readonly Option[], word: string): Option | undefined {
  return options.find((option) => option.long === word || option.short === word)
}

/**
 * Parses the arguments of a subcommand. Options are separate words; everything after `--` is an operand.
 * @returns the parsed arguments, or an error message
 */
export function parseOptions(options: readonly Option[], words: readonly string[]): Given | string {
  const values = new Map<string, string>()
  const flags = new Set<string>()
  const operands: string[] = []
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? ''
    if (word === '--') {
      operands.push(...words.slice(index + 1))
      break
    }
    if (!word.startsWith('-') || word === '-') {
      operands.push(word)
      continue
    }
    const option = findOption(options, word)
    if (option === undefined) return `unknown option: ${JSON.stringify(word)}`
    if (option.value === undefined) {
      flags.add(option.long)
      continue
    }
    const value = words[index + 1]
    if (value === undefined) return `option ${word} requires an argument`
    values.set(option.long, value)
    index += 1
  }
  return { values, flags, operands }
}

/** Two columns: `  left` and its help text, which moves to the next line after a long left column. */
export function columns(rows: readonly (readonly [left: string, help: string])[]): string {
  const indent = ' '.repeat(HELP_COLUMN)
  return rows
    .map(([left, help]) => {
      const start = `  ${left}`
      const head = start.length < HELP_COLUMN ? start.padEnd(HELP_COLUMN) : `${start}\n${indent}`
      return `${head}${help.replaceAll('\n', `\n${indent}`)}\n`
    })
    .join('')
}

/** The option list of a usage text. */
export function optionsText(options: readonly Option[]): string {
  return columns(
    options.map(({ long, short, value, help }) => [
      `${short === undefined ? '' : `${short}, `}${long}${value === undefined ? '' : ` ${value}`}`,
      help,
    ]),
  )
}
