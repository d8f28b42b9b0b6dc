// time limit: 120 s
/** The declarations of the package in programs with and without the types of Node and of the web platform. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { projectRoot } from '../../testkit/process.ts'

const test = suite('library/types')

const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-types-'))
mkdirSync(join(directory, 'node_modules/@types'), { recursive: true })
symlinkSync(projectRoot, join(directory, 'node_modules/kcptun-wasm'))
for (const name of ['@types/node', 'undici-types'])
  symlinkSync(join(projectRoot, 'node_modules', name), join(directory, 'node_modules', name))
writeFileSync(join(directory, 'package.json'), '{ "type": "module", "private": true }')

/** Compiles a program strictly, the package's declarations included. @returns the errors */
function compile(program: string, options: object): string {
  writeFileSync(join(directory, 'main.ts'), program)
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    skipLibCheck: false,
    target: 'es2022',
    types: [],
    ...options,
  }
  writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }))
  const tsc = join(projectRoot, 'node_modules/typescript/bin/tsc')
  return spawnSync(process.execPath, [tsc, '-p', directory], { encoding: 'utf8' }).stdout
}

/** Uses the whole interface, with what every runtime has. */
const PORTABLE = `
import {
  type Client, ClosedError, ConfigError, createClient, createServer, createTunnel, type DatagramReceiver,
  type DatagramTransport, generatePsk, type Logger, NotAvailable, overMessagePort, RefusedError, ResetError, StartError,
} from 'kcptun-wasm'

const psk: string = generatePsk()
const logger: Logger = { error() {}, warn(_text: string) {}, info() {}, debug() {} }
let receiver: DatagramReceiver | undefined
const transport: DatagramTransport = {
  maxDatagramSize: 1200,
  open(given) { receiver = given },
  send(data: Uint8Array, peer: string) { receiver?.datagram(data, peer); return true },
  close() {},
}
async function main(): Promise<void> {
  const server = await createServer({ bind: ':0', psk, logger, kcp: { mtu: 1300 } }, async (stream) => {
    const chunks: Uint8Array[] = []
    stream.on('data', (chunk: Uint8Array) => chunks.push(chunk))
    stream.end('x')
    return stream.remoteAddress
  })
  const client: Client = await createClient({ transport, psk, method: null, when_down: 'hold' })
  client.on('up', ({ rtt }) => rtt.toFixed()).once('down', (reason) => reason.length).on('close', (error) => error?.message)
  const stream = await client.connect()
  for await (const chunk of stream) chunk.byteLength
  const { opened, closed, close } = client.open()
  const info = await opened
  const address: string | undefined = info.remoteAddress
  await Promise.all([closed, close(), client.close(), server.unref().closed, address])
  const retransmitted: number | undefined = client.stats().sessions[0]?.retransmitted_segments
  const tunnel = await createTunnel({ config: { listen: ':1' } })
  await tunnel.reload()
  try { await client[Symbol.asyncDispose]() } catch (error) {
    if (error instanceof ConfigError) error.key + error.reason
    for (const type of [ClosedError, NotAvailable, RefusedError, ResetError, StartError]) error instanceof type
  }
  const code: 'ERR_KCPTUN_RESET' = new ResetError('x').code
  return void [retransmitted, code, overMessagePort]
}
void main()
`

/** What must not compile. */
const WRONG = `
import { createClient, createServer } from 'kcptun-wasm'
// @ts-expect-error
void createClient({ servr: 'x' })
// @ts-expect-error
void createClient({ server: 5 })
// @ts-expect-error
void createServer({ bind: ':0', when_down: 'hold' }, () => {})
// @ts-expect-error
void createServer({ bind: ':0' })
`

const WEB = `${PORTABLE}
async function web(client: Client): Promise<void> {
  const { readable, writable } = client.open()
  const reader: ReadableStreamDefaultReader<Uint8Array> = readable.getReader()
  const { value } = await reader.read()
  await writable.getWriter().write(value)
  await client.connect({ signal: AbortSignal.timeout(5) })
  overMessagePort(new MessageChannel().port1)
}
void web
`

const NODE = `
import { Duplex, pipeline } from 'node:stream'
import { createClient, createServer, type KcpStream } from 'kcptun-wasm/node'
void createServer({ bind: ':0', logger: console }, (stream) => pipeline(stream, stream, () => {}))
const client = await createClient({ server: 'x:1', signal: AbortSignal.timeout(5) })
const stream: KcpStream = await client.connect({ signal: AbortSignal.timeout(5) })
const duplex: Duplex = stream
duplex.setEncoding('utf8').pipe(process.stdout)
stream.write('x', () => {})
const { readable } = client.open()
readable.getReader()
`

const modules = [
  ['nodenext', { module: 'nodenext', moduleResolution: 'nodenext' }],
  ['bundler', { module: 'esnext', moduleResolution: 'bundler' }],
] as const

for (const [name, options] of modules) {
  test(`without types of Node or the web: ${name}`, () => {
    assert.is(compile(PORTABLE, { ...options, lib: ['es2022'] }), '')
    assert.is(compile(WRONG, { ...options, lib: ['es2022'] }), '')
  })

  test(`with the types of the web: ${name}`, () => {
    assert.is(compile(WEB, { ...options, lib: ['es2022', 'dom', 'dom.iterable', 'dom.asynciterable'] }), '')
    // those of pages
    const browser = { ...options, lib: ['es2022', 'dom', 'dom.asynciterable'], customConditions: ['browser'] }
    const page = "import { createClient } from 'kcptun-wasm/browser'\nvoid createClient"
    assert.is(compile(page, browser), '')
  })

  test(`with the types of Node, a Duplex of node:stream: ${name}`, () => {
    assert.is(compile(NODE, { ...options, lib: ['es2022'], types: ['node'] }), '')
    assert.is(compile(WEB, { ...options, lib: ['es2022'], types: ['node'] }), '')
  })
}

test.after(() => rmSync(directory, { recursive: true }))

test.run()
