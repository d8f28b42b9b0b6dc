/** Option tables: parsing of words, and how a subcommand uses them. */

import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { COMMAND_LINE, MAIN_OPTIONS } from '../../host/cli/args.ts'
import { type Command, CommandError, runCommand } from '../../host/cli/commands/command.ts'
import { COMMANDS } from '../../host/cli/commands/table.ts'
import { type Given, type Option, parseOptions } from '../../host/cli/options.ts'
import { ConfigError } from '../../host/errors.ts'
import { MemoryNetwork, NO_CIPHERS } from './memory-runtime.ts'

const test = suite('options')

const OPTIONS: readonly Option[] = [
  { long: '--file', short: '-f', value: '<file>', help: 'a file' },
  { long: '--json', help: 'as JSON' },
]

const parse = (line: string) => parseOptions(OPTIONS, line === '' ? [] : line.split(' '))

function sorted(line: string): Given {
  const given = parse(line)
  if (typeof given === 'string') throw new Error(given)
  return given
}

test('words are parsed into options and operands, and the last of a repeated option wins', () => {
  const given = sorted('a -f x --json --file y b - -- --json c')
  assert.equal([...given.values], [['--file', 'y']])
  assert.equal([...given.flags], ['--json'])
  assert.equal(given.operands, ['a', 'b', '-', '--json', 'c'])
  assert.is(sorted('-f --json').values.get('--file'), '--json')
  assert.is(sorted('--file=x').values.get('--file'), 'x')
  assert.is(sorted('-fx').values.get('--file'), 'x')
  assert.equal(sorted('').operands, [])
})

test('unknown options and missing arguments are reported by name', () => {
  assert.is(parse('--bogus'), 'unknown option "--bogus"')
  assert.is(parse('--jsn'), 'unknown option "--jsn", did you mean --json?')
  assert.is(parse('--json=1'), 'option --json takes no argument, not "1"')
  assert.is(parse('-f'), 'option -f requires an argument')
})

async function outcome(run: Command['run'], words: readonly string[], operand?: Command['operand']) {
  const network = new MemoryNetwork()
  const command: Command = { options: OPTIONS, run, ...(operand && { operand }) }
  const entry = { name: 'try', summary: 'tries', load: async () => ({ command }) }
  const runtime = network.runtime()
  const status = await runCommand({ runtime, crypto: NO_CIPHERS, commandLine: COMMAND_LINE }, entry, words)
  return { status, text: network.printed.join('') }
}

test('a command exits with its own status; an error yields status 1 and one line', async () => {
  assert.equal(await outcome(async () => 0, []), { status: 0, text: '' })
  assert.equal(await outcome(async () => 1, ['--json']), { status: 1, text: '' })
  for (const error of [new CommandError('no way'), new ConfigError('a', '', 'no way')]) {
    const { status, text } = await outcome(async () => {
      throw error
    }, [])
    assert.is(status, 1)
    assert.match(text, /^kcptun-wasm try: .*no way\n$/)
  }
})

test('a command prints its usage, and rejects unknown words', async () => {
  const never = async () => {
    throw new Error('must not run')
  }
  const help = await outcome(never, ['-f', 'x', '-h'])
  assert.is(help.status, 0)
  for (const text of ['usage: kcptun-wasm try', '-f, --file <file>', '--json', '-h, --help'])
    assert.match(help.text, text)
  for (const words of [['--bogus'], ['x'], ['-f']]) {
    const { status, text } = await outcome(never, words)
    assert.is(status, 1)
    assert.match(text, /^kcptun-wasm try: .+\n$/)
  }
  const operand = { name: '<shell>', offers: [] }
  assert.is((await outcome(never, ['a', 'b'], operand)).status, 1)
  assert.is((await outcome(async (_, { operands }) => operands.length - 1, ['a'], operand)).status, 0)
})

test('every entry of the table loads, and its option names are distinct', async () => {
  for (const entry of COMMANDS) {
    const { command } = await entry.load()
    const names = command.options.flatMap(({ long, short }) => (short === undefined ? [long] : [long, short]))
    assert.is(new Set(['-h', '--help', ...names]).size, names.length + 2, entry.name)
  }
})

test('the manual lists every command and every option', async () => {
  const manual = readFileSync('docs/kcptun-wasm.8', 'utf8').replaceAll('\\-', '-')
  for (const { long } of MAIN_OPTIONS) assert.match(manual, long)
  for (const { name, load } of COMMANDS) {
    const { command } = await load()
    if (command.options.length === 0 && command.operand === undefined) continue
    assert.match(manual, `\n.SS ${name}\n`)
    for (const { long } of command.options) assert.match(manual, long, `${name} ${long}`)
  }
})

test.run()
