/**
 * Command line options as data: the parsers, the usage texts and the shell completions all read these tables, so they
 * cannot drift apart. The options are defined in `args.ts` and in the files of `commands/`.
 */

/** What a shell may offer as the argument of an option. `methods` = names of encryption methods. */
export type Offers = 'files' | 'directories' | 'methods' | readonly string[]

/** One option. Names are with their dashes. */
export interface Option {
  readonly long: string
  readonly short?: string
  /** Placeholder of its argument, such as `<file>`; absent = it takes none. */
  readonly value?: string
  /** One line for the usage text; `\n` breaks it. */
  readonly help: string
  /** Absent = nothing. */
  readonly offers?: Offers
}

/** The words behind a command's name, sorted out. */
export interface Given {
  /** Arguments by long name; the last of a repeated option wins. */
  readonly values: ReadonlyMap<string, string>
  /** Long names of the options without argument that were there. */
  readonly flags: ReadonlySet<string>
  /** Words that are no options. */
  readonly operands: readonly string[]
}

/** Column where the help of an option begins. */
const HELP_COLUMN = 29

export function findOption(options: readonly Option[], word: string): Option | undefined {
  return options.find((option) => option.long === word || option.short === word)
}

/**
 * Sorts words out: options are separate words, `--` makes operands of the rest.
 * @returns the words, or what is wrong with them
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
    if (value === undefined) return `option ${word} needs an argument`
    values.set(option.long, value)
    index += 1
  }
  return { values, flags, operands }
}

/** Two columns: `  left` and its help, which starts in a line of its own behind a long left side. */
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

/** The options of a usage text, a line or two for each. */
export function optionsText(options: readonly Option[]): string {
  return columns(
    options.map(({ long, short, value, help }) => [
      `${short === undefined ? '' : `${short}, `}${long}${value === undefined ? '' : ` ${value}`}`,
      help,
    ]),
  )
}
