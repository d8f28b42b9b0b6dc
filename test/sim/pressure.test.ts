// time limit: 120 s
/**
 * Many connections, large windows, little memory: accepted connections complete, the newest may be rejected.
 *
 * To repeat one run: SIM_SEED=12 node test/run.mjs sim/pressure --runtime node
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode } from '../../host/engine/core.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { Random } from '../../testkit/sim/random.ts'

const MIB = 1024 * 1024
const SEEDS = 60

interface Outcome {
  readonly refused: number
  readonly finished: number
}

function simulate(seed: number): Outcome {
  const random = new Random(seed)
  const loss = random.pick(0, 0.02, 0.1)
  const settings = () => ({
    memoryCeiling: random.between(1, 4) * MIB,
    sndwnd: random.pick(64, 256, 1024),
    rcvwnd: random.pick(128, 256, 1024),
    timeWait: 5,
  })
  const link = () => ({ delay: random.pick(5, 30), loss, reorder: random.pick(0, 0.05), rate: random.pick(0, 2000) })
  const pair = new Pair({ seed, client: settings(), server: settings(), up: link(), down: link() })
  const count = random.between(4, 40)
  let refused = 0
  for (let i = 0; i < count; i++) {
    const end = (stream: number) => ({
      bytes: random.below(400_000),
      stream,
      readRate: random.chance(0.3) ? random.between(100, 2000) : 0,
      fin: 'send' as const,
    })
    const script = { client: end(2 * i + 1), server: end(2 * i + 2), dial: random.below(20) }
    pair.after(random.below(300), () => {
      try {
        pair.connect(script)
      } catch (error) {
        if (!String(error).includes(`stream_open = ${ErrorCode.MEMORY}`)) throw error
        refused++
      }
    })
  }
  const over = (): boolean =>
    pair.connections.length + refused === count && pair.connections.every((connection) => connection.over)
  if (!pair.runUntil(over, 1200)) {
    const stuck = pair.connections.filter((connection) => !connection.over)
    throw new Error(`${stuck.length} of ${count} not over after 20 minutes: ${stuck[0]?.describe()}`)
  }
  for (const side of ['client', 'server'] as const) {
    const { config } = pair[side]
    const used = pair[side].counter('memory_used')
    if (used > config.memoryCeiling + 2 * MIB) throw new Error(`${side}: ${used} bytes in use`)
  }
  // connections that a full server did not accept are aborted; accepted ones end cleanly
  for (const connection of pair.connections) {
    if (connection.server && !connection.clean) throw new Error(`accepted, but broken: ${connection.describe()}`)
    if (!connection.server && connection.client.ending !== 'aborted') throw new Error(connection.describe())
  }
  pair.runUntil(() => pair.client.sessions + pair.server.sessions === 0, 1200)
  if (pair.client.sessions + pair.server.sessions > 0) throw new Error('sessions are left')
  return { refused, finished: pair.connections.filter(({ clean }) => clean).length }
}

const test = suite('sim/pressure')

test('up to 40 connections under a ceiling of 1 to 4 MiB: accepted ones lose nothing and end', () => {
  const only = process.env['SIM_SEED']
  let finished = 0
  for (let seed = Number(only ?? 1); seed <= Number(only ?? SEEDS); seed++) {
    try {
      finished += simulate(seed).finished
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      assert.unreachable(`seed ${seed}: SIM_SEED=${seed} node test/run.mjs sim/pressure --runtime node\n${text}`)
    }
  }
  assert.ok(finished > 0)
})

test('200 connections at once, all of them complete', () => {
  const pair = new Pair({ seed: 1, up: { loss: 0.01, rate: 12_500 }, down: { loss: 0.01, rate: 12_500 } })
  for (let i = 0; i < 200; i++) {
    pair.connect({ client: { bytes: 2000, stream: 2 * i + 1 }, server: { bytes: 30_000, stream: 2 * i + 2 } })
  }
  assert.ok(pair.finish(120))
  for (const connection of pair.connections) assert.ok(connection.clean, connection.describe())
  // no connection starves: 6.4 MB take half a second of this link
  const last = Math.max(...pair.connections.map(({ client }) => client.endedAt))
  assert.ok(last < 5000, `${last} ms`)
})

test.run()
