/** Command-line parsing (protocol.md 10.5). */

import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Args, adjustLevel, parseArgs, usageText } from '../../host/cli/args.ts'

const test = suite('args')

const words = (line: string) => (line === '' ? [] : line.split(' '))
const parse = (line: string) => parseArgs(words(line))

/** The result of `run` without -u and -d. */
const run = (config: string, verbosity: number): Args => ({
  kind: 'run',
  config,
  verbosity,
  user: undefined,
  daemonize: false,
  logFormat: 'plain',
})

function running(line: string): Extract<Args, { kind: 'run' }> {
  const args = parse(line)
  if (args.kind !== 'run') throw new Error(`not run: ${line}`)
  return args
}

function refused(line: string, message: string, usage: boolean): void {
  const args = parse(line)
  if (args.kind !== 'error') {
    throw new Error(`accepted: ${line}`)
  }
  assert.match(args.message, message, line)
  assert.is(args.usage, usage, line)
  assert.is(args.status, 1)
}

test('MUST 72: -c and --config name the file, and the last one wins', () => {
  assert.equal(parse('-c a.json'), run('a.json', 0))
  assert.equal(parse('--config a.json'), run('a.json', 0))
  assert.equal(parse('-c a -v --config b'), run('b', 1))
  assert.equal(parse('-c -v'), run('-v', 0))
  assert.equal(parse('-c --'), run('--', 0))
})

test('a link is refused wherever it stands, and is not repeated', () => {
  const link = 'kcptun-wasm://v1/eyJwc2siOiJzZWNyZXQifQ'
  for (const line of [
    link,
    `import ${link}`,
    `import - ${link}`,
    `import -o ${link}`,
    `-c ${link}`,
    `--config=${link}`,
  ]) {
    refused(line, 'pass it on standard input, to "kcptun-wasm import -"', false)
    const args = parse(line)
    assert.not.ok(args.kind === 'error' && args.message.includes('eyJ'))
  }
})

test('--obfs-firewall takes effect after all options are parsed', () => {
  assert.equal(parse('--obfs-firewall -c a'), { kind: 'obfs-firewall', config: 'a', verbosity: 0 })
  assert.equal(parse('-c a --obfs-firewall -v'), { kind: 'obfs-firewall', config: 'a', verbosity: 1 })
  refused('--obfs-firewall', 'config file', true)
  refused('--obfs-firewall --nonsense', 'nonsense', true)
})

test('MUST 72: without a config file, an error and the usage are printed and the status is 1', () => {
  refused('', 'config file', true)
  refused('-v -s', 'config file', true)
  refused('-- -c a', 'config file', true)
  refused('-d', 'start with "kcptun-wasm init", or pass one with -c', true)
})

test('MUST 72: -v and -s are counted, and the level is clamped once', () => {
  assert.equal(parse('-v --verbose -v -s -c a --silence'), run('a', 1))
  assert.equal(parse('-s -s -c a'), run('a', -2))
  const levels = [
    [4, 0],
    [4, 2],
    [4, 9],
    [4, -9],
    [8, 1],
    [0, -1],
    [6, -2],
  ] as const
  assert.equal(
    levels.map(([level, verbosity]) => adjustLevel(level, verbosity)),
    [4, 6, 8, 0, 8, 0, 4],
  )
})

test('MUST 72: help, version and list-methods take effect when they are encountered', () => {
  for (const [line, kind] of [
    ['-h', 'help'],
    ['--help', 'help'],
    ['-v -c a -h --bogus', 'help'],
    ['-d -u x -h', 'help'],
    ['--genpsk x -h', 'help'],
    ['--version -x', 'version'],
    ['--list-methods -h', 'list-methods'],
    ['-h --list-methods', 'help'],
  ] as const) {
    assert.is(parse(line).kind, kind, line)
  }
  refused('--bogus -h', 'bogus', true)
  refused('-- -h', 'config file', true)
})

test('MUST 72: unknown options and stray arguments are errors with usage', () => {
  for (const word of ['x', '-x', '-', '--Help', '---', '--no-verbose', '--__proto__']) {
    const args = parseArgs(['-c', 'a', word])
    assert.is(args.kind, 'error', word)
    assert.ok(args.kind === 'error' && args.usage && args.message.includes(word), word)
  }
  refused('-c a --verbose=1', 'takes no argument, not "1"', false)
  assert.is(parseArgs(['-c', 'a', '']).kind, 'error')
})

test('MUST 72: a missing option argument is an error without usage', () => {
  for (const option of ['-c', '--config', '-u', '--user', '--log-format']) {
    refused(option, option, false)
    refused(`-c a ${option}`, 'requires an argument', false)
  }
})

test('options may be written together and with =, and the config file needs no -c', () => {
  assert.equal(parse('-vv -c a'), run('a', 2))
  assert.equal(parse('-vsvvc a'), run('a', 2))
  assert.equal(parse('--config=a -v'), run('a', 1))
  assert.equal(parse('-ca'), run('a', 0))
  assert.equal(parse('a.json -v'), run('a.json', 1))
  assert.equal(parse('-v a.json'), run('a.json', 1))
  assert.is(running('--user=nobody --log-format=json a').logFormat, 'json')
  assert.equal(parse('--obfs-firewall a'), { kind: 'obfs-firewall', config: 'a', verbosity: 0 })
  refused('a b', 'unknown argument: "b"', true)
  refused('a -c b', 'unknown argument: "a"', true)
})

test('misspelt options and commands are answered with a suggestion', () => {
  refused('--confg a', 'unknown option "--confg", did you mean --config?', true)
  refused('--Verbose -c a', 'did you mean --verbose?', true)
  refused('--genspk', 'did you mean --genpsk?', true)
  refused('inti', 'unknown command "inti", did you mean init?', true)
  refused('docter', 'did you mean doctor?', true)
  const args = parse('--zzz')
  assert.ok(args.kind === 'error' && !args.message.includes('mean'))
  assert.equal(parse('tunnel'), run('tunnel', 0))
})

test('MUST 72: -- ends the options, and the rest is ignored', () => {
  assert.equal(parse('-c a -- -x y -c'), run('a', 0))
})

test('MUST 72: --genpsk takes effect after the other options and ignores -c', () => {
  assert.equal(parse('--genpsk aes256gcm'), { kind: 'genpsk', method: 'aes256gcm', verbosity: 0 })
  assert.equal(parse('--genpsk a -c b --genpsk c -s'), { kind: 'genpsk', method: 'c', verbosity: -1 })
  refused('--genpsk aes256gcm stray', 'stray', true)
  assert.equal(parse('--genpsk'), { kind: 'genpsk', method: undefined, verbosity: 0 })
  assert.equal(parse('--genpsk -v'), { kind: 'genpsk', method: undefined, verbosity: 1 })
  assert.equal(parse('-v --genpsk --'), { kind: 'genpsk', method: undefined, verbosity: 1 })
  assert.equal(parse('--genpsk=aes256gcm'), { kind: 'genpsk', method: 'aes256gcm', verbosity: 0 })
})

test('-d and -u are passed on, and the last user wins', () => {
  for (const line of ['-d -c a', '-c a --daemonize']) assert.ok(running(line).daemonize, line)
  assert.not(running('-c a').daemonize)
  assert.is(running('-c a').user, undefined)
  assert.is(running('-u nobody -c a').user, 'nobody')
  assert.is(running('-u nobody -c a --user other:group').user, 'other:group')
})

test('a subcommand is recognized only as the first word and receives the following words unchanged', () => {
  for (const name of ['init', 'check', 'doctor', 'health', 'top', 'completions']) {
    const args = parse(`${name} -c a --bogus -h`)
    if (args.kind !== 'command') throw new Error(`not a command: ${name}`)
    assert.is(args.entry.name, name)
    assert.equal(args.words, ['-c', 'a', '--bogus', '-h'])
    refused(`-c a ${name}`, 'unknown argument', true)
    assert.equal(parse(`-c ${name}`), run(name, 0))
    assert.match(usageText('kcptun-wasm'), `  ${name} `)
  }
  refused('Init', 'did you mean init', true)
  refused('-- init', 'config file', true)
})

test('--log-format accepts plain and json', () => {
  assert.is(running('-c a').logFormat, 'plain')
  assert.is(running('--log-format json -c a').logFormat, 'json')
  assert.is(running('--log-format json --log-format plain -c a').logFormat, 'plain')
  refused('-c a --log-format xml', '--log-format xml: must be plain or json', false)
  refused('-c a --log-format', 'requires an argument', false)
})

test('the usage text lists every option', () => {
  const text = usageText('kcptun-wasm')
  assert.match(text, 'usage: kcptun-wasm ')
  for (const option of [
    '-h',
    '--help',
    '-c',
    '--config',
    '-v',
    '--verbose',
    '-s',
    '--silence',
    '-u',
    '--user',
    '-d',
    '--daemonize',
  ]) {
    assert.match(text, option)
  }
  for (const option of ['--version', '--list-methods', '--genpsk', '--log-format']) {
    assert.match(text, option)
  }
})

test('any words yield a result, and every error has status 1 and a message', () => {
  const kinds = new Set<Args['kind']>()
  const word = fc.constantFrom(
    '-c',
    '-h',
    '-v',
    '-s',
    '-u',
    '-d',
    '--genpsk',
    '--list-methods',
    '--version',
    '--',
    'a',
    '',
    '-x',
  )
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (argv) => {
      const args = parseArgs(argv)
      kinds.add(args.kind)
      assert.ok(args.kind !== 'error' || (args.status === 1 && args.message !== ''))
    }),
    { numRuns: 2000 },
  )
  assert.equal([...kinds].sort(), ['error', 'genpsk', 'help', 'list-methods', 'run', 'version'])
})

test.run()
