/** Aggregation of the figures of several workers. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { NO_HOST_COUNTERS } from '../../host/driver/diagnostics.ts'
import { HISTORY_COLUMNS } from '../../host/monitoring/history.ts'
import { type Counters, type Health, NO_COUNTERS, sumCounters } from '../../host/monitoring/stats.ts'
import type { Runtime } from '../../host/runtime.ts'
import { type ToWorker, worstHealth } from '../../host/workers/messages.ts'
import { WorkerStats } from '../../host/workers/stats.ts'
import { clock } from '../../runtime-shared/clock.ts'
import { NO_LIVE } from './live-source.ts'

const test = suite('figures of several workers')

const HEALTH: Health = { client: true, pending: false, lastReceived: 1000, silence: 79 }
const counters = (some: Partial<Counters>): Counters => ({ ...NO_COUNTERS, ...some })

test('totals and gauges are summed, age is the minimum, silence the maximum, and null stands for never', () => {
  const never = JSON.parse(JSON.stringify({ last_received_age: Number.POSITIVE_INFINITY }))
  const sum = sumCounters([
    counters({ pkt_sent: 3, sessions_established: 2, peer_silent_pings: 4, last_received_age: 700 }),
    counters({ pkt_sent: 4, sessions_established: 1, peer_silent_pings: 1, ...never }),
  ])
  const { pkt_sent, sessions_established, peer_silent_pings, last_received_age } = sum
  assert.equal([pkt_sent, sessions_established, peer_silent_pings, last_received_age], [7, 3, 4, 700])
  assert.is(sumCounters([counters(never)]).last_received_age, Number.POSITIVE_INFINITY)
})

test('the group is as healthy as its worst worker', () => {
  const unheard = { ...HEALTH, lastReceived: undefined }
  assert.is(worstHealth([HEALTH, { ...HEALTH, lastReceived: 5000 }], unheard).lastReceived, 5000)
  assert.is(worstHealth([HEALTH, unheard], unheard).lastReceived, undefined)
  assert.is(worstHealth([], unheard).lastReceived, undefined)
  assert.is(worstHealth([], unheard).client, true)
})

/** A WorkerStats whose workers answer with the given functions. */
function statsOf(workers: Map<number, (id: number) => void>): WorkerStats {
  const runtime: Pick<Runtime, 'clock' | 'cpuTime'> = { clock: { ...clock, monotonic: () => 1000 }, cpuTime: () => 5 }
  const config = parseConfig(new TextEncoder().encode('{"connect":"a:1","kcp_bind":":1","workers":2}'))
  const askable = () =>
    [...workers].map(([number, answer]) => ({
      number,
      send: (message: ToWorker) => answer(message.kind === 'stats' ? message.id : 0),
    }))
  return new WorkerStats(runtime as Runtime, askable, config)
}

test('a worker that exited leaves only its totals', async () => {
  const workers = new Map<number, (id: number) => void>()
  const stats = statsOf(workers)
  const part = (pkt_sent: number, sessions_established: number) => ({
    cpu: 10,
    counters: counters({ pkt_sent, sessions_established, last_received_age: 50 }),
    host: { ...NO_HOST_COUNTERS, tcp_dials: 1 },
    health: HEALTH,
    path: NO_LIVE.path(),
  })
  workers.set(1, (id) => stats.take(1, { kind: 'stats', id, part: part(5, 1) }))
  workers.set(2, (id) => stats.take(2, { kind: 'stats', id, part: part(7, 2) }))
  await stats.prepare('/metrics')
  assert.is(stats.snapshot().counters.pkt_sent, 12)
  assert.is(stats.snapshot().cpu, 25)
  assert.is(stats.hostCounters().tcp_dials, 2)
  workers.delete(2)
  stats.gone(2)
  const { pkt_sent, sessions_established, last_received_age } = stats.snapshot().counters
  assert.equal([pkt_sent, sessions_established, last_received_age], [12, 1, 50])
  assert.is(stats.snapshot().cpu, 25)
  assert.equal(stats.snapshot().workers, { serving: 1, restarts: 0 })
})

test('the histories of the workers are shown to the viewer who asked, once', async () => {
  const workers = new Map<number, (id: number) => void>()
  const stats = statsOf(workers)
  const row = (time: number, bytes: number): number[] => HISTORY_COLUMNS.map((name) => (name === 'time' ? time : bytes))
  const part = { cpu: 1, counters: counters({}), host: { ...NO_HOST_COUNTERS }, health: HEALTH, path: NO_LIVE.path() }
  for (const worker of [1, 2]) {
    workers.set(worker, (id) => {
      stats.take(worker, { kind: 'history', id, rows: [row(100, worker), row(100 + worker, 5)] })
      stats.take(worker, { kind: 'stats', id, part })
    })
  }
  await stats.prepare('/events')
  assert.equal(
    stats.history().map(([time, bytes]) => [time, bytes]),
    [
      [100, 3],
      [101, 5],
      [102, 5],
    ],
  )
  assert.equal(stats.history(), [])
})

test('a worker that exits while it is queried does not block the answer', async () => {
  const workers = new Map<number, (id: number) => void>([[1, () => {}]])
  const stats = statsOf(workers)
  const answered = stats.prepare('/metrics')
  stats.gone(1)
  await answered
  assert.is(stats.snapshot().counters.pkt_sent, 0)
})

test.run()
