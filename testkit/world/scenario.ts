/** What happens in a simulated world: everything that a seed decides, as data, so that a failing one can be made smaller. */
import { methods } from '../../host/crypto/methods.ts'
import { Random } from '../sim/random.ts'
import type { EndPlan } from './application.ts'
import { drawFault, FAULT_KINDS, type FaultPlan } from './faults.ts'
import type { Opening } from './library-program.ts'
import type { Conditions } from './network.ts'
import { drawReload } from './reloads.ts'

/** Who is at the two ends of the tunnel. */
export const TOPOLOGIES = [
  'pair',
  'nat',
  'rendezvous',
  'workers',
  'model-server',
  'model-client',
  'library-client',
  'library-server',
  'library-pair',
  'library-rendezvous',
  'library-carrier',
] as const
export type Topology = (typeof TOPOLOGIES)[number]

export interface StreamPlan {
  /** ms after the start at which the application connects. */
  readonly at: number
  readonly client: EndPlan
  readonly server: EndPlan
  /** A client of the library. */
  readonly opening?: Opening
}

export interface Scenario {
  readonly seed: number
  readonly topology: Topology
  readonly method: string
  readonly conditions: Conditions
  /** Keys of both configuration files. */
  readonly config: Readonly<Record<string, unknown>>
  /** Monotonic clocks of the machines at the start, ms. */
  readonly clocks: readonly number[]
  readonly streams: readonly StreamPlan[]
  readonly faults: readonly FaultPlan[]
  /** What programs do that use the library. */
  readonly library?: LibraryPlan
}

export interface LibraryPlan {
  readonly when_down: 'hold' | 'reset'
  /** Applications write on, however much waits. */
  readonly isGreedy: boolean
  readonly closing: 'close()' | 'signal' | 'end of the carrier'
}

const STREAMS = 20
/** Bytes of the streams that no application aborts, at least. */
const TOTAL_BYTES = 1_020_000
/** Faults begin in this time, ms. */
const SPAN_MS = 20_000
const FAULTS = 6
/** The engine's clock of 1/8 ms wraps. */
const WRAP_MS = 2 ** 32 / 8

function drawConditions(random: Random): Conditions {
  const delay = random.pick(0.5, 5, 20, 50, 150)
  const rate = random.pick(0, 0, 1250, 12_500)
  return {
    delay,
    jitter: random.pick(0, 0, 1, delay / 2),
    loss: random.pick(0, 0, 0.01, 0.05),
    burst: random.pick(1, 3),
    duplicate: random.pick(0, 0, 0.01),
    reorder: random.pick(0, 0, 0.02),
    corrupt: 0,
    rate,
    queue: rate === 0 ? 1 << 20 : Math.max(20_000, rate * delay),
    longest: 0,
  }
}

function drawEnds(random: Random, up: number, down: number, topology: Topology): Pick<StreamPlan, 'client' | 'server'> {
  // kcptun-libev stops reading TCP when the other end has closed: against the model it closes first
  const ours = topology === 'model-server' ? 'client' : 'server'
  const isModel = topology.startsWith('model')
  const last = isModel ? ours : random.pick('client', 'server', 'none')
  const end = (send: number, expect: number, isLast: boolean): EndPlan => ({
    send,
    expect,
    chunk: random.pick(300, 1400, 5000, 16_384),
    pause: random.pick(0.1, 1, 20, 100),
    finLast: isLast,
    readPause: random.pick(0, 0, 0, 5, 40),
    abortAt: -1,
  })
  const client = end(up, down, last === 'client')
  const server = end(down, up, last === 'server')
  if (isModel || !random.chance(0.1)) return { client, server }
  const abort = (plan: EndPlan): EndPlan => ({ ...plan, abortAt: random.below(plan.send + 1) })
  return random.chance(0.5) ? { client: abort(client), server } : { client, server: abort(server) }
}

function drawStreams(random: Random, topology: Topology): StreamPlan[] {
  const isModel = topology.startsWith('model')
  // the model plays one script in every session
  const [up, down] = [random.between(26_000, 30_000), random.between(26_000, 30_000)]
  const size = (): readonly [number, number] =>
    isModel ? [up, down] : [random.pick(4, 1000, 20_000, 60_000, 100_000), random.pick(0, 1, 1000, 20_000, 60_000)]
  const plans = Array.from({ length: STREAMS }, () => ({
    at: random.chance(0.3) ? random.below(200) : random.below(SPAN_MS),
    ...drawEnds(random, ...size(), topology),
  }))
  // aborted streams do not count
  const whole = plans.filter(({ client, server }) => client.abortAt < 0 && server.abortAt < 0)
  const bytes = whole.reduce((sum, { client, server }) => sum + client.send + server.send, 0)
  const more = Math.max(0, Math.ceil((TOTAL_BYTES - bytes) / whole.length))
  return plans.map((plan) =>
    whole.includes(plan)
      ? {
          ...plan,
          client: { ...plan.client, send: plan.client.send + more },
          server: { ...plan.server, expect: plan.server.expect + more },
        }
      : plan,
  )
}

/** Bytes of the large stream in worlds of the library, for which the buffers of an endpoint do not suffice. */
const LARGE_BYTES = 600_000

/** What streams of the library have in addition: rests, large streams, ways to open them. */
function withLibrary(random: Random, plans: readonly StreamPlan[]): StreamPlan[] {
  const resting = (plan: EndPlan): EndPlan =>
    random.chance(0.2) ? { ...plan, rest: { at: random.below(plan.expect + 1), ms: random.pick(2000, 30_000) } } : plan
  const large = random.pick('client', 'server')
  return plans.map((plan, index) => {
    const opening: Opening = {
      call: random.pick('connect', 'open'),
      patience: random.chance(0.2) ? random.pick(100, 1000, 3000) : 0,
    }
    let client = resting(plan.client)
    let server = resting(plan.server)
    if (index === plans.length - 1) {
      const [up, down] = large === 'client' ? [LARGE_BYTES, 1000] : [1000, LARGE_BYTES]
      const [chunk, abortAt] = [16_384, -1]
      client = { ...client, chunk, abortAt, pause: 0.1, send: up, expect: down }
      server = { ...server, chunk, abortAt, pause: 0.1, send: down, expect: up, rest: { at: 20_000, ms: 10_000 } }
    }
    return { ...plan, client, server, opening }
  })
}

function drawLibrary(random: Random): LibraryPlan {
  return {
    when_down: random.pick('hold', 'reset'),
    isGreedy: random.chance(0.3),
    closing: random.pick('close()', 'close()', 'signal', 'end of the carrier'),
  }
}

function drawConfig(random: Random, topology: Topology): Record<string, unknown> {
  const kcp: Record<string, number> = {}
  if (random.chance(0.3)) kcp['mtu'] = random.pick(576, 1280, 1492)
  if (random.chance(0.2)) kcp['sndwnd'] = random.pick(64, 256, 1024)
  if (random.chance(0.2)) kcp['rcvwnd'] = random.pick(64, 256, 1024)
  if (random.chance(0.15))
    Object.assign(kcp, { nodelay: random.pick(0, 1, 2), interval: random.pick(10, 50), nc: random.below(2) })
  if (random.chance(0.1)) kcp['flush'] = random.below(3)
  return {
    kcp,
    timeout: random.pick(60, 120, 600),
    linger: random.pick(5, 30),
    time_wait: random.pick(5, 120),
    keepalive: random.pick(5, 25, 25, topology.endsWith('rendezvous') ? 25 : 0),
    ...(random.chance(0.2) ? { replay: 'strict' } : {}),
  }
}

/**
 * The scenario of a seed.
 * @param index selects the first fault, the topology and the first reloaded key, so that successive seeds reach all of them
 */
export function drawScenario(seed: number, index = seed): Scenario {
  const random = new Random(seed ^ 0x51f0_0d1e)
  const topology = TOPOLOGIES[index % TOPOLOGIES.length] ?? 'pair'
  const kinds = [FAULT_KINDS[index % FAULT_KINDS.length] ?? 'loss']
  while (kinds.length < FAULTS) {
    const kind = FAULT_KINDS[random.below(FAULT_KINDS.length)]
    if (kind !== undefined && !kinds.includes(kind)) kinds.push(kind)
  }
  const wraps = kinds.includes('wrap')
  const library = new Random(seed ^ 0x11b_4a41)
  const isLibrary = topology.startsWith('library')
  const clock = (): number => (wraps ? WRAP_MS - random.below(SPAN_MS) : random.below(WRAP_MS / 2))
  return {
    seed,
    topology,
    method: methods[random.below(methods.length)] ?? 'chacha20poly1305_ietf',
    conditions: drawConditions(random),
    config: drawConfig(random, topology),
    clocks: [clock(), clock(), clock()],
    streams: isLibrary ? withLibrary(library, drawStreams(random, topology)) : drawStreams(random, topology),
    faults: kinds.map((kind) => {
      const fault = drawFault(kind, random, random.below(SPAN_MS))
      return kind === 'reload' ? { ...fault, change: drawReload(random, index, fault.end, topology) } : fault
    }),
    ...(isLibrary && { library: drawLibrary(library) }),
  }
}
