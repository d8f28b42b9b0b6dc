/** `kcptun-wasm completions`: prints the completion script for a shell. */

import { methods } from '../../crypto/methods.ts'
import { PROGRAM } from '../../version.ts'
import type { Offers, Option } from '../options.ts'
import { type Command, CommandError, type CommandLine, HELP } from './command.ts'

/** A subcommand, as needed for completions. */
interface Entry {
  readonly name: string
  readonly summary: string
  readonly options: readonly Option[]
  /** Completions of the operand; undefined = takes none. */
  readonly operand: Offers | undefined
}

/** The command line that is completed. */
interface Model {
  readonly main: readonly Option[]
  readonly commands: readonly Entry[]
}

/** Name of the completion function in bash and zsh. */
const FUNCTION = `_${PROGRAM.replaceAll('-', '_')}`

const namesOf = ({ short, long }: Option): readonly string[] => (short === undefined ? [long] : [short, long])
const oneLine = ({ help }: Option): string => help.replaceAll('\n', ' ')
const listOf = (offers: Exclude<Offers, 'files' | 'directories'>): readonly string[] =>
  offers === 'methods' ? methods : offers

/** A word in single quotes, for bash and zsh. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

async function model({ main, entries }: CommandLine): Promise<Model> {
  const commands: Entry[] = []
  for (const { name, summary, load } of entries) {
    const { command } = await load()
    commands.push({ name, summary, options: [HELP, ...command.options], operand: command.operand?.offers })
  }
  return { main, commands }
}

/** The bash code for the argument of an option: sets `offer` to a kind or `words` to a list. */
function bashOffer(offers: Offers | undefined): string {
  if (offers === undefined) return 'offer=nothing'
  return offers === 'files' || offers === 'directories'
    ? `offer=${offers}`
    : `words=${quoted(listOf(offers).join(' '))}`
}

function bash({ main, commands }: Model): string {
  const behind = (command: string, options: readonly Option[]): string[] =>
    options
      .filter(({ value }) => value !== undefined)
      .map((option) => {
        const patterns = namesOf(option).map((name) => quoted(`${command} ${name}`))
        return `    ${patterns.join(' | ')}) ${bashOffer(option.offers)} ;;`
      })
  const words = commands.map(({ name, options, operand }) => {
    const list = `words=${quoted(options.flatMap(namesOf).join(' '))}`
    // operands are offered by default, options once a dash was typed
    const choice = operand === undefined ? list : `[[ $current == -* ]] && ${list} || ${bashOffer(operand)}`
    return `    ${name}) ${choice} ;;`
  })
  const names = commands.map(({ name }) => name)
  return `# bash completion of ${PROGRAM}: source <(${PROGRAM} completions bash)
${FUNCTION}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command='' offer='' words=''
  if ((COMP_CWORD > 1)); then
    case \${COMP_WORDS[1]} in ${names.join(' | ')}) command=\${COMP_WORDS[1]} ;; esac
  fi
  case "$command $previous" in
${[...behind('', main), ...commands.flatMap(({ name, options }) => behind(name, options))].join('\n')}
  esac
  if [[ -z $offer$words ]]; then
    case $command in
${words.join('\n')}
    *)
      words=${quoted(main.flatMap(namesOf).join(' '))}
      ((COMP_CWORD == 1)) && words+=${quoted(` ${names.join(' ')}`)}
      ;;
    esac
  fi
  case $offer in
    nothing) COMPREPLY=() ;;
    files) mapfile -t COMPREPLY < <(compgen -f -- "$current") && compopt -o filenames 2>/dev/null ;;
    directories) mapfile -t COMPREPLY < <(compgen -d -- "$current") && compopt -o filenames 2>/dev/null ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
  esac
  return 0
}
complete -F ${FUNCTION} ${PROGRAM}
`
}

/** Escapes text for a specification of zsh's _arguments. */
const zshText = (text: string): string => text.replace(/[\\:[\]]/g, (char) => `\\${char}`)

function zshAction(offers: Offers | undefined): string {
  if (offers === undefined) return ' '
  if (offers === 'files') return '_files'
  return offers === 'directories' ? '_files -/' : `(${listOf(offers).join(' ')})`
}

function zshSpecs(options: readonly Option[]): string[] {
  return options.flatMap((option) =>
    namesOf(option).map((name) => {
      const { value, offers } = option
      const argument = value === undefined ? '' : `:${zshText(value.replace(/[<>]/g, ''))}:${zshAction(offers)}`
      return quoted(`*${name}[${zshText(oneLine(option))}]${argument}`)
    }),
  )
}

function zsh({ main, commands }: Model): string {
  const cases = commands.map(({ name, options, operand }) => {
    const specs = [...zshSpecs(options), ...(operand === undefined ? [] : [quoted(`:${name}:${zshAction(operand)}`)])]
    return `    ${name}) shift words; ((CURRENT--)); _arguments ${specs.join(' ')}; return ;;`
  })
  return `#compdef ${PROGRAM}
# zsh completion of ${PROGRAM}: source <(${PROGRAM} completions zsh), or a file _${PROGRAM} in $fpath
${FUNCTION}() {
  local -a commands
  commands=(${commands.map(({ name, summary }) => quoted(`${name}:${zshText(summary)}`)).join(' ')})
  if ((CURRENT > 2)); then
    case $words[2] in
${cases.join('\n')}
    esac
  fi
  ((CURRENT == 2)) && _describe -t commands command commands
  _arguments ${zshSpecs(main).join(' ')}
}
if [[ $funcstack[1] == ${`_${PROGRAM}`} ]]; then
  ${FUNCTION} "$@"
else
  compdef ${FUNCTION} ${PROGRAM}
fi
`
}

const fishQuoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

function fishAction(offers: Offers | undefined): string {
  if (offers === undefined) return '-x'
  if (offers === 'files') return '-r -F'
  return `-x -a ${fishQuoted(offers === 'directories' ? '(__fish_complete_directories)' : listOf(offers).join(' '))}`
}

function fish({ main, commands }: Model): string {
  const names = commands.map(({ name }) => name).join(' ')
  const lines = (condition: string, options: readonly Option[]): string[] =>
    options.map((option) => {
      const { short, long, value, offers } = option
      const letter = short === undefined ? '' : ` -s ${short.slice(1)}`
      const argument = value === undefined ? '' : ` ${fishAction(offers)}`
      return `complete -c ${PROGRAM} -n ${fishQuoted(condition)}${letter} -l ${long.slice(2)}${argument} -d ${fishQuoted(oneLine(option))}`
    })
  return [
    `# fish completion of ${PROGRAM}: ${PROGRAM} completions fish | source`,
    `complete -c ${PROGRAM} -f`,
    ...commands.map(({ name, summary }) => {
      const first = fishQuoted('test (count (commandline -opc)) -eq 1')
      return `complete -c ${PROGRAM} -n ${first} -a ${name} -d ${fishQuoted(summary)}`
    }),
    ...lines(`not __fish_seen_subcommand_from ${names}`, main),
    ...commands.flatMap(({ name, options, operand }) => [
      ...lines(`__fish_seen_subcommand_from ${name}`, options),
      ...(operand === undefined
        ? []
        : [`complete -c ${PROGRAM} -n ${fishQuoted(`__fish_seen_subcommand_from ${name}`)} ${fishAction(operand)}`]),
    ]),
    '',
  ].join('\n')
}

const SHELLS: Readonly<Record<string, (model: Model) => string>> = { bash, zsh, fish }
const SHELL_NAMES = Object.keys(SHELLS)

export const command: Command = {
  options: [],
  operand: { name: `<${SHELL_NAMES.join('|')}>`, offers: SHELL_NAMES },
  notes: `Installation:
  bash  ${PROGRAM} completions bash > ~/.local/share/bash-completion/completions/${PROGRAM}
  zsh   ${PROGRAM} completions zsh > a file _${PROGRAM} in a directory of $fpath
  fish  ${PROGRAM} completions fish > ~/.config/fish/completions/${PROGRAM}.fish`,
  async run({ runtime, commandLine }, { operands }) {
    const [name] = operands
    if (name === undefined) throw new CommandError(`no shell given: must be one of ${SHELL_NAMES.join(', ')}`)
    const print = Object.hasOwn(SHELLS, name) ? SHELLS[name] : undefined
    if (print === undefined) {
      throw new CommandError(`unknown shell ${JSON.stringify(name)}: must be one of ${SHELL_NAMES.join(', ')}`)
    }
    runtime.print('stdout', print(await model(commandLine)))
    return 0
  },
}
