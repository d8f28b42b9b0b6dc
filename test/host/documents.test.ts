/**
 * What the documents show works: configurations pass `check` without a warning, command lines have known commands and
 * options.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MAIN_OPTIONS } from '../../host/cli/args.ts'
import { COMMANDS } from '../../host/cli/commands/table.ts'
import { tryCommand } from './command-line.ts'

const test = suite('documents')
const DOCUMENTS = [
  'README.md',
  ...readdirSync('docs').flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : [])),
]

/** Fenced blocks of a language. */
function blocks(text: string, language: string): string[] {
  const found = [...text.matchAll(/^( *)```(\w*)\n([\s\S]*?)^\1```/gm)]
  return found.flatMap(([, , name, body = '']) => (name === language ? [body] : []))
}

/** A configuration with a real key in place of what stands for one: each another one. */
function withKeys(block: string): string {
  let number = 0
  const key = (): string => btoa(String.fromCharCode(++number).repeat(32))
  return block.replaceAll(/("psk": )"[^"]*"/g, (_, name: string) => `${name}"${key()}"`)
}

/** Command lines of kcptun-wasm: lines of shell blocks, and code inside the text that begins like one. */
function commandLines(text: string): string[] {
  const lines = blocks(text, 'sh').flatMap((block) => block.replaceAll('\\\n', ' ').split('\n'))
  const inline = [...text.matchAll(/`(kcptun-wasm (?:-|[a-z]+ -)[^`\n]+)`/g)].map(([, code = '']) => code)
  const command = /(?:^|sudo |&& )kcptun-wasm (.*?)(?: *#.*| (?:&&|>|\|) .*)?$/
  return [...lines, ...inline].flatMap((line) => command.exec(line)?.[1] ?? [])
}

test('every configuration is valid, without a warning', async () => {
  let count = 0
  for (const path of DOCUMENTS) {
    for (const block of blocks(readFileSync(path, 'utf8'), 'json')) {
      const files = new Map([['a.json', withKeys(block)]])
      const { stdout } = await tryCommand('check', ['-c', 'a.json', '--json'], { files, mode: 0o600 })
      const report = JSON.parse(stdout)
      assert.ok(report.valid, `${path}: ${stdout}\n${block}`)
      // where a document has a password it says what is better
      const all: string[] = [report, ...(report.tunnels ?? [])].flatMap(({ warnings }) => warnings)
      const warnings = all.filter((text: string) => !text.startsWith('config key password'))
      assert.equal(warnings, [], `${path}: ${block}`)
      count++
    }
  }
  assert.ok(count > 15, `${count} configurations`)
})

test('pairs share method and ports', () => {
  for (const name of ['recipes', 'tutorial']) {
    const found = blocks(readFileSync(`docs/${name}.md`, 'utf8'), 'json').map((block) => JSON.parse(block))
    for (let i = 0; i + 1 < found.length; i += 2) {
      const [servers, clients] = [found[i], found[i + 1]].map((file) =>
        (file.tunnels ?? [file]).map((entry: object) => ({ ...file, ...entry })),
      )
      const port = (address: string): string => address.replace(/^.*:/, '')
      for (const [index, server] of servers.entries()) {
        assert.is(port(server.kcp_bind), port(clients[index].kcp_connect), JSON.stringify(found[i]))
        assert.is(server.method, clients[index].method)
      }
    }
  }
})

test('every command line has a known command and known options', async () => {
  let count = 0
  for (const path of DOCUMENTS) {
    for (const line of commandLines(readFileSync(path, 'utf8'))) {
      const words = line.split(' ')
      const entry = COMMANDS.find(({ name }) => name === words[0])
      if (entry === undefined) assert.match(words[0] ?? '', /^(-|[\w./]+\.json$)/, `${path}: ${line}`)
      const options = entry === undefined ? MAIN_OPTIONS : (await entry.load()).command.options
      const known = ['-h', '--help', ...options.flatMap(({ long, short }) => [long, short ?? long])]
      for (const word of words) {
        if (/^-./.test(word)) assert.ok(known.includes(word.replace(/=.*$/, '')), `${path}: ${line}: ${word}`)
      }
      count++
    }
  }
  assert.ok(count > 30, `${count} command lines`)
})

test.run()
