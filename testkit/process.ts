/**
 * Starts the program under test (the CLI under Node, Bun or Deno, or kcptun-libev) as a separate process, waits until it
 * serves, keeps its log and stops it. Also picks free ports and reads `/stats`.
 *
 * Every process started here is killed when the test process exits.
 */

import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { waitFor } from './wait.ts'

/** Time limit for a program to start serving, long enough for a loaded machine. */
const START_TIMEOUT_MS = 30_000
/** Time after a signal until a program that still runs is killed. */
const STOP_TIMEOUT_MS = 10_000
/** Log text kept for each process, in UTF-16 units. */
const LOG_LIMIT = 512 * 1024
/** Below the ephemeral port range of Linux, so that no outgoing connection takes the port meanwhile. */
const FIRST_PORT = 10_000
const LAST_PORT = 32_000

/** An endpoint program: the CLI under a runtime, the native host (testkit/native.ts builds it), or kcptun-libev. */
export type Program = 'node' | 'bun' | 'deno' | 'native' | 'libev'

/** Content of a configuration file. */
export interface Config {
  readonly [key: string]: string | number | boolean | Config | readonly Config[] | readonly string[]
}

export interface ExitStatus {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Running {
  readonly program: Program
  /** Path of its configuration file. */
  readonly path: string
  readonly pid: number
  readonly config: Config
  readonly exited: Promise<ExitStatus>
  /** Set when the process has exited. */
  readonly status: ExitStatus | undefined
  /** Standard output and standard error so far, in order of arrival. */
  log(): string
  /** Text of GET /stats; `query` such as `sessions=all`. */
  stats(query?: string): Promise<string>
  /** Changes keys of its configuration file (a string replaces the whole file) and sends SIGHUP. */
  reload(change: Config | string): void
  /** Sends a signal (default SIGTERM) and waits for the exit; SIGKILL after 10 s. */
  stop(signal?: NodeJS.Signals): Promise<ExitStatus>
}

/** An environment to run a program in, such as a network namespace. */
export interface Place {
  /** Command prefix that runs a command there. */
  readonly command: readonly string[]
  /** Body of a GET sent from there; rejects unless the status is 200. */
  get(url: string): Promise<string>
}

export interface StartOptions {
  /** Permission bits of the configuration file (default 0600). */
  readonly mode?: number
  /** Additional command line arguments. */
  readonly args?: readonly string[]
  readonly place?: Place
  /** Replaces commandOf(). */
  readonly command?: readonly string[]
  /** Command prefix, such as setpriv. */
  readonly wrapper?: readonly string[]
  /** Working directory. */
  readonly cwd?: string
  /** User id of the owner of the configuration file. */
  readonly owner?: number
}

/** The directory of package.json: the working directory, this one, or a parent of either. */
export const projectRoot: string = findRoot()

function findRoot(): string {
  for (const start of [process.cwd(), dirname(fileURLToPath(import.meta.url))]) {
    for (let dir = start; ; dir = dirname(dir)) {
      const file = join(dir, 'package.json')
      if (existsSync(file) && readFileSync(file, 'utf8').includes('"kcptun-wasm"')) return dir
      if (dirname(dir) === dir) break
    }
  }
  throw new Error('package.json of kcptun-wasm not found upwards from the working directory')
}

/** Path of kcptun-libev; undefined when KCPTUN_LIBEV is not set. */
export const libevPath: string | undefined = process.env['KCPTUN_LIBEV'] || undefined

/** Where the native programs are: built with sanitizers if NATIVE_BUILD=sanitize. */
export const nativeFolder = process.env['NATIVE_BUILD'] === 'sanitize' ? 'dist/native-sanitize' : 'dist/native'

/**
 * @returns command and leading arguments that run a program
 * @throws for kcptun-libev when KCPTUN_LIBEV is not set
 */
export function commandOf(program: Program): readonly [string, ...string[]] {
  if (program === 'node') return [nodePath(), join(projectRoot, 'dist/node/cli.js')]
  if (program === 'bun') return [bunPath(), join(projectRoot, 'dist/bun/cli.js')]
  if (program === 'deno') {
    return [join(projectRoot, 'node_modules/deno/deno'), 'run', '-A', join(projectRoot, 'dist/deno/cli.js')]
  }
  if (program === 'native') return [join(projectRoot, nativeFolder, 'kcptun-wasm-native')]
  if (libevPath === undefined) throw new Error('KCPTUN_LIBEV is not set')
  return [libevPath]
}

function nodePath(): string {
  return 'bun' in process.versions ? 'node' : process.execPath
}

function bunPath(): string {
  const local = join(projectRoot, 'node_modules/.bin', process.platform === 'win32' ? 'bun.exe' : 'bun')
  return existsSync(local) ? local : 'bun'
}

const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1))

/**
 * Runs a program with the given arguments until it exits.
 * @param wrapper command prefix
 */
export async function run(
  program: Program,
  args: readonly string[],
  wrapper: readonly string[] = [],
): Promise<ExitStatus & { stdout: string; stderr: string }> {
  const [command = '', ...leading] = [...wrapper, ...commandOf(program)]
  const child = spawn(command, [...leading, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  living.add(child)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const timer = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT_MS)
  const status = await new Promise<ExitStatus>((done, fail) => {
    child.once('error', fail)
    child.once('close', (code, signal) => done({ code, signal }))
  })
  clearTimeout(timer)
  living.delete(child)
  return { ...status, stdout, stderr }
}

/** Writes a configuration to a new temporary directory; `remove` deletes it. */
export function writeConfig(config: Config | string): { readonly path: string; remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const path = join(dir, 'config.json')
  writeFileSync(path, typeof config === 'string' ? config : JSON.stringify(config, null, 2), { mode: 0o600 })
  return { path, remove: () => rmSync(dir, { recursive: true, force: true }) }
}

/** A started program; see {@link Running}. */
class Child implements Running {
  readonly program: Program
  readonly path: string
  readonly config: Config
  readonly exited: Promise<ExitStatus>
  status: ExitStatus | undefined
  readonly #child: ChildProcess
  readonly #get: (url: string) => Promise<string>
  #log = ''

  constructor(program: Program, config: Config, options: StartOptions) {
    this.program = program
    this.config = config
    this.#get = options.place?.get ?? httpGet
    const file = writeConfig(config)
    this.path = file.path
    if (options.mode !== undefined) chmodSync(file.path, options.mode)
    if (options.owner !== undefined)
      for (const path of [dirname(file.path), file.path]) chownSync(path, options.owner, options.owner)
    const [command = '', ...leading] = [
      ...(options.place?.command ?? []),
      ...(options.wrapper ?? []),
      ...(options.command ?? commandOf(program)),
    ]
    const child = spawn(command, [...leading, '-c', file.path, ...(options.args ?? [])], {
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.cwd !== undefined && { cwd: options.cwd }),
    })
    this.#child = child
    living.add(child)
    const keep = (chunk: string): void => {
      this.#log = (this.#log + chunk).slice(-LOG_LIMIT)
    }
    child.stdout.setEncoding('utf8').on('data', keep)
    child.stderr.setEncoding('utf8').on('data', keep)
    this.exited = new Promise<ExitStatus>((done) => {
      const end = (code: number | null, signal: NodeJS.Signals | null): void => {
        this.status ??= { code, signal }
        living.delete(child)
        file.remove()
        done(this.status)
      }
      child.once('error', (error) => {
        keep(`cannot start ${command}: ${error.message}\n`)
        end(null, null)
      })
      child.once('close', end)
    })
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  // bound: tests pass these as callbacks
  readonly log = (): string => this.#log

  readonly stats = (query = ''): Promise<string> => {
    return this.#get(`http://${this.config['http_listen']}/stats${query && `?${query}`}`)
  }

  readonly reload = (change: Config | string): void => {
    writeFileSync(this.path, typeof change === 'string' ? change : JSON.stringify({ ...this.config, ...change }))
    this.#child.kill('SIGHUP')
  }

  readonly stop = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<ExitStatus> => {
    if (this.status !== undefined) return this.status
    this.#child.kill(signal)
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS)
    const result = await this.exited
    clearTimeout(timer)
    return result
  }

  /** The log where it is a file. */
  #file(): string {
    const [, path = ''] = /^file:(.*)/.exec(String(this.config['log'])) ?? []
    return path !== '' && existsSync(path) && statSync(path).isFile() ? readFileSync(path, 'utf8') : ''
  }

  /** Whether the program has opened all its sockets. */
  async serves(): Promise<boolean> {
    if (this.status !== undefined) throw new Error(`ended with ${JSON.stringify(this.status)}`)
    // the CLI may answer HTTP before every socket is open; kcptun-libev answers only from its event loop, when all are
    // open
    if (this.program !== 'libev' && !/ start("|$)/m.test(this.#log + this.#file())) return false
    // it has no monitoring server
    if (this.program === 'native') return true
    return this.stats().then(
      () => true,
      () => false,
    )
  }
}

/**
 * Starts a program with a configuration (`loglevel` at least 4) and waits until it has logged its start and its
 * monitoring server answers. Adds `http_listen` if it is missing.
 * @throws with the log if the program exits first or does not serve in time
 */
export async function start(program: Program, config: Config, options: StartOptions = {}): Promise<Running> {
  const httpListen = typeof config['http_listen'] === 'string' ? config['http_listen'] : `127.0.0.1:${await freePort()}`
  const monitored = program === 'native' ? {} : { http_listen: httpListen }
  const child = new Child(program, { loglevel: 6, ...config, ...monitored }, options)
  try {
    await waitFor(`${program} serves`, () => child.serves(), START_TIMEOUT_MS)
  } catch (error) {
    await child.stop('SIGKILL')
    throw new Error(`${program} did not start: ${String(error)}\n${child.log()}`, { cause: error })
  }
  return child
}

/** Body of a GET; rejects on every status but 200 and on connection errors. */
export function httpGet(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent: false, timeout: 5000 }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
      response.once('error', reject)
      response.once('end', () => {
        if (response.statusCode === 200) resolve(body)
        else reject(new Error(`${url}: status ${response.statusCode}`))
      })
    })
    request.once('timeout', () => request.destroy(new Error(`${url}: no answer`)))
    request.once('error', reject)
  })
}

/** Numbers of sessions by state, from the text of /stats (protocol.md 11.2). */
export function sessionCounts(stats: string): {
  total: number
  halfOpen: number
  connected: number
  linger: number
  timeWait: number
} {
  const found = /= (\d+) sessions: (\d+) halfopen, (\d+) connected, (\d+) linger, (\d+) time_wait/.exec(stats)
  if (found === null) throw new Error(`no session summary in ${JSON.stringify(stats)}`)
  const [total = 0, halfOpen = 0, connected = 0, linger = 0, timeWait = 0] = found.slice(1).map(Number)
  return { total, halfOpen, connected, linger, timeWait }
}

/** A port outside the ephemeral range that is currently free for TCP and UDP on a host. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT))
    if (givenOut.has(port)) continue
    if ((await tcpBinds(port, host)) && (await udpBinds(port, host))) {
      givenOut.add(port)
      return port
    }
  }
  throw new Error(`no free port on ${host}`)
}

const givenOut = new Set<number>()

function tcpBinds(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}

function udpBinds(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    socket.once('error', () => {
      socket.close()
      resolve(false)
    })
    socket.bind(port, host, () => void socket.close(() => resolve(true)))
  })
}
