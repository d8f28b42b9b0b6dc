/**
 * Command line options as data. The parsers, usage texts and shell completions are generated from the same tables, so
 * they cannot diverge. The options are defined in `args.ts` and `commands/`.
 */

import { type ParseArgsConfig, parseArgs } from 'node:util'
import { editDistance } from '../config/unknown-keys.ts'

/** Completions for the argument of an option. `methods` = names of encryption methods. */
export type Offers = 'files' | 'directories' | 'methods' | readonly string[]

/** One option. Names include their dashes. */
export interface Option {
  readonly long: string
  readonly short?: string
  /** Placeholder of the argument, such as `<file>`; absent = takes none. */
  readonly value?: string
  /** The argument may be left out. */
  readonly isOptional?: boolean
  /** One line for the usage text; `\n` breaks it. */
  readonly help: string
  /** Absent = no completions. */
  readonly offers?: Offers
}

/** The parsed arguments of a subcommand. */
export interface Given {
  /** Arguments by long name; the last of a repeated option wins. */
  readonly values: ReadonlyMap<string, string>
  /** All arguments of each option, in their order. */
  readonly lists: ReadonlyMap<string, readonly string[]>
  /** Long names of the options given that take no argument. */
  readonly flags: ReadonlySet<string>
  /** Words that are not options. */
  readonly operands: readonly string[]
}

/** Column at which the help of an option starts. */
const HELP_COLUMN = 29

/** One thing on a command line, in order. */
export type Found =
  | { readonly kind: 'option'; readonly option: Option; readonly value: string | undefined }
  | { readonly kind: 'operand'; readonly word: string }
  /** `--`: operands follow. */
  | { readonly kind: 'terminator' }
  | { readonly kind: 'error'; readonly message: string }

/** An optional argument is the next word only if that is no option: `--genpsk -v` has none. */
function withEmptyValues(options: readonly Option[], words: readonly string[]): string[] {
  const isOptional = (word: string): boolean => options.some((option) => option.isOptional && option.long === word)
  const end = words.indexOf('--')
  return words.map((word, index) => {
    const next = words[index + 1]
    const isBare = next === undefined || next.startsWith('-')
    return (end < 0 || index < end) && isOptional(word) && isBare ? `${word}=` : word
  })
}

/** Reads words as `util.parseArgs` does: `--long=VALUE`, `-sVALUE` and `-abc` are understood. */
export function readWords(options: readonly Option[], words: readonly string[]): readonly Found[] {
  const specs: NonNullable<ParseArgsConfig['options']> = {}
  for (const { long, short, value } of options) {
    const type = value === undefined ? 'boolean' : 'string'
    specs[long.slice(2)] = short === undefined ? { type } : { type, short: short.slice(1) }
  }
  const args = withEmptyValues(options, words)
  const { tokens } = parseArgs({ args, options: specs, strict: false, allowPositionals: true, tokens: true })
  return tokens.map((token): Found => {
    if (token.kind === 'positional') return { kind: 'operand', word: token.value }
    if (token.kind === 'option-terminator') return { kind: 'terminator' }
    const option = options.find(({ long }) => long === `--${token.name}`)
    if (option === undefined) {
      const meant = closest(
        token.rawName,
        options.map(({ long }) => long),
      )
      const hint = meant === undefined ? '' : `, did you mean ${meant}?`
      return { kind: 'error', message: `unknown option ${JSON.stringify(token.rawName)}${hint}` }
    }
    const { value } = token
    if (option.value === undefined) {
      if (value === undefined) return { kind: 'option', option, value: undefined }
      return { kind: 'error', message: `option ${token.rawName} takes no argument, not ${JSON.stringify(value)}` }
    }
    if (option.isOptional === true) return { kind: 'option', option, value: value === '' ? undefined : value }
    if (value === undefined) return { kind: 'error', message: `option ${token.rawName} requires an argument` }
    return { kind: 'option', option, value }
  })
}

/**
 * Parses the arguments of a subcommand. Everything after `--` is an operand.
 * @returns the parsed arguments, or an error message
 */
export function parseOptions(options: readonly Option[], words: readonly string[]): Given | string {
  const lists = new Map<string, readonly string[]>()
  const flags = new Set<string>()
  const operands: string[] = []
  for (const found of readWords(options, words)) {
    if (found.kind === 'error') return found.message
    if (found.kind === 'operand') operands.push(found.word)
    else if (found.kind === 'option' && found.value !== undefined)
      lists.set(found.option.long, [...(lists.get(found.option.long) ?? []), found.value])
    else if (found.kind === 'option') flags.add(found.option.long)
  }
  const values = new Map([...lists].map(([long, given]) => [long, given.at(-1) ?? '']))
  return { values, lists, flags, operands }
}

/** The candidate that was probably meant by a misspelt word: at most a third of its letters differ. */
export function closest(word: string, candidates: readonly string[]): string | undefined {
  const edits = candidates.map((candidate) => ({ candidate, edits: editDistance(word.toLowerCase(), candidate) }))
  const [best] = edits.toSorted((a, b) => a.edits - b.edits)
  return best !== undefined && best.edits * 3 <= best.candidate.length ? best.candidate : undefined
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
