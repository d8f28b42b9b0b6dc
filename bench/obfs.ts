/**
 * `bench obfs`: goodput and CPU of the obfuscator dpi/tcp-wnd over a veth pair between two network namespaces, and of
 * plain UDP over the same pair. kcptun-wasm on Node and on Bun, kcptun-libev, and both mixed, interleaved in one run.
 * Requires Linux, root, ip and nft.
 *
 *   --runs N      medians of N interleaved runs (default 3)    --match REGEX   columns whose name matches
 *   --seconds N   of a transfer (default 5)                    --json FILE     all figures as JSON
 *   --only NAME   upload or download alone                     --quick         one short run
 */
import { parseArgs } from 'node:util'
import { Agent } from '../testkit/agent.ts'
import { Namespace, netnsProblem } from '../testkit/namespace.ts'
import { freePort, type Place } from '../testkit/process.ts'
import { describe, type Ends, METHOD, machine, type Pair, present, startPair } from './peers.ts'
import { interleaved, positive, type Series, writeJson } from './series.ts'
import { type Flow, failed, measure, type Transfer, table } from './transfer.ts'

const SECONDS = 5
const RUNS = 3
const OBFS = 'dpi/tcp-wnd'
const SERVER = '10.203.0.1'
const CLIENT = '10.203.0.2'

interface Column extends Pair {
  readonly obfs: boolean
}

const pair = (name: string, client: Pair['client'], server: Pair['server'], obfs = true): Column => {
  // kcptun-libev at its fastest, as in `bench loopback`
  const tune = (program: Pair['client']) => (program === 'libev' ? { sndwnd: 256, rcvwnd: 256, flush: 2 } : undefined)
  const [clientKcp, serverKcp] = [tune(client), tune(server)]
  return { name, client, server, obfs, ...(clientKcp && { clientKcp }), ...(serverKcp && { serverKcp }) }
}

const REFERENCE = 'libev w256'
const COLUMNS: readonly Column[] = [
  pair('node', 'node', 'node'),
  pair('bun', 'bun', 'bun'),
  pair(REFERENCE, 'libev', 'libev'),
  pair('node > libev', 'node', 'libev'),
  pair('libev > node', 'libev', 'node'),
  pair('node, UDP', 'node', 'node', false),
  pair('bun, UDP', 'bun', 'bun', false),
  pair('libev w256, UDP', 'libev', 'libev', false),
]

const DIRECTIONS = ['upload', 'download'] as const
type Direction = (typeof DIRECTIONS)[number]

/** Two namespaces and the veth pair between them. */
class Wire {
  readonly server: Namespace
  readonly client: Namespace
  readonly serverAgent: Agent
  readonly clientAgent: Agent

  constructor() {
    this.server = new Namespace('server')
    this.client = new Namespace('client')
    this.server.ip(`link add eth0 type veth peer name eth0 netns ${this.client.name}`)
    for (const [namespace, address] of [
      [this.server, SERVER],
      [this.client, CLIENT],
    ] as const) {
      namespace.ip(`link set eth0 up\naddr add ${address}/24 dev eth0`)
      // veth leaves checksums to the (missing) hardware; kcptun-libev drops packets without one
      namespace.run(['ethtool', '-K', 'eth0', 'tx', 'off'])
    }
    this.serverAgent = new Agent(this.#enter(this.server))
    this.clientAgent = new Agent(this.#enter(this.client))
  }

  #enter(namespace: Namespace): readonly string[] {
    return ['ip', 'netns', 'exec', namespace.name]
  }

  get places(): { readonly client: Place; readonly server: Place } {
    const place = (namespace: Namespace, agent: Agent): Place => ({ command: this.#enter(namespace), get: agent.get })
    return { client: place(this.client, this.clientAgent), server: place(this.server, this.serverAgent) }
  }

  async close(): Promise<void> {
    await Promise.all([this.serverAgent.close(), this.clientAgent.close()])
    this.server.remove()
    this.client.remove()
  }
}

/** One transfer over its own veth pair, so that the state of an earlier cover cannot disturb it. */
async function transfer(column: Column, direction: Direction, seconds: number): Promise<Transfer> {
  const wire = new Wire()
  let ends: Ends | undefined
  try {
    const target = await wire.serverAgent.target()
    const { places } = wire
    const config = column.obfs ? { obfs: OBFS } : {}
    const udpPort = await freePort()
    ends = await startPair(column, { target, udpPort, method: METHOD, host: SERVER, places, config })
    const { serverAgent, clientAgent } = wire
    await clientAgent.flow(direction === 'upload' ? 'pour' : 'download', { host: '127.0.0.1', port: ends.port })
    const flow: Flow = {
      bytes: () => (direction === 'upload' ? serverAgent.discarded() : clientAgent.received()),
      stop: () => clientAgent.stop(),
      makers: [serverAgent.pid, clientAgent.pid],
    }
    return await measure(ends, flow, seconds)
  } catch (error) {
    process.exitCode = 1
    const text = error instanceof Error ? error.message : String(error)
    return failed(/[EF] \d{4}-.*/.exec(text)?.[0] ?? text.split('\n')[0] ?? '')
  } finally {
    await ends?.close()
    await wire.close()
  }
}

/** `bench obfs`. */
export async function benchObfs(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string' },
      seconds: { type: 'string' },
      match: { type: 'string', default: '' },
      only: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  if (netnsProblem !== undefined) {
    console.error(`bench obfs cannot run here: ${netnsProblem}`)
    process.exitCode = 1
    return
  }
  const runs = positive('runs', values.runs, values.quick ? 1 : RUNS)
  const seconds = positive('seconds', values.seconds, values.quick ? 1 : SECONDS)
  const pattern = new RegExp(values.match)
  const columns = present(COLUMNS).filter(({ name }) => pattern.test(name)) as Column[]
  const on = await machine()
  console.log(describe(on))
  const results: { readonly direction: Direction; readonly series: readonly Series<Transfer>[] }[] = []
  for (const direction of DIRECTIONS) {
    if (values.only !== undefined && values.only !== direction) continue
    const series = await interleaved(
      columns.map(({ name }) => name),
      runs,
      (name) => {
        const column = columns.find((one) => one.name === name)
        if (column === undefined) throw new Error(name)
        return transfer(column, direction, seconds)
      },
    )
    results.push({ direction, series })
    console.log(
      `\n${direction} through ${OBFS} over a veth wire, client > server, ${METHOD}, medians of ${runs} runs of`,
    )
    console.log(`${seconds} s; in parentheses: ratio to ${REFERENCE}; the last rows without the obfuscator\n`)
    console.log(table(series, REFERENCE))
  }
  writeJson(values.json, { bench: 'obfs', machine: on, runs, seconds, columns, results })
}
