/**
 * `kcptun-wasm import`: writes configuration files from what another machine or another program has: a link of `init`,
 * a configuration, or the settings of a Go kcptun, from which it makes a pair. Nothing of it is an argument: it may
 * contain a key.
 */

import { type Config, type ConfigFile, MODE_CLIENT, MODE_SERVER } from '../../config/config.ts'
import { formatHostPort, type Role, SCHEMA_URL } from '../../config/generate.ts'
import { type GoPair, type GoWishes, importGo, missingWishes } from '../../config/go-import.ts'
import { type GoEnd, isGoDocument, readGoCommand, readGoDocument } from '../../config/go-settings.ts'
import { readJson } from '../../config/json.ts'
import { isLink, readLink } from '../../config/link.ts'
import { keyWarnings } from '../../config/lint.ts'
import { configWarnings } from '../../config/rules.ts'
import { examine } from '../../config/unknown-keys.ts'
import { ConfigError, messageOf } from '../../errors.ts'
import { isLoopbackHost, parseHostPort } from '../../net/address.ts'
import type { CommandConsole, Runtime } from '../../runtime.ts'
import { PROGRAM } from '../../version.ts'
import type { Given, Option } from '../options.ts'
import { type Command, CommandError } from './command.ts'
import { type Destination, DIR, expectRoom, pathOf, textOf, writeAll } from './config-files.ts'
import { consoleOf, invocationOf, shellWord } from './invocation.ts'
import { freePort, readLocal } from './places.ts'
import { Prompt } from './prompt.ts'
import { startableFile } from './startable.ts'

/** Longest input, in bytes. */
const INPUT_MAX_BYTES = 1 << 20
const STDIN = '-'

const OUTPUT: Option = {
  long: '--output',
  short: '-o',
  value: '<file>',
  help: 'file to write, default client.json, server.json or\nrendezvous.json by what is imported',
  offers: 'files',
}
const FORCE: Option = { long: '--force', help: 'replace existing files' }
const SERVER: Option = {
  long: '--server',
  value: '<host[:port]>',
  help: 'Go kcptun: address of the server, as seen by the client',
}
const LISTEN: Option = {
  long: '--listen',
  value: '<[host:]port>',
  help: 'Go kcptun: TCP address on which the client accepts\napplications',
}
const CONNECT: Option = {
  long: '--connect',
  value: '<[host:]port>',
  help: 'Go kcptun: TCP address of the target, as seen by the\nserver',
}
const TUNING: Option = {
  long: '--tuning',
  help: 'Go kcptun: take over windows, buffers and the settings\nof its mode, which are automatic otherwise',
}
const NEW_KEY: Option = { long: '--new-key', help: 'Go kcptun: a random psk in place of its passphrase' }
const GO_OPTIONS = [SERVER, LISTEN, CONNECT, TUNING, NEW_KEY]

/** What one operand contains. */
type Content =
  | { readonly kind: 'config'; readonly text: string; readonly file: ConfigFile; readonly warnings: readonly string[] }
  | { readonly kind: 'go'; readonly end: GoEnd }

const decode = (bytes: Uint8Array): string => new TextDecoder('utf-8', { fatal: true }).decode(bytes)

/** Whether a whole link was pasted into the terminal: then no end of input has to be typed. */
function isWholeLink(bytes: Uint8Array): boolean {
  try {
    const text = decode(bytes)
    if (!text.endsWith('\n') || !isLink(text)) return false
    readLink(text)
    return true
  } catch {
    return false
  }
}

async function readBytes(runtime: Runtime, operand: string): Promise<Uint8Array> {
  const commandConsole = consoleOf(runtime)
  try {
    if (operand !== STDIN) {
      const bytes = await runtime.readFile(operand)
      if (bytes.length > INPUT_MAX_BYTES) throw new Error(`longer than ${INPUT_MAX_BYTES} bytes`)
      return bytes
    }
    const isTyped = commandConsole.isTerminal('stdin')
    if (isTyped) runtime.print('stderr', 'Paste the link and press Enter; after anything else, press Ctrl-D:\n')
    return await commandConsole.readInput(INPUT_MAX_BYTES, (bytes) => isTyped && isWholeLink(bytes))
  } catch (error) {
    throw new CommandError(`${nameOf(operand)}: ${messageOf(error)}`)
  }
}

const nameOf = (operand: string): string => (operand === STDIN ? 'standard input' : operand)

/** A configuration, checked as at start. @throws ConfigError */
function configContent(text: string): Content {
  const bytes = new TextEncoder().encode(text)
  const file = startableFile(bytes)
  const each = file.tunnels?.flatMap((tunnel) => configWarnings(tunnel).map((warning) => `${tunnel.name}: ${warning}`))
  const warnings = [...keyWarnings(examine(readJson(bytes))), ...(each ?? configWarnings(file.config))]
  return { kind: 'config', text: text.endsWith('\n') ? text : `${text}\n`, file, warnings }
}

/** @throws ConfigError */
function contentOf(text: string): Content {
  const start = text.trimStart()
  if (isLink(start)) return configContent(JSON.stringify({ $schema: SCHEMA_URL, ...readLink(start) }, null, 2))
  if (!start.startsWith('{')) return { kind: 'go', end: readGoCommand(text) }
  const document = readJson(new TextEncoder().encode(text))
  return isGoDocument(document) ? { kind: 'go', end: readGoDocument(document) } : configContent(text)
}

/** @throws CommandError that names the operand */
async function read(runtime: Runtime, operand: string): Promise<Content> {
  const name = nameOf(operand)
  // a configuration in place of its file
  if (/^\s*\{/.test(operand)) {
    throw new CommandError('a configuration contains the key: pass it in a file, or on standard input as "import -"')
  }
  const bytes = await readBytes(runtime, operand)
  let text: string
  try {
    text = decode(bytes)
  } catch {
    throw new CommandError(`${name}: invalid UTF-8`)
  }
  if (text.trim() === '') throw new CommandError(`${name}: empty; expected a link, a configuration or a command line`)
  try {
    return contentOf(text)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new CommandError(`${name}: ${error.key === '' ? error.reason : error.message}`)
  }
}

function roleOf({ mode }: Config): Role {
  if ((mode & MODE_SERVER) !== 0) return 'server'
  return (mode & MODE_CLIENT) !== 0 ? 'client' : 'rendezvous'
}

const list = (title: string, lines: readonly string[]): string =>
  lines.length === 0 ? '' : `\n${title}:\n${lines.map((line) => `- ${line}\n`).join('')}`

/** Where the files go. @throws CommandError */
function destination({ values, flags }: Given): Destination {
  const remedy = `replace it with ${FORCE.long}, or choose another place with -o or ${DIR.long}`
  if (values.has(OUTPUT.long) && values.has(DIR.long)) {
    throw new CommandError(`${OUTPUT.long} and ${DIR.long} are mutually exclusive`)
  }
  return { dir: values.get(DIR.long) ?? '.', isForced: flags.has(FORCE.long), remedy }
}

/** Writes one file with a configuration. */
function writeConfig(runtime: Runtime, given: Given, { text, file, warnings }: Content & { kind: 'config' }): void {
  const other = GO_OPTIONS.find(({ long }) => given.values.has(long) || given.flags.has(long))
  if (other !== undefined)
    throw new CommandError(`${other.long} is for settings of a Go kcptun, this is a configuration`)
  const { config, tunnels } = file
  const role = tunnels === undefined ? roleOf(config) : 'tunnels'
  const to = destination(given)
  const path = given.values.get(OUTPUT.long) ?? pathOf(to.dir, role)
  writeAll(consoleOf(runtime), to, [{ path, text }])
  const hasKey = (tunnels ?? [config]).some(
    ({ psk, password, keys }) => (psk ?? password) !== undefined || keys.length > 0,
  )
  const secret = hasKey ? ' It contains the key: keep it secret.' : ''
  const start = `${invocationOf(runtime)} -c ${shellWord(path)}`
  const what =
    tunnels === undefined ? `a ${role}${role === 'rendezvous' ? ' server' : ''}` : `${tunnels.length} tunnels`
  runtime.print('stdout', `Wrote ${path}, ${what}.${secret}\n`)
  runtime.print('stdout', `${list('warnings', warnings)}\nStart it:\n\n    ${start}\n`)
}

/** `host:port`, or a host whose port the server's settings have. @throws ConfigError */
function readServer(text: string): NonNullable<GoWishes['server']> {
  const isBare = /^[^:]+$|\]$/.test(text)
  const { host, port } = parseHostPort('', isBare ? `${text}:1` : text, 'connect')
  if (port === 0) throw new ConfigError('', text, 'the port must not be 0')
  return { host, port: isBare ? undefined : port }
}

/** The options, and answers for what neither they nor the settings say. */
async function readWishes(runtime: Runtime, given: Given, ends: readonly GoEnd[]): Promise<GoWishes> {
  const prompt = new Prompt(runtime, given)
  const option = <Result>(which: Option, parse: (text: string) => Result): Result | undefined =>
    prompt.has(which) ? prompt.flag(which, '', parse) : undefined
  const readListen = (text: string): string => readLocal(text, 'bind')
  const readConnect = (text: string): string => readLocal(text, 'connect')
  const wishes: GoWishes = {
    server: option(SERVER, readServer),
    listen: option(LISTEN, readListen),
    connect: option(CONNECT, readConnect),
    tuning: given.flags.has(TUNING.long),
    newKey: given.flags.has(NEW_KEY.long),
  }
  const missing = missingWishes(ends, wishes)
  const options = { server: SERVER, listen: LISTEN, connect: CONNECT }
  prompt.expect(missing.map((name) => options[name]))
  const question = { server: 'Address of the server, as seen by the client (host or host:port)' }
  const asked = async <Result>(name: keyof typeof options, text: string, parse: (text: string) => Result) =>
    missing.includes(name) ? await prompt.get({ option: options[name], text }, parse) : undefined
  const server = await asked('server', question.server, readServer)
  const listen = await asked('listen', 'TCP address on which the client accepts applications', readListen)
  const connect = await asked('connect', 'Target, as seen by the server (host:port, or a port)', readConnect)
  return {
    ...wishes,
    server: server ?? wishes.server,
    listen: listen ?? wishes.listen,
    connect: connect ?? wishes.connect,
  }
}

function pairText(pair: GoPair, paths: ReadonlyMap<Role, string>, self: string): string {
  const start = (role: Role): string => `\n    ${self} -c ${shellWord(paths.get(role) ?? '')}\n`
  const isSecret = [...pair.files.values()].some(({ psk, password }) => psk !== undefined || password !== undefined)
  const secret = isSecret ? ' They contain the key: keep them secret.' : ''
  const { taken, left, server } = pair
  const place = isLoopbackHost(server.host) ? 'this machine' : formatHostPort(server)
  return `Wrote ${[...paths.values()].join(', ')}.${secret}
${list('taken over', taken)}${list('not taken over', left)}
The Go kcptun has another protocol, so both ends must be changed together: stop it at both, copy each file to its
machine, and start there:

The server, ${place}:
${start('server')}
The client:
${start('client')}
Troubleshooting, at either end: ${PROGRAM} doctor -c FILE
`
}

/** Writes a server and its client for one or both ends of a Go kcptun. */
async function writePair(runtime: Runtime, given: Given, ends: readonly GoEnd[]): Promise<void> {
  if (given.values.has(OUTPUT.long)) {
    throw new CommandError(`${OUTPUT.long} is for one file, and this makes two: use ${DIR.long}`)
  }
  const [first, second] = ends
  if (second !== undefined && first?.role === second.role) {
    throw new CommandError(`both are settings of a ${second.role}: give those of a client and of its server`)
  }
  const commandConsole: CommandConsole = consoleOf(runtime)
  const to = destination(given)
  const paths = new Map((['server', 'client'] as const).map((role) => [role, pathOf(to.dir, role)]))
  expectRoom(commandConsole, to, paths.values())
  const pair = importGo(ends, await readWishes(runtime, given, ends))
  const used = new Set<number>()
  const files: { path: string; text: string }[] = []
  for (const [role, content] of pair.files) {
    const port = await freePort(runtime, used)
    used.add(port)
    files.push({ path: pathOf(to.dir, role), text: textOf({ ...content, http_listen: `127.0.0.1:${port}` }) })
  }
  writeAll(commandConsole, to, files)
  runtime.print('stdout', pairText(pair, paths, invocationOf(runtime)))
}

export const command: Command = {
  options: [OUTPUT, DIR, FORCE, ...GO_OPTIONS],
  operand: { name: `<file>|${STDIN} [<file>]`, offers: 'files', most: 2 },
  notes: `What it imports, from a file or from standard input (${STDIN}):
  a link that "init --link" printed, or a configuration: writes it as a file with mode 0600
  a JSON file or a command line of a Go kcptun, client or server: writes a matching server and client; with
  two files, the client's and the server's, nothing else has to be given
A key must not be on a command line: paste links and command lines into "import -", or write them to a file.`,
  async run({ runtime }, given) {
    const { operands } = given
    if (operands.length === 0)
      throw new CommandError(`nothing to import: give a file, or "${STDIN}" for standard input`)
    if (operands.length === 2 && operands[0] === operands[1]) throw new CommandError('the same source twice')
    const contents: Content[] = []
    for (const operand of operands) contents.push(await read(runtime, operand))
    const ends = contents.flatMap((content) => (content.kind === 'go' ? [content.end] : []))
    const [content] = contents
    if (ends.length === contents.length) await writePair(runtime, given, ends)
    else if (contents.length === 1 && content?.kind === 'config') writeConfig(runtime, given, content)
    else throw new CommandError('two files can only be the two ends of a Go kcptun')
    return 0
  },
}
