/**
 * Programs under test: kcptun-wasm on Node, Bun and Deno, kcptun-libev (KCPTUN_LIBEV), and Debian's Go kcptun
 * (`kcptun-server` and `kcptun-client` on the PATH). Starts pairs of them and reads their cost from /proc (Linux): CPU
 * time, resident memory, datagrams dropped at their sockets. Traffic is in testkit/flow.ts, the link in
 * testkit/emulator.ts.
 */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { cpus, release, totalmem } from 'node:os'
import { delimiter, join } from 'node:path'
import type { Config, Place, Program } from '../testkit/process.ts'
import { commandOf, freePort, libevPath, projectRoot, run, start, writeConfig } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'

export const METHOD = 'xchacha20poly1305_ietf'
/** Start timeout of a Go kcptun, ms. */
const START_TIMEOUT_MS = 20_000
const POLL_MS = 1
/** Clock ticks of utime and stime in /proc/PID/stat: 100 per second on all supported Linux systems. */
const TICKS_PER_SECOND = 100

/**
 * kcptun-libev sends whole windows at once and by default leaves its socket the kernel's 208 KiB, where half of such a
 * burst is lost on a link as fast as an emulated one. The Go kcptun and kcptun-wasm request megabytes by themselves;
 * kcptun-libev gets them through its keys, so that the comparison is about the use of the link.
 */
const LIBEV_UDP: Config = { rcvbuf: 4 << 20, sndbuf: 4 << 20 }

/** kcptun-wasm with the fastest ciphers available, or with one library for all ciphers of libsodium. */
type Ours = 'node' | 'bun' | 'deno' | 'node sodium-native' | 'bun sodium-native' | 'node wrappers' | 'bun wrappers'
export type Contestant = Program | 'go' | Ours

/** Two endpoints and their `kcp` keys (none: untuned). The client sends. */
export interface Pair {
  readonly name: string
  readonly client: Contestant
  readonly server: Contestant
  readonly clientKcp?: Config
  readonly serverKcp?: Config
  /** UDP mode of both (`udp.path`); kcptun-wasm alone. */
  readonly udpMode?: 'portable'
}

/** The manual tuning that makes kcptun-libev fast, with the given window. */
export const tuned = (window: number): Config => ({
  sndwnd: window,
  rcvwnd: window,
  flush: 2,
  interval: 10,
  resend: 2,
  nodelay: 2,
})

export interface Ends {
  readonly clientPid: number
  readonly serverPid: number
  /** The client's listening port. */
  readonly port: number
  /** Why an endpoint has ended, if it has. */
  failure(): string | undefined
  close(): Promise<void>
}

export interface PairOptions {
  /** TCP port of the target on 127.0.0.1, on the server's machine. */
  readonly target: number
  /** UDP port of the server, and the one that its client sends to (default: the same). */
  readonly udpPort: number
  readonly via?: number
  readonly method?: string
  /** Additional configuration of both endpoints. */
  readonly config?: Config
  /** Address of the server's UDP socket (default 127.0.0.1), and where both run (default here; not for Go kcptun). */
  readonly host?: string
  readonly places?: { readonly client: Place; readonly server: Place }
}

/** Path of a program on the PATH. */
function onPath(name: string): string | undefined {
  for (const dir of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(dir, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // try the next directory
    }
  }
  return undefined
}

const goServer = onPath('kcptun-server')
const goClient = onPath('kcptun-client')

/** Why a program is not available, or undefined. */
export function missing(program: Contestant): string | undefined {
  if (program === 'libev') return libevPath === undefined ? 'KCPTUN_LIBEV is not set' : undefined
  if (program === 'native') {
    return existsSync(commandOf('native')[0]) ? undefined : 'the native host is not built: npm run build:native'
  }
  if (program === 'go') return goServer && goClient ? undefined : 'kcptun-server and kcptun-client are not on the PATH'
  if (program.endsWith(' sodium-native'))
    return findPackage('sodium-native') ? undefined : 'sodium-native is not installed'
  return undefined
}

const findPackage = (name: string): boolean => existsSync(join(projectRoot, 'node_modules', name))

/** The pairs that can run here; reports each missing program on stderr. */
export function present(pairs: readonly Pair[]): Pair[] {
  const reported = new Set<string>()
  return pairs.filter((pair) => {
    const why = missing(pair.client) ?? missing(pair.server)
    if (why !== undefined && !reported.has(why)) console.error(`columns skipped: ${why}`)
    if (why !== undefined) reported.add(why)
    return why === undefined
  })
}

const children = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
})

interface End {
  readonly pid: number
  failure(): string | undefined
  stop(): Promise<unknown>
}

function startGo(command: string, args: readonly string[]): End {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'ignore'] })
  children.add(child)
  const ended = new Promise<void>((done) => child.once('close', () => done()))
  ended.then(() => children.delete(child))
  return {
    pid: child.pid ?? -1,
    failure: () => (child.exitCode === null ? undefined : `${command} ended with status ${child.exitCode}`),
    stop() {
      child.kill('SIGKILL')
      return ended
    },
  }
}

/** The program of a contestant and its command. */
function commandFor(contestant: Exclude<Contestant, 'go'>): { program: Program; command: readonly string[] } {
  const [first, backend] = contestant.split(' ')
  const program = first === 'node' || first === 'bun' || first === 'deno' || first === 'native' ? first : 'libev'
  const command = commandOf(program)
  if (backend === undefined) return { program, command }
  return { program, command: [command[0], join(projectRoot, `dist/bench-${program}.js`), backend] }
}

async function startOurs(contestant: Exclude<Contestant, 'go'>, config: Config, place?: Place): Promise<End> {
  const { program, command } = commandFor(contestant)
  const udp: Config = program === 'libev' ? { udp: LIBEV_UDP } : {}
  const running = await start(program, { loglevel: 4, ...udp, ...config }, { command, ...(place && { place }) })
  return {
    pid: running.pid,
    failure: () =>
      running.status && `${program} ended with ${JSON.stringify(running.status)}: ${running.log().slice(-2000)}`,
    stop: () => running.stop(),
  }
}

/** Starts a pair and waits until both endpoints serve. */
export async function startPair(pair: Pair, options: PairOptions): Promise<Ends> {
  const { target, udpPort, via = udpPort, method = METHOD, host = '127.0.0.1', places } = options
  const config = { ...options.config, ...(pair.udpMode && { udp: { path: pair.udpMode } }) }
  const psk = randomBytes(32).toString('base64')
  const port = await freePort()
  const startServer = async (): Promise<End> =>
    pair.server === 'go'
      ? startGo(goServer ?? '', ['-t', `127.0.0.1:${target}`, '-l', `127.0.0.1:${udpPort}`, '--key', psk])
      : startOurs(
          pair.server,
          {
            connect: `127.0.0.1:${target}`,
            kcp_bind: `${host}:${udpPort}`,
            method,
            psk,
            ...(pair.serverKcp && { kcp: pair.serverKcp }),
            ...config,
          },
          places?.server,
        )
  const startClient = async (): Promise<End> =>
    pair.client === 'go'
      ? startGo(goClient ?? '', ['-l', `127.0.0.1:${port}`, '-r', `127.0.0.1:${via}`, '--key', psk])
      : startOurs(
          pair.client,
          {
            listen: `127.0.0.1:${port}`,
            kcp_connect: `${host}:${via}`,
            method,
            psk,
            ...(pair.clientKcp && { kcp: pair.clientKcp }),
            ...config,
          },
          places?.client,
        )
  const server = await startServer()
  const client = await startClient().catch(async (error: unknown) => {
    await server.stop()
    throw error
  })
  if (pair.client === 'go') await listening(port, START_TIMEOUT_MS)
  return {
    clientPid: client.pid,
    serverPid: server.pid,
    port,
    failure: () => client.failure() ?? server.failure(),
    close: async () => void (await Promise.all([client.stop(), server.stop()])),
  }
}

/** Waits until a port of 127.0.0.1 accepts. */
export async function listening(port: number, timeoutMs: number): Promise<void> {
  const end = performance.now() + timeoutMs
  while (!(await accepts(port))) {
    if (performance.now() > end) throw new Error(`port ${port} does not accept connections`)
    await sleep(POLL_MS)
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

/** Milliseconds from the start of a client process until its listener accepts; one measurement. */
export async function timeToServe(program: Contestant): Promise<number> {
  const port = await freePort()
  const via = await freePort()
  const psk = randomBytes(32).toString('base64')
  const config = { listen: `127.0.0.1:${port}`, kcp_connect: `127.0.0.1:${via}`, method: METHOD, psk }
  const file = writeConfig(config)
  const [command, ...args] =
    program === 'go'
      ? [goClient ?? '', '-l', config.listen, '-r', config.kcp_connect, '--key', psk]
      : [...commandFor(program).command, '-c', file.path]
  const began = performance.now()
  const end = startGo(command ?? '', args)
  try {
    await listening(port, START_TIMEOUT_MS)
    return performance.now() - began
  } finally {
    await end.stop()
    file.remove()
  }
}

/** CPU seconds of a process so far, user and system, all threads; NaN where there is no /proc. */
export function cpuSeconds(pid: number): number {
  const text = readProc(`/proc/${pid}/stat`)
  // the name in parentheses may contain spaces
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** Resident memory of a process in bytes; NaN where there is no /proc. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readProc(`/proc/${pid}/status`))?.[1] ?? Number.NaN) * 1024
}

/**
 * Datagrams that the kernel dropped at full socket buffers, any family; 0 without /proc.
 * @param port of the sockets, or with `remote` the port that they are connected to
 */
export function socketDrops(port: number, remote = false): number {
  if (port === 0) return 0
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  let drops = 0
  for (const line of `${readProc('/proc/net/udp')}\n${readProc('/proc/net/udp6')}`.split('\n')) {
    const fields = line.trim().split(/\s+/)
    if (fields[remote ? 2 : 1]?.endsWith(wanted)) drops += Number(fields[12] ?? 0)
  }
  return drops
}

function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** Date, machine and versions of a measurement. */
export interface Machine {
  readonly date: string
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  /** One-minute load average at the start of the benchmark: above about 0.3 per core the figures are unreliable. */
  readonly load: string
  readonly versions: Readonly<Record<string, string>>
}

/** Reads the machine and the versions of all available programs. */
export async function machine(): Promise<Machine> {
  const versions: Record<string, string> = {}
  const line = (command: string, ...args: string[]): string =>
    (spawnSync(command, args, { encoding: 'utf8' }).stdout ?? '').trim().split('\n')[0] ?? ''
  versions['kcptun-wasm'] = (await run('node', ['--version'])).stdout.trim().split('\n')[0] ?? ''
  for (const runtime of ['node', 'bun', 'deno'] as const) versions[runtime] = line(commandOf(runtime)[0], '--version')
  if (libevPath) versions['kcptun-libev'] = (await run('libev', ['-h'])).stderr.trim().split('\n')[0] ?? ''
  for (const name of ['sodium-native', 'koffi']) {
    const path = join(projectRoot, 'node_modules', name, 'package.json')
    if (existsSync(path)) versions[name] = String(JSON.parse(readFileSync(path, 'utf8')).version)
  }
  if (goClient) versions['kcptun (Go)'] = goVersion() ?? line(goClient, '--version')
  const [first] = cpus()
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    cpu: first?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()} ${process.arch}`,
    load: readProc('/proc/loadavg').split(' ')[0] ?? '',
    versions,
  }
}

/** Version of Debian's package: the program reports none. */
function goVersion(): string | undefined {
  const query = spawnSync('dpkg-query', ['-W', '-f', `\${Version}`, 'kcptun'], { encoding: 'utf8' })
  return query.status === 0 ? `Debian ${query.stdout}` : undefined
}

/** Heading lines of every table. */
export function describe(on: Machine): string {
  const versions = Object.entries(on.versions).map(([name, version]) => `${name} ${version}`)
  return [
    `${on.date} UTC, ${on.cpu}, ${on.cores} cores, ${on.memoryGiB} GiB, ${on.system}, load ${on.load}`,
    versions.join('; '),
  ].join('\n')
}

/** Median; NaN for no values. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Quantile, interpolated between neighbours; NaN for no values. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const [below, above] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]]
  if (below === undefined || above === undefined) return Number.NaN
  return below + (above - below) * (at - Math.floor(at))
}
