/**
 * A scenario: a path, who talks over it, what changes on the way; running it gives the figures that the tables show.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import { Random } from '../random.ts'
import { Bottleneck, type Counters, type Shape } from './bottleneck.ts'
import { type Connections, EngineHost, KCP_MTU, MSS, type Tuning } from './engine.ts'
import { BIN_TICKS, Flow } from './flow.ts'
import type { Host } from './host.ts'
import { Network } from './network.ts'
import { OriginalHost } from './original-host.ts'
import { Packets } from './packets.ts'
import { TcpReceiver, TcpSender } from './tcp.ts'

/** Bytes of a full packet on the wire. */
export const PACKET_BYTES = 1400
/** Share of the wire that payload can have: the bound of every goodput. */
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
  readonly client?: 'engine' | 'original' | 'tcp'
  readonly server?: 'engine' | 'original' | 'tcp'
  /** when the first tick of an original is, ms */
  readonly phase?: number
  /** engine config of both ends */
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
  /** what is measured begins here, s; default: 12 RTT + 1 s */
  readonly settled?: number
  /** engines wake up on multiples of so many ticks, as with a coarse timer; default 1 */
  readonly timerTicks?: number
  /** called every `every` s */
  readonly trace?: { readonly every: number; readonly see: (sample: Sample) => void }
  /** Mbit/s of payload that count as full for the ramp; default: what the wire allows */
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
  /** payload / (datagrams sent x 1332) of the engines' and actors' uploads, after `settled` */
  readonly efficiency: number
  /** tail drops / datagrams sent in the direction of the data */
  readonly drops: number
  readonly dropsFromStart: number
  /** lost at random / datagrams sent in that direction */
  readonly lost: number
  /** wait before the bottleneck, in the direction of the data */
  readonly queueMean: number
  readonly queueMax: number
  /** until the first window of max(100 ms, RTT) with 90 % of what the link can carry; s, Infinity = never */
  readonly ramp: number
  readonly jain: number
  /** bytes of all bulk flows per bin of 20 ms */
  readonly bins: readonly number[]
  /** simulated datagrams, both directions: for the speed of the simulator */
  readonly packets: number
}

/** Round trip without queue, s. */
export function baseRtt(shape: Shape): number {
  return (2 * (shape.delay ?? 0)) / 1000
}

/** 12 RTT + 1 s: when a run must have settled. */
export function settleTime(shape: Shape): number {
  return 12 * baseRtt(shape) + 1
}

/** Goodput that the wire allows, Mbit/s. */
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

/** Seconds after `from` until the first window that carries `target` Mbit/s. */
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

/** The pool is kept between runs: it is the largest thing of a simulation. */
let pool: Packets | undefined

/** Runs a scenario; the same one gives the same figures, on every runtime. */
export function simulate(scenario: Scenario): Result {
  const { shape, seconds } = scenario
  const random = new Random(scenario.seed)
  pool ??= new Packets()
  pool.reset()
  const packets = pool
  const up = new Bottleneck(packets, new Random(random.u32()), shape)
  const down = new Bottleneck(packets, new Random(random.u32()), shape)
  const hosts: Host[] = []
  const flows: Flow[] = []
  const senders: { host: Host; flows: Flow[] }[] = []
  const join = (client: Host, server: Host): void => {
    client.peer = server.number
    server.peer = client.number
    hosts.push(client, server)
  }
  for (const pair of scenario.pairs ?? [{}]) {
    const specs = pair.flows ?? [{}]
    const first = hosts.length
    const own = specs.map(
      ({ kind = 'bulk', startAt = 0, stopAt = Infinity, download = false }, i) =>
        new Flow(
          pair.client === 'tcp' ? 'tcp' : kind,
          `${first / 2}.${i}`,
          Math.round(startAt * SECOND),
          !download,
          Math.round(stopAt * SECOND),
        ),
    )
    flows.push(...own)
    const [flow] = own
    if (flow === undefined) throw new Error('a pair without a flow')
    if (pair.client === 'tcp') {
      join(new TcpSender(first, packets, up, flow.startAt), new TcpReceiver(first + 1, packets, down, flow))
      continue
    }
    const connections: Connections = new Map()
    const end = (client: boolean): Host => {
      const number = client ? first : first + 1
      const out = client ? up : down
      if ((client ? pair.client : pair.server) === 'original') {
        return new OriginalHost(number, packets, out, client, flow, pair.phase)
      }
      const options = {
        client,
        tuning: pair.tuning ?? {},
        random,
        connections,
        flows: client ? own : [],
        timerTicks: scenario.timerTicks ?? 1,
      }
      const host = new EngineHost(number, packets, out, options)
      // an original opens one connection, and its conv is not known here
      if (pair.client === 'original') host.onlyFlow = flow
      return host
    }
    const client = end(true)
    join(client, end(false))
    senders.push({ host: client, flows: own })
  }
  const network = new Network(packets, hosts, [up, down])
  const mark = (): Mark => ({
    line: { ...up.counters },
    delivered: flows.map((flow) => flow.delivered),
    sent: senders.reduce((sum, { host }) => sum + host.sentPackets, 0),
  })
  const settled = Math.min(scenario.settled ?? settleTime(shape), seconds)
  const stops: { at: number; run: () => void }[] = [
    ...(scenario.changes ?? []).map(({ at, shape: change, blackhole }) => ({
      at,
      run: () => {
        for (const path of [up, down]) {
          if (change) path.reshape(change, network.now)
          if (blackhole !== undefined) path.blackhole = blackhole
        }
      },
    })),
    {
      at: settled,
      run: () => {
        begin = mark()
        up.maxWait = 0
      },
    },
  ]
  if (scenario.trace) {
    const { every, see } = scenario.trace
    const [first] = hosts
    const look = (): void =>
      see({
        at: network.now / SECOND,
        line: up.counters,
        delivered: flows.reduce((sum, { delivered }) => sum + delivered, 0),
        info: first instanceof EngineHost ? first.info(network.now) : undefined,
      })
    for (let i = 1; i * every <= seconds; i++) stops.push({ at: i * every, run: look })
  }
  let begin = mark()
  network.start()
  for (const { at, run } of stops.sort((a, b) => a.at - b.at)) {
    network.run(Math.round(at * SECOND))
    run()
  }
  network.run(Math.round(seconds * SECOND))
  const end = mark()

  const span = seconds - settled
  const perFlow = flows.map((flow, i): FlowResult => {
    const late = flow.latencies.toSorted((a, b) => a - b)
    return {
      name: flow.name,
      kind: flow.kind,
      goodput: ((flow.delivered - (begin.delivered[i] ?? 0)) * 8) / span / 1e6,
      fromStart: (flow.delivered * 8) / seconds / 1e6,
      broken: flow.broken,
      first: (flow.latencies[0] ?? Number.NaN) / TICKS_PER_MS,
      p50: percentile(late, 0.5) / TICKS_PER_MS,
      p99: percentile(late, 0.99) / TICKS_PER_MS,
      bins: flow.bins,
    }
  })
  const bulk = perFlow.filter(({ kind }) => kind !== 'echo')
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
  const ours = sum(
    flows.map((flow, i) => (flow.kind === 'tcp' || !flow.upload ? 0 : flow.delivered - (begin.delivered[i] ?? 0))),
  )
  const bins: number[] = []
  for (const { bins: of } of bulk) for (const [i, bytes] of of.entries()) bins[i] = (bins[i] ?? 0) + bytes
  const served = end.line.served - begin.line.served
  return {
    flows: perFlow,
    goodput: sum(bulk.map(({ goodput }) => goodput)),
    fromStart: sum(bulk.map(({ fromStart }) => fromStart)),
    efficiency: ours / Math.max(1, (end.sent - begin.sent) * KCP_MTU),
    drops: (end.line.dropped - begin.line.dropped) / Math.max(1, end.line.packets - begin.line.packets),
    dropsFromStart: end.line.dropped / Math.max(1, end.line.packets),
    lost: (end.line.lost - begin.line.lost) / Math.max(1, end.line.packets - begin.line.packets),
    queueMean: (end.line.waited - begin.line.waited) / Math.max(1, served) / TICKS_PER_MS,
    queueMax: up.maxWait / TICKS_PER_MS,
    ramp: rampTime(bins, 0, 0.9 * (scenario.full ?? bound(shape)), Math.max(0.1, baseRtt(shape))),
    bins: Array.from(bins, (bytes) => bytes ?? 0),
    jain: jain(bulk.map(({ goodput }) => goodput)),
    packets: up.counters.packets + down.counters.packets,
  }
}
