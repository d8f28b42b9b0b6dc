// time limit: 240 s, long 480 s
/**
 * The package as a user installs it, from a tarball, without the optional packages, under several versions of Node, Bun
 * and Deno: the program makes a configuration and carries data, and each program in programs/ ends well.
 */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, freePort, projectRoot, type Running, start } from '../../testkit/process.ts'
import { dial, echoTarget, patternDigest } from '../../testkit/tcp.ts'
import { within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const BYTES = 300_000
const TIMEOUT_MS = 30_000
/** Versions of Node beside the one that runs this test. */
const NODE_VERSIONS = ['22', '24', 'latest']
const NODES = join(projectRoot, '.cache/node-versions')
/** npm's codes for a registry that cannot be reached. */
const UNREACHABLE = /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ENOTCACHED)\b/
const QUIET = ['--prefer-offline', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel', 'error']
const NO_RETRY = ['--fetch-retries', '0', '--fetch-timeout', '60000']

/** A runtime: how it starts the program of the package, and a file. */
interface Host {
  readonly name: string
  readonly program: 'node' | 'bun' | 'deno'
  readonly cli: readonly string[]
  readonly file: readonly string[]
}

process.env['PSK'] = randomBytes(32).toString('base64')
const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-install-'))
const bin = join(directory, 'node_modules/.bin/kcptun-wasm')

function command(words: readonly string[], cwd = directory): string {
  const [first = '', ...rest] = words
  const { status, stdout, stderr, error } = spawnSync(first, rest, { cwd, encoding: 'utf8', timeout: 120_000 })
  if (status !== 0) throw new Error(`${words.join(' ')}: ${error?.message ?? `status ${status}`}\n${stdout}${stderr}`)
  return stdout
}

/** Installs packages. @returns why not, if the registry cannot be reached */
function install(cwd: string, ...words: readonly string[]): string | undefined {
  mkdirSync(cwd, { recursive: true })
  writeFileSync(join(cwd, 'package.json'), '{ "private": true, "type": "module" }')
  try {
    command(['npm', 'install', ...QUIET, ...NO_RETRY, ...words], cwd)
    return undefined
  } catch (error) {
    const [code] = UNREACHABLE.exec(String(error)) ?? []
    if (code === undefined) throw error
    return `the npm registry cannot be reached (${code})`
  }
}

const nodeHost = (name: string, node: string): Host => ({ name, program: 'node', cli: [node, bin], file: [node] })

/** Other versions of Node: npm packages with its binary, kept between runs. */
function otherNodes(): { hosts: Host[]; why: string | undefined } {
  const { platform, arch } = process
  if (platform !== 'linux' || (arch !== 'x64' && arch !== 'arm64')) {
    return { hosts: [], why: `only this version of Node: there is no package for ${platform} ${arch}` }
  }
  const paths = NODE_VERSIONS.map((version) => join(NODES, `node_modules/node-${version}/bin/node`))
  const packages = NODE_VERSIONS.map((version) => `node-${version}@npm:node-linux-${arch}@${version}`)
  const why = paths.every((path) => existsSync(path)) ? undefined : install(NODES, ...packages)
  return { hosts: why === undefined ? paths.map((path) => nodeHost(command([path, '-v']).trim(), path)) : [], why }
}

const test = suite('installed package')
test.after(() => rmSync(directory, { recursive: true, force: true }))

/** Starts a configuration that `init` wrote. */
function startFile(host: Host, name: string): Promise<Running> {
  const config: Config = JSON.parse(readFileSync(join(directory, name), 'utf8'))
  return start(host.program, config, { command: host.cli, cwd: directory })
}

async function transfer(host: Host): Promise<void> {
  const target = await echoTarget()
  const [udp, tcp] = [await freePort(), await freePort()]
  const addresses = ['--server', `127.0.0.1:${udp}`, '--listen', `127.0.0.1:${tcp}`, '--connect', target.address]
  const said = command([...host.cli, 'init', ...addresses])
  assert.match(said, 'client.json')
  const ends: Running[] = []
  try {
    for (const name of ['server.json', 'client.json']) ends.push(await startFile(host, name))
    const app = await dial('127.0.0.1', tcp)
    await app.pour(BYTES, 1)
    app.finish()
    const ending = await within('the echo', TIMEOUT_MS, app.ending)
    assert.is(ending.bytes, BYTES)
    assert.is(ending.sha256, patternDigest(BYTES, 1))
    assert.is(ending.kind, 'fin')
    for (const end of ends) assert.equal(await end.stop(), { code: 0, signal: null })
  } finally {
    for (const end of ends) await end.stop('SIGKILL')
    await target.close()
    for (const name of ['server.json', 'client.json']) rmSync(join(directory, name), { force: true })
  }
}

const packed = command(['npm', 'pack', '--ignore-scripts', '--silent', '--pack-destination', directory], projectRoot)
const tarball = join(directory, packed.trim())
const unreachable = install(directory, '--omit=optional', tarball)
if (unreachable !== undefined) {
  skip(test, 'all', unreachable)
} else {
  const bun = join(projectRoot, 'node_modules/bun/bin/bun.exe')
  const deno = join(projectRoot, 'node_modules/deno/deno')
  const { hosts, why } = otherNodes()
  if (why !== undefined) skip(test, 'other versions of Node', why)
  const all: readonly Host[] = [
    nodeHost(process.version, process.execPath),
    ...hosts,
    { name: 'Bun', program: 'bun', cli: [bun, 'x', '--bun', 'kcptun-wasm'], file: [bun] },
    { name: 'Deno', program: 'deno', cli: [deno, 'run', '-A', 'npm:kcptun-wasm'], file: [deno, 'run', '-A'] },
  ]
  const programs = join(projectRoot, 'test/package/programs')
  cpSync(programs, directory, { recursive: true })
  const readme = readFileSync(join(projectRoot, 'README.md'), 'utf8')
  const example = /```js\n(import \{ createClient[\s\S]*?)```/.exec(readme)?.[1] ?? 'throw new Error("no example")'
  writeFileSync(join(directory, 'readme.mjs'), example)

  test('the optional packages are not installed', () => {
    for (const name of ['koffi', 'sodium-native']) assert.not.ok(existsSync(join(directory, 'node_modules', name)))
  })

  for (const host of all) {
    test(`the program starts, makes a configuration and carries data: ${host.name}`, async () => {
      assert.match(command([...host.cli, '--version']), `(${host.program} `)
      await transfer(host)
    })

    for (const name of readdirSync(programs)) {
      test(`${name}: ${host.name}`, () => void command([...host.file, name]))
    }

    test(`the example of the README prints what it sends: ${host.name}`, () => {
      assert.is(command([...host.file, 'readme.mjs']), 'hello\n')
    })
  }
}

test.run()
