/** The history that the process keeps: what someone sees who opens the dashboard after something has happened. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { COUNTERS, type Core, type CounterName, Info, SessionState } from '../../host/engine/core.ts'
import {
  HISTORY_COLUMNS,
  HISTORY_S,
  History,
  HistoryProblem,
  type HistoryRow,
  sumHistories,
} from '../../host/monitoring/history.ts'
import { until } from './memory-runtime.ts'
import { tunnel } from './trap-tunnel.ts'

const test = suite('history')

type Column = (typeof HISTORY_COLUMNS)[number]

const value = (row: HistoryRow | undefined, name: Column): number | null => row?.[HISTORY_COLUMNS.indexOf(name)] ?? null
const column = (rows: readonly HistoryRow[], name: Column): (number | null)[] => rows.map((row) => value(row, name))
const sum = (rows: readonly HistoryRow[], name: Column): number =>
  rows.reduce((all, row) => all + (value(row, name) ?? 0), 0)

/** The memory of an engine as far as a history reads it, and its clock. */
class Bench {
  ms = 1_700_000_000_000
  core = makeCore()
  dead = false
  pongRtt: number | undefined
  problem: { kind: string } | undefined
  readonly peerLog = this
  readonly history: History

  constructor() {
    this.history = new History(this, () => this.ms)
  }

  now(): number {
    return 0
  }

  set(name: CounterName, number: number): void {
    this.core.u32[2 * COUNTERS.indexOf(name)] = number
  }

  /** Some datagrams at `second` after the start. */
  traffic(second: number, bytes: number, name: CounterName = 'pkt_received_bytes'): void {
    this.ms = 1_700_000_000_000 + 1000 * second
    const at = 2 * COUNTERS.indexOf(name)
    this.core.u32[at] = (this.core.u32[at] ?? 0) + bytes
    this.history.onDrained()
  }
}

const INFO_WORD = 512

function makeCore(sessions = 0): Core {
  const u32 = new Uint32Array(1024)
  const calls = { session_slots: () => sessions, session_info: () => 1, info_ptr: () => INFO_WORD * 4 }
  return { u32, statsPtr: 0, refresh() {}, calls } as unknown as Core
}

test('seconds with traffic have a row, others have none', () => {
  const bench = new Bench()
  bench.traffic(0.1, 100)
  bench.traffic(0.9, 50)
  bench.traffic(1.5, 7)
  // wake-ups without traffic
  for (let second = 2; second < 60; second++) bench.traffic(second, 0)
  bench.traffic(60.5, 9)
  assert.equal(column(bench.history.rows(), 'pkt_received_bytes'), [150, 7])
  bench.ms += 1000
  const rows = bench.history.rows()
  assert.equal(column(rows, 'pkt_received_bytes'), [150, 7, 9])
  assert.equal(
    column(rows, 'time').map((time) => Number(time) - 1_700_000_000),
    [0, 1, 60],
  )
})

test('the growth of a second is not that of the seconds without a wake-up before it', () => {
  const bench = new Bench()
  bench.traffic(0.2, 1000)
  bench.traffic(500, 10)
  bench.ms += 1000
  const rows = bench.history.rows()
  assert.equal(column(rows, 'pkt_received_bytes'), [1000, 10])
})

test('rows are as many as seconds of a quarter of an hour, whatever the traffic', () => {
  const bench = new Bench()
  for (let second = 0; second < 3 * HISTORY_S; second++) bench.traffic(second, second)
  const rows = bench.history.rows()
  assert.is(HISTORY_S, 15 * 60)
  assert.is(rows.length, HISTORY_S)
  assert.is(value(rows.at(-1), 'pkt_received_bytes'), 3 * HISTORY_S - 2)
  // old ones end also while nothing happens
  bench.ms += 600_000
  assert.is(value(bench.history.rows()[0], 'time'), bench.ms / 1000 - HISTORY_S)
  bench.ms += 600_000
  assert.equal(bench.history.rows(), [])
})

test('a counter may pass 4 GiB, and a fresh engine begins at 0', () => {
  const bench = new Bench()
  bench.traffic(0, 0xffff_fff0)
  bench.traffic(1, 0x20)
  bench.core = makeCore()
  bench.traffic(2, 5)
  bench.ms += 1000
  assert.equal(column(bench.history.rows(), 'pkt_received_bytes'), [0xffff_fff0, 0x20, 5])
})

test('a wall clock that is set back replaces the seconds that come again', () => {
  const bench = new Bench()
  for (let second = 10; second < 20; second++) bench.traffic(second, 1)
  for (let second = 15; second < 18; second++) bench.traffic(second, 2)
  bench.ms += 1000
  const rows = bench.history.rows()
  assert.equal(column(rows, 'pkt_received_bytes'), [1, 1, 1, 1, 1, 2, 2, 2])
  const times = column(rows, 'time').map(Number)
  assert.equal(times, [...new Set(times)].sort())
})

test('silence, its reason and its end are in the history', () => {
  const bench = new Bench()
  const seconds: number[] = []
  for (let second = 0; second < 4; second++) bench.traffic(second, 1)
  bench.set('waitsnd', 7)
  for (let second = 4; second < 10; second++) bench.traffic(second, 1, 'pkt_sent_bytes')
  bench.problem = { kind: 'refused' }
  for (let second = 10; second < 12; second++) bench.traffic(second, 1, 'pkt_sent_bytes')
  bench.problem = undefined
  bench.set('waitsnd', 0)
  for (let second = 12; second < 14; second++) bench.traffic(second, 1)
  bench.ms += 1000
  const rows = bench.history.rows()
  for (const row of rows) seconds.push(value(row, 'problem') ?? -1)
  const { none, silent, refused } = HistoryProblem
  assert.equal(seconds, [
    ...[none, none, none, none],
    ...[none, silent, silent, silent, silent, silent],
    ...[refused, refused],
    ...[none, none],
  ])
})

test('the round trip time is that of the most active session, or of a ping', () => {
  const bench = new Bench()
  bench.pongRtt = 12
  bench.set('pongs_received', 1)
  bench.traffic(0, 1)
  bench.traffic(1, 1)
  bench.core = makeCore(3)
  const { u32 } = bench.core
  const field = (offset: number, number: number): void => {
    u32[INFO_WORD + (offset >>> 2)] = number
  }
  field(Info.state, SessionState.ESTABLISHED)
  field(Info.srtt, 8 * 30)
  field(Info.cwnd, 64)
  bench.traffic(2, 1)
  field(Info.state, SessionState.TIME_WAIT)
  bench.traffic(3, 1)
  bench.ms += 1000
  const rows = bench.history.rows()
  assert.equal(column(rows, 'rtt_ms'), [12, null, 30, null])
  assert.equal(column(rows, 'cwnd_segments'), [null, null, 64, null])
})

test('the histories of several processes are shown as one', () => {
  const row = (time: number, bytes: number, rtt: number | null, problem: number): HistoryRow =>
    HISTORY_COLUMNS.map((name) =>
      name === 'time' ? time : name === 'rtt_ms' ? rtt : name === 'problem' ? problem : bytes,
    )
  const rows = sumHistories([[row(1, 10, 5, 0), row(3, 1, null, 0)], [], [row(2, 4, 6, 0), row(3, 2, 7, 1)]])
  assert.equal(column(rows, 'time'), [1, 2, 3])
  assert.equal(column(rows, 'tcp_read_bytes'), [10, 4, 3])
  assert.equal(column(rows, 'rtt_ms'), [5, 6, 7])
  assert.equal(column(rows, 'problem'), [0, 0, 1])
})

/** The history in the first event of a new viewer. */
async function seenBy(fetched: Response): Promise<HistoryRow[]> {
  const reader = fetched.body?.getReader()
  const chunk = await reader?.read()
  await reader?.cancel()
  const [, data = ''] = /^event: hello\ndata: (.*)\n/.exec(new TextDecoder().decode(chunk?.value)) ?? []
  const { history } = JSON.parse(data)
  assert.equal(history.columns, HISTORY_COLUMNS)
  assert.is(history.seconds, HISTORY_S)
  return history.rows
}

test('who opens the dashboard late sees the transfer and the outage after it; nothing runs in between', async () => {
  const { network, client, server, connect, close } = await tunnel()
  const pass = (ms: number): void => {
    network.clockAhead += ms
    network.wallAhead += ms
  }
  const application = await connect()
  pass(1000)
  application.send(500)
  await until(() => application.received === 1500, 'the echo')
  pass(5000)
  const port = client.driver.sockets.sender?.local.port
  assert.ok(port)
  network.blocked = port
  application.send(100)
  await until(() => client.driver.peerLog.problem !== undefined, 'the error')
  pass(1000)
  client.driver.pump()
  const drains = client.driver.counts.drains
  pass(60_000)
  const fetch = network.http.get(`127.0.0.1:${client.http?.port}`)
  assert.ok(fetch)
  const answer = await fetch(new Request('http://127.0.0.1/events'), '/events', { hold() {}, cut() {} })
  const rows = await seenBy(answer)
  assert.is(sum(rows, 'tcp_read_bytes'), 1600)
  assert.is(sum(rows, 'tcp_written_bytes'), 1500)
  assert.ok(rows.length >= 2 && rows.length <= 5, `${rows.length} rows`)
  assert.is(value(rows[0], 'problem'), HistoryProblem.none)
  assert.ok(column(rows, 'problem').includes(HistoryProblem.unreachable))
  assert.ok(drains <= client.driver.counts.drains)
  // without http_listen nothing is recorded
  assert.is(server.driver.onDrained, undefined)
  assert.equal(server.monitor.history(), [])
  close()
})

test.run()
