/** A scenario: a path, its connections and its changes over time. Running it gives the figures of the tables. */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import { Random } from '../random.ts'
import { Bottleneck, type Counters, type Shape } from './bottleneck.ts'
import { type Connections, EngineHost, KCP_MTU, MSS, type Tuning } from './engine.ts'
import { BIN_TICKS, Flow } from './flow.ts'
import type { Host } from './host.ts'
import { LibevHost } from './libev-host.ts'
import { Network } from './network.ts'
import { Packets } from './packets.ts'
import { TcpReceiver, TcpSender } from './tcp.ts'
import { BbrSender } from './tcp-bbr.ts'

/** Bytes of a full packet on the wire. */
export const PACKET_BYTES = 1400
/** Largest share of payload on the wire: the bound of every goodput. */
export const WIRE_SHARE = MSS / PACKET_BYTES
const SECOND = 1000 * TICKS_PER_MS

/** One connection of a pair. */
export interface FlowSpec {
  readonly kind?: 'bulk' | 'echo'
  /** seconds; when its source closes, default never */
  readonly startAt?: number
  readonly stopAt?: number
  /** bulk from the server to the client */
  readonly download?: boolean
}

/** Two hosts and their connections. */
export interface PairSpec {
  readonly client?: 'engine' | 'libev' | 'tcp'
  /** of a tcp client; default cubic */
  readonly control?: 'cubic' | 'bbr'
  readonly server?: 'engine' | 'libev' | 'tcp'
  /** phase of the flush interval of a kcptun-libev peer, ms */
  readonly phase?: number
  /** engine config of both endpoints */
  readonly tuning?: Tuning
  readonly flows?: readonly FlowSpec[]
}

export interface Change {
  /** seconds */
  readonly at: number
  readonly shape?: Shape
  readonly blackhole?: boolean
}

/** The state of a run at one moment: counters of the direction of the data, from the start. */
export interface Sample {
  /** s */
  readonly at: number
  readonly line: Readonly<Counters>
  /** bytes delivered by all flows */
  readonly delivered: number
  /** `session_info` of the first engine's first session, if it is a client */
  readonly info: DataView | undefined
}

export interface Scenario {
  readonly seed: number
  /** both directions */
  readonly shape: Shape
  readonly pairs?: readonly PairSpec[]
  readonly changes?: readonly Change[]
  /** length of the run, s */
  readonly seconds: number
  /** start of the measurement, s; default: 12 RTT + 1 s */
  readonly settled?: number
  /** engines wake up on multiples of this number of ticks, as with a coarse timer; default 1 */
  readonly timerTicks?: number
  /** ticks by which a wake-up of an engine's host is late; default 0 */
  readonly lateness?: (random: Random) => number
  /** called every `every` s */
  readonly trace?: { readonly every: number; readonly see: (sample: Sample) => void }
  /** Mbit/s of payload that end the ramp; default: the bound of the wire */
  readonly full?: number
}

export interface FlowResult {
  readonly name: string
  readonly kind: Flow['kind']
  /** Mbit/s of payload after `settled`, and from the start of the run */
  readonly goodput: number
  readonly fromStart: number
  readonly broken: boolean
  /** echo round trips, ms; the first one includes opening the connection */
  readonly first: number
  readonly p50: number
  readonly p99: number
  /** bytes per bin of 20 ms */
  readonly bins: readonly number[]
}

/** Figures of a run. Rates are Mbit/s of payload, times ms; shares are 0..1. */
export interface Result {
  readonly flows: readonly FlowResult[]
  /** sum over the bulk flows (TCP competitors as well) */
  readonly goodput: number
  readonly fromStart: number
  /** payload / (datagrams sent x 1332) of uploads by engines and kcptun-libev models, after `settled` */
  readonly efficiency: number
  /** tail drops / datagrams sent in the direction of the data */
  readonly drops: number
  readonly dropsFromStart: number
  /** lost at random / datagrams sent in that direction */
  readonly lost: number
  /** queueing delay in the direction of the data */
  readonly queueMean: number
  readonly queueMax: number
  /** time to the first window of max(100 ms, RTT) at 90 % of the link's capacity, s; Infinity: never */
  readonly ramp: number
  readonly jain: number
  /** bytes of all bulk flows per bin of 20 ms */
  readonly bins: readonly number[]
  /** simulated datagrams, both directions */
  readonly packets: number
}

/** Round trip without queue, s. */
export function baseRtt(shape: Shape): number {
  return (2 * (shape.delay ?? 0)) / 1000
}

/** Time limit for a run to settle: 12 RTT + 1 s. */
export function settleTime(shape: Shape): number {
  return 12 * baseRtt(shape) + 1
}

/** Bound of the goodput, Mbit/s. */
export function bound(shape: Shape): number {
  return (((shape.rate ?? 0) * (1 - (shape.loss ?? 0))) / 1e6) * WIRE_SHARE
}

/** Jain's index of fairness. */
export function jain(values: readonly number[]): number {
  const sum = values.reduce((a, b) => a + b, 0)
  const squares = values.reduce((a, b) => a + b * b, 0)
  return squares === 0 ? 0 : (sum * sum) / (values.length * squares)
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}

/** Seconds from `from` to the first window with `target` Mbit/s. */
export function rampTime(bins: readonly number[], from: number, target: number, windowSeconds: number): number {
  const perBin = BIN_TICKS / SECOND
  const width = Math.max(1, Math.ceil(windowSeconds / perBin - 1e-9))
  const wanted = (target * 1e6 * width * perBin) / 8
  let sum = 0
  for (let bin = Math.floor(from / perBin), first = bin; bin < bins.length; bin++) {
    sum += bins[bin] ?? 0
    if (bin - width >= first) sum -= bins[bin - width] ?? 0
    if (sum >= wanted) return (bin + 1) * perBin - from
  }
  return Infinity
}

interface Mark {
  readonly line: Counters
  readonly delivered: readonly number[]
  readonly sent: number
}

/** Kept between runs: the pool is the largest part of a simulation. */
let pool: Packets | undefined

function usePool(): Packets {
  pool ??= new Packets()
  pool.reset()
  return pool
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

function flowOf(pair: PairSpec, spec: FlowSpec, name: string): Flow {
  const { kind = 'bulk', startAt = 0, stopAt = Infinity, download = false } = spec
  const [start, stop] = [Math.round(startAt * SECOND), Math.round(stopAt * SECOND)]
  return new Flow(pair.client === 'tcp' ? 'tcp' : kind, name, start, !download, stop)
}

/** One run of a scenario. */
class Simulation {
  readonly #scenario: Scenario
  /** Start of the measurement, s. */
  readonly #settled: number
  readonly #random: Random
  readonly #packets = usePool()
  readonly #up: Bottleneck
  readonly #down: Bottleneck
  readonly #hosts: Host[] = []
  readonly #flows: Flow[] = []
  readonly #senders: Host[] = []
  readonly #network: Network
  #begin: Mark

  constructor(scenario: Scenario) {
    this.#scenario = scenario
    this.#settled = Math.min(scenario.settled ?? settleTime(scenario.shape), scenario.seconds)
    this.#random = new Random(scenario.seed)
    this.#up = new Bottleneck(this.#packets, new Random(this.#random.u32()), scenario.shape)
    this.#down = new Bottleneck(this.#packets, new Random(this.#random.u32()), scenario.shape)
    for (const pair of scenario.pairs ?? [{}]) this.#addPair(pair)
    this.#network = new Network(this.#packets, this.#hosts, [this.#up, this.#down])
    this.#begin = this.#mark()
  }

  #join(client: Host, server: Host): void {
    client.peer = server.number
    server.peer = client.number
    this.#hosts.push(client, server)
  }

  #addPair(pair: PairSpec): void {
    const first = this.#hosts.length
    const own = (pair.flows ?? [{}]).map((spec, i) => flowOf(pair, spec, `${first / 2}.${i}`))
    const [flow] = own
    if (flow === undefined) throw new Error('a pair without a flow')
    this.#flows.push(...own)
    if (pair.client === 'tcp') {
      const receiver = new TcpReceiver(first + 1, this.#packets, this.#down, flow)
      const Sender = pair.control === 'bbr' ? BbrSender : TcpSender
      this.#join(new Sender(first, this.#packets, this.#up, flow.startAt, flow.stopAt), receiver)
      return
    }
    const connections: Connections = new Map()
    const client = this.#endpoint(pair, first, true, own, flow, connections)
    this.#join(client, this.#endpoint(pair, first + 1, false, [], flow, connections))
    this.#senders.push(client)
  }

  #endpoint(
    pair: PairSpec,
    number: number,
    client: boolean,
    flows: Flow[],
    flow: Flow,
    connections: Connections,
  ): Host {
    const out = client ? this.#up : this.#down
    if ((client ? pair.client : pair.server) === 'libev') {
      return new LibevHost(number, this.#packets, out, client, flow, pair.phase)
    }
    const options = {
      client,
      tuning: pair.tuning ?? {},
      random: this.#random,
      connections,
      flows,
      timerTicks: this.#scenario.timerTicks ?? 1,
      lateness: this.#scenario.lateness,
    }
    const host = new EngineHost(number, this.#packets, out, options)
    // a kcptun-libev model opens one connection, whose conv is not known here
    if (pair.client === 'libev') host.onlyFlow = flow
    return host
  }

  #mark(): Mark {
    return {
      line: { ...this.#up.counters },
      delivered: this.#flows.map((flow) => flow.delivered),
      sent: sum(this.#senders.map(({ sentPackets }) => sentPackets)),
    }
  }

  /** What happens during the run, in order. */
  #stops(): { readonly at: number; readonly run: () => void }[] {
    const [up, down, network] = [this.#up, this.#down, this.#network]
    const settled = (): void => {
      this.#begin = this.#mark()
      up.maxWait = 0
    }
    const stops = (this.#scenario.changes ?? []).map(({ at, shape, blackhole }) => ({
      at,
      run: () => {
        for (const path of [up, down]) {
          if (shape) path.reshape(shape, network.now)
          if (blackhole !== undefined) path.blackhole = blackhole
        }
      },
    }))
    stops.push({ at: this.#settled, run: settled })
    if (this.#scenario.trace) {
      const { every } = this.#scenario.trace
      for (let i = 1; i * every <= this.#scenario.seconds; i++) stops.push({ at: i * every, run: () => this.#sample() })
    }
    return stops.sort((a, b) => a.at - b.at)
  }

  #sample(): void {
    const [first] = this.#hosts
    this.#scenario.trace?.see({
      at: this.#network.now / SECOND,
      line: this.#up.counters,
      delivered: sum(this.#flows.map(({ delivered }) => delivered)),
      info: first instanceof EngineHost ? first.info(this.#network.now) : undefined,
    })
  }

  run(): Result {
    this.#network.start()
    for (const { at, run } of this.#stops()) {
      this.#network.run(Math.round(at * SECOND))
      run()
    }
    this.#network.run(Math.round(this.#scenario.seconds * SECOND))
    return this.#result(this.#mark())
  }

  #flowResult(flow: Flow, index: number): FlowResult {
    const { seconds } = this.#scenario
    const late = flow.latencies.toSorted((a, b) => a - b)
    const measured = flow.delivered - (this.#begin.delivered[index] ?? 0)
    return {
      name: flow.name,
      kind: flow.kind,
      goodput: (measured * 8) / (seconds - this.#settled) / 1e6,
      fromStart: (flow.delivered * 8) / seconds / 1e6,
      broken: flow.broken,
      first: (flow.latencies[0] ?? Number.NaN) / TICKS_PER_MS,
      p50: percentile(late, 0.5) / TICKS_PER_MS,
      p99: percentile(late, 0.99) / TICKS_PER_MS,
      bins: flow.bins,
    }
  }

  #result(end: Mark): Result {
    const begin = this.#begin
    const { shape, full } = this.#scenario
    const flows = this.#flows.map((flow, i) => this.#flowResult(flow, i))
    const bulk = flows.filter(({ kind }) => kind !== 'echo')
    const ours = sum(
      this.#flows.map((flow, i) =>
        flow.kind === 'tcp' || !flow.upload ? 0 : flow.delivered - (begin.delivered[i] ?? 0),
      ),
    )
    const bins: number[] = []
    for (const { bins: of } of bulk) for (const [i, bytes] of of.entries()) bins[i] = (bins[i] ?? 0) + bytes
    const packets = Math.max(1, end.line.packets - begin.line.packets)
    const served = Math.max(1, end.line.served - begin.line.served)
    return {
      flows,
      goodput: sum(bulk.map(({ goodput }) => goodput)),
      fromStart: sum(bulk.map(({ fromStart }) => fromStart)),
      efficiency: ours / Math.max(1, (end.sent - begin.sent) * KCP_MTU),
      drops: (end.line.dropped - begin.line.dropped) / packets,
      dropsFromStart: end.line.dropped / Math.max(1, end.line.packets),
      lost: (end.line.lost - begin.line.lost) / packets,
      queueMean: (end.line.waited - begin.line.waited) / served / TICKS_PER_MS,
      queueMax: this.#up.maxWait / TICKS_PER_MS,
      ramp: rampTime(bins, 0, 0.9 * (full ?? bound(shape)), Math.max(0.1, baseRtt(shape))),
      bins: Array.from(bins, (bytes) => bytes ?? 0),
      jain: jain(bulk.map(({ goodput }) => goodput)),
      packets: this.#up.counters.packets + this.#down.counters.packets,
    }
  }
}

/** Runs a scenario. The figures are deterministic, on every runtime. */
export function simulate(scenario: Scenario): Result {
  return new Simulation(scenario).run()
}
