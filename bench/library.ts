/**
 * `bench library`: throughput of a stream of the library, its client and server in processes of their own and without
 * TCP, beside that of the tunnel in the same run. The ratio is to the tunnel of the same runtime.
 *
 *   --runs N       medians of N interleaved runs (default 3)     --match REGEX   columns whose name matches
 *   --seconds N    of a transfer (default 5)                     --json FILE     all figures as JSON
 *   --quick        one short run
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { download, openTarget, pour, type Target } from '../testkit/flow.ts'
import { commandOf, freePort, projectRoot } from '../testkit/process.ts'
import { describe, type Ends, METHOD, machine, startPair } from './peers.ts'
import { interleaved, positive, writeJson } from './series.ts'
import { measure, type Transfer, table } from './transfer.ts'

const RUNTIMES = ['node', 'bun'] as const
type RuntimeName = (typeof RUNTIMES)[number]
const DIRECTIONS = ['upload', 'download'] as const
type Direction = (typeof DIRECTIONS)[number]
const CHUNK_BYTES = 65536

/** One end in a process of its own; its lines on standard input are questions for the count of bytes received. */
export async function runLibraryEnd([psk = '', role = '', server = '']: readonly string[]): Promise<void> {
  const { createClient, createServer } = await import('kcptun-wasm')
  let received = 0
  const isSender = role === 'send' || role === 'accept-and-send'
  const serve = (stream: LibraryStream): void => {
    stream.on('error', () => {})
    stream.on('data', (chunk) => {
      received += chunk.length
    })
    if (!isSender) return
    const chunk = new Uint8Array(CHUNK_BYTES)
    const fill = (): void => {
      while (stream.write(chunk));
    }
    stream.on('drain', fill)
    fill()
  }
  createInterface(process.stdin).on('line', () => process.stdout.write(`${received}\n`))
  if (server === '') {
    const endpoint = await createServer({ bind: '127.0.0.1:0', psk }, serve)
    process.stdout.write(`${endpoint.address}\n`)
  } else {
    const client = await createClient({ server, psk })
    serve(await client.connect())
    process.stdout.write('open\n')
  }
}

type LibraryStream = Parameters<Parameters<typeof import('kcptun-wasm').createServer>[1]>[0]

/** A process of runLibraryEnd. */
class LibraryEnd {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(runtime: RuntimeName, ...words: readonly string[]) {
    const [program] = commandOf(runtime)
    this.#child = spawn(program, [join(projectRoot, 'dist/bench.js'), 'library-end', ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    if (this.#child.stdout === null) throw new Error('no pipe')
    this.#lines = createInterface(this.#child.stdout)[Symbol.asyncIterator]()
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get failure(): string | undefined {
    return this.#child.exitCode === null ? undefined : `a process ended with status ${this.#child.exitCode}`
  }

  async line(): Promise<string> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('a process ended')
    return value
  }

  async received(): Promise<number> {
    this.#child.stdin?.write('\n')
    return Number(await this.line())
  }

  async close(): Promise<void> {
    const ended = once(this.#child, 'exit')
    if (this.#child.exitCode === null && this.#child.kill('SIGKILL')) await ended
  }
}

async function library(runtime: RuntimeName, direction: Direction, seconds: number): Promise<Transfer> {
  const { generatePsk } = await import('kcptun-wasm')
  const psk = generatePsk()
  const server = new LibraryEnd(runtime, psk, direction === 'upload' ? 'accept' : 'accept-and-send')
  const client = new LibraryEnd(runtime, psk, direction === 'upload' ? 'send' : 'receive', await server.line())
  try {
    await client.line()
    const ends: Ends = {
      clientPid: client.pid,
      serverPid: server.pid,
      port: 0,
      failure: () => client.failure ?? server.failure,
      close: async () => {},
    }
    const sink = direction === 'upload' ? server : client
    return await measure(ends, { bytes: () => sink.received(), stop: () => undefined, makers: [process.pid] }, seconds)
  } finally {
    await client.close()
    await server.close()
  }
}

async function tunnel(name: RuntimeName, direction: Direction, target: Target, seconds: number): Promise<Transfer> {
  const pair = { name, client: name, server: name }
  const ends = await startPair(pair, { target: target.port, udpPort: await freePort(), method: METHOD })
  try {
    const flow = direction === 'upload' ? { ...pour(ends.port), received: () => target.discarded } : download(ends.port)
    const stop = (): string | undefined => {
      flow.stop()
      return flow.failed()
    }
    return await measure(ends, { bytes: () => flow.received(), stop, makers: [process.pid] }, seconds)
  } finally {
    await ends.close()
  }
}

/** `bench library`. */
export async function benchLibrary(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string' },
      seconds: { type: 'string' },
      match: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  const runs = positive('runs', values.runs, values.quick ? 1 : 3)
  const seconds = positive('seconds', values.seconds, values.quick ? 2 : 5)
  const on = await machine()
  console.log(describe(on))
  const target = await openTarget()
  const results: object[] = []
  for (const direction of DIRECTIONS)
    for (const runtime of RUNTIMES) {
      const columns = [`${runtime} tunnel`, `${runtime} library`].filter((name) => new RegExp(values.match).test(name))
      if (columns.length === 0) continue
      const series = await interleaved(columns, runs, (column) =>
        column.endsWith('library') ? library(runtime, direction, seconds) : tunnel(runtime, direction, target, seconds),
      )
      results.push({ direction, runtime, series })
      console.log(`\n${direction}, ${METHOD}, medians of ${runs} runs of ${seconds} s (ratio to the tunnel)\n`)
      console.log(table(series, `${runtime} tunnel`))
    }
  await target.close()
  writeJson(values.json, { bench: 'library', machine: on, runs, seconds, results })
}
