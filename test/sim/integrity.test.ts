// time limit: 150 s
/**
 * Every byte arrives or the connection is reset; every connection ends; nothing leaks. Random sizes, windows, links,
 * settings and orders of closing, in virtual time.
 *
 * To repeat one run: SIM_SEED=1234 node test/run.mjs sim/integrity --runtime node
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { UNSET } from '../../host/engine/core.ts'
import type { AppScript } from '../../testkit/sim/app.ts'
import { type Connection, Pair } from '../../testkit/sim/pair.ts'
import { Random } from '../../testkit/sim/random.ts'

const SEEDS = 1000
const FIRST_SEED = 1
/** Above this loss rate, some aborts are tolerated. */
const HARSH_LOSS = 0.15
/** Share of the connections on harsh links that may end by a timeout. */
const HARSH_ABORTS_MAX = 0.05
const NEAR_WRAP = 0xfffff000

/** A random number, uniform on a logarithmic scale. */
function scaled(random: Random, low: number, high: number): number {
  return Math.round(low * (high / low) ** random.unit())
}

function script(random: Random, stream: number, most: number): AppScript {
  return {
    bytes: random.chance(0.15) ? 0 : scaled(random, 1, most),
    stream,
    chunk: scaled(random, 1, 65536),
    writeRate: random.chance(0.2) ? scaled(random, 20, 2000) : 0,
    readRate: random.chance(0.25) ? scaled(random, 20, 2000) : 0,
    reads: true,
    pause: random.chance(0.3) ? random.below(1500) : 0,
    fin: 'send',
    finPause: random.chance(0.3) ? random.below(1500) : 0,
  }
}

interface Outcome {
  readonly aborted: number
  readonly harsh: boolean
  readonly connections: number
}

export function simulate(seed: number): Outcome {
  const random = new Random(seed)
  const sealing = random.pick('none', 'none', 'random', 'counter')
  const worst = random.pick(0, 0.02, 0.05, 0.15, 0.3)
  const link = () => ({
    delay: random.pick(0, 1, 10, 40, 150),
    jitter: random.chance(0.4) ? random.below(40) : 0,
    loss: random.unit() * worst,
    duplicate: random.chance(0.3) ? random.unit() * 0.1 : 0,
    reorder: random.chance(0.3) ? random.unit() * 0.2 : 0,
    corrupt: sealing !== 'none' && random.chance(0.3) ? random.unit() * 0.03 : 0,
    rate: random.chance(0.3) ? scaled(random, 50, 5000) : 0,
    queue: scaled(random, 8000, 300_000),
  })
  const mtu = random.pick(UNSET, UNSET, UNSET, 200, 576)
  const settings = () => ({
    sndwnd: scaled(random, 16, 1024),
    rcvwnd: scaled(random, 16, 1024),
    nodelay: random.pick(UNSET, 0, 1, 2),
    interval: random.pick(UNSET, UNSET, 10, 100),
    resend: random.pick(UNSET, 0, 2),
    nc: random.pick(UNSET, 0, 1),
    flush: random.pick(UNSET, UNSET, 0, 1, 2),
    timeWait: random.pick(5, 30, 120),
    ...(mtu === UNSET ? {} : { kcpMtu: mtu }),
  })
  const pair = new Pair({
    seed: random.u32(),
    sealing,
    client: settings(),
    server: settings(),
    up: link(),
    down: link(),
    clientClock: random.pick(0, NEAR_WRAP, random.u32()),
    serverClock: random.pick(0, NEAR_WRAP, random.u32()),
    ...(random.chance(0.3) ? { entropyChunk: 64 } : {}),
    timerSlack: random.pick(0, 0, 1, 15),
  })
  const count = random.pick(1, 1, 2, 4)
  const most = mtu === 200 || worst > 0.1 ? 60_000 : 1_000_000
  const connections: Connection[] = []
  for (let i = 0; i < count; i++) {
    const client = script(random, 2 * i + 1, most)
    const server = script(random, 2 * i + 2, most)
    const last = random.below(3)
    const both = {
      client: { ...client, fin: last === 1 ? ('last' as const) : client.fin },
      server: { ...server, fin: last === 2 ? ('last' as const) : server.fin },
      dial: random.below(100),
    }
    pair.after(random.below(500), () => connections.push(pair.connect(both)))
  }
  const started = (): boolean => connections.length === count
  if (!pair.runUntil(() => started() && connections.every(({ over }) => over), 3600)) {
    throw new Error(`not over after an hour: ${connections.map((one) => one.describe()).join(' | ')}`)
  }
  const aborted = connections.filter(({ clean }) => !clean)
  if (worst <= HARSH_LOSS && aborted[0]) throw new Error(`aborted on a usable link: ${aborted[0].describe()}`)
  if (!pair.runUntil(() => pair.client.sessions + pair.server.sessions === 0, 3600)) {
    throw new Error(`leak after an hour: ${pair.leak()}`)
  }
  if (pair.leak() !== '') throw new Error(`leak: ${pair.leak()}`)
  return { aborted: aborted.length, harsh: worst > HARSH_LOSS, connections: count }
}

const test = suite('sim/integrity')

test('no byte is wrong, lost or spurious, every connection ends, nothing leaks (1000 random runs)', () => {
  const only = process.env['SIM_SEED']
  const first = only === undefined ? FIRST_SEED : Number(only)
  const seeds = only === undefined ? SEEDS : 1
  let aborted = 0
  let harsh = 0
  for (let seed = first; seed < first + seeds; seed++) {
    try {
      const outcome = simulate(seed)
      aborted += outcome.aborted
      if (outcome.harsh) harsh += outcome.connections
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      assert.unreachable(`seed ${seed}: SIM_SEED=${seed} node test/run.mjs sim/integrity --runtime node\n${text}`)
    }
  }
  const limit = Math.ceil(harsh * HARSH_ABORTS_MAX)
  assert.ok(aborted <= limit, `${aborted} of ${harsh} connections on harsh links were aborted`)
})

test('under loss with small windows, retransmissions carry the same bytes', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed)
    const sndwnd = random.pick(24, 64, 128)
    const pair = new Pair({
      seed,
      client: { sndwnd },
      server: { sndwnd, rcvwnd: 128 },
      up: {
        delay: random.between(5, 60),
        jitter: random.below(20),
        loss: 0.02 + random.unit() * 0.15,
        rate: random.pick(0, 500, 2000),
        queue: 60_000,
      },
      down: { delay: random.between(5, 60), loss: random.unit() * 0.15 },
    })
    const connection = pair.connect({ client: { bytes: 400_000, stream: 1 }, server: { bytes: 100_000, stream: 2 } })
    try {
      pair.finish(600)
    } catch (error) {
      assert.unreachable(`seed ${seed}: ${error instanceof Error ? error.stack : error}`)
    }
    assert.ok(connection.clean, `seed ${seed}: ${connection.describe()}`)
  }
})

test.run()
