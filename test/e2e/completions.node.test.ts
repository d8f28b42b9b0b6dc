// time limit: 120 s
/** Completions as computed by the shells, compared with the option tables. */

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MAIN_OPTIONS } from '../../host/cli/args.ts'
import { HELP } from '../../host/cli/commands/command.ts'
import { COMMANDS } from '../../host/cli/commands/table.ts'
import type { Option } from '../../host/cli/options.ts'
import { methods } from '../../host/crypto/methods.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { run } from '../../testkit/process.ts'
import { skip } from '../skip.ts'

const SHELL_TIMEOUT_MS = 30_000

/** $1 is the file with the completions; the words follow, the last one being the incomplete current word. */
const BASH = `
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
complete -p kcptun-wasm >/dev/null && _kcptun_wasm kcptun-wasm
((\${#COMPREPLY[@]})) && printf '%s\\n' "\${COMPREPLY[@]}"
exit 0`

const FISH = `
source $argv[1]
complete -C (string join -- ' ' $argv[2..]) | string replace -r '\\t.*' ''
exit 0`

/** A shell on its own terminal that prints every added match. */
const ZSH = `
zmodload zsh/zpty || exit 2
zpty shell zsh -fi
zpty -w shell "PROMPT=; autoload -Uz compinit; compinit -D -u; source \${(q)1}
compadd() {
  local -a hits
  [[ \\\${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] && { builtin compadd \\"\\$@\\"; return }
  builtin compadd -O hits \\"\\$@\\"; print -l -- '' hit:\\\${^hits}; builtin compadd \\"\\$@\\"
}
finish() { print -- '' all-done; exit }
comppostfuncs=(finish); bindkey '^I' complete-word; print -- ready"
zpty -r shell line '*ready'$'\\r\\n''*'
zpty -n -w shell "\${(j: :)@[2,-1]}"$'\\t'
zpty -r shell line '*all-done*'
print -r -- \${\${(M)\${(f)\${line//$'\\r'/}}:#hit:*}#hit:} | tr ' ' '\\n'`

interface Shell {
  readonly name: string
  /** Command that runs a script, which follows with its arguments. */
  readonly command: readonly [string, ...string[]]
  readonly script: string
  /** Prints nothing and succeeds if the shell exists and is recent enough. */
  readonly probe: string
}

const SHELLS: readonly Shell[] = [
  { name: 'bash', command: ['bash', '--norc', '-c'], script: BASH, probe: '((BASH_VERSINFO[0] >= 4))' },
  { name: 'zsh', command: ['zsh', '-fc'], script: ZSH, probe: 'zmodload zsh/zpty && autoload +X compinit' },
  { name: 'fish', command: ['fish', '--no-config', '-c'], script: FISH, probe: 'true' },
]

const test = suite('completions')

const namesOf = (options: readonly Option[]): string[] =>
  options.flatMap(({ short, long }) => (short === undefined ? [long] : [short, long]))

function runShell({ command, script }: Shell, file: string, words: readonly string[]): string[] {
  const [program, ...leading] = command
  const extra = program === 'fish' ? [file, ...words] : [program, file, ...words]
  const { status, stdout, stderr } = spawnSync(program, [...leading, script, ...extra], {
    encoding: 'utf8',
    timeout: SHELL_TIMEOUT_MS,
    input: '',
  })
  assert.is(status, 0, `${program} ${words.join(' ')}: ${stderr}`)
  assert.is(stderr, '', words.join(' '))
  return [...new Set(stdout.split('\n').filter((line) => line !== ''))]
}

for (const shell of SHELLS) {
  const { name, command, probe } = shell
  const title = `${name} offers the entries of the option tables`
  if (spawnSync(command[0], [...command.slice(1), probe], { timeout: SHELL_TIMEOUT_MS }).status !== 0) {
    skip(test, title, `no ${name} here that can complete`)
    continue
  }
  test(title, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    try {
      const [fromNode = '', fromBun] = await Promise.all(
        RUNTIMES.map((program) => run(program, ['completions', name]).then(({ stdout }) => stdout)),
      )
      assert.is(fromNode, fromBun)
      const file = join(dir, `completions.${name}`)
      writeFileSync(file, fromNode)
      writeFileSync(join(dir, 'config.json'), '')
      mkdirSync(join(dir, 'configs'))
      const offered = (...words: string[]): string[] => runShell(shell, file, ['kcptun-wasm', ...words]).sort()
      const assertOffers = (words: readonly string[], expected: readonly string[]): void =>
        assert.equal(offered(...words), [...expected].sort(), words.join(' '))

      const first = offered('')
      for (const { name: entry } of COMMANDS) assert.ok(first.includes(entry), entry)
      assertOffers(['-'], namesOf(MAIN_OPTIONS))
      for (const { name: entry, load } of COMMANDS) {
        const { options } = (await load()).command
        assertOffers([entry, '-'], namesOf([HELP, ...options]))
      }
      assertOffers(['ch'], ['check'])
      assertOffers(['--genpsk', ''], methods)
      assertOffers(['-v', '--log-format', 'j'], ['json'])
      assertOffers(['init', '--listen', '1', '--method', 'a'], ['aes256gcm'])
      assertOffers(['init', '--server', ''], [])
      assertOffers(['completions', ''], ['bash', 'fish', 'zsh'])
      const files = (...words: string[]): string[] => offered(...words).map((path) => basename(path))
      assert.ok(files('check', '-c', `${dir}/config`).includes('config.json'))
      assert.ok(files('--config', `${dir}/config`).includes('config.json'))
      assert.equal(files('init', '--dir', `${dir}/con`), ['configs'])
    } finally {
      rmSync(dir, { recursive: true })
    }
  })
}

test('completions requires the name of a known shell', async () => {
  for (const words of [[], ['tcsh'], ['toString'], ['bash', 'zsh']]) {
    const { code, stdout, stderr } = await run('node', ['completions', ...words])
    assert.is(code, 1)
    assert.is(stdout, '')
    assert.match(stderr, /^kcptun-wasm completions: .+\n$/)
  }
})

test.run()
