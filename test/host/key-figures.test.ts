/** What is shown of several keys: /stats, /stats.json, /metrics, top, and their sum over workers. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { frame, type Style } from '../../host/cli/top/frame.ts'
import { ratesOf, readSample } from '../../host/cli/top/sample.ts'
import type { KeyStatus } from '../../host/monitoring/source.ts'
import type { SessionStats } from '../../host/monitoring/stats.ts'
import { joinKeys, pastKeys } from '../../host/workers/messages.ts'
import { Scene } from './scene.ts'

const test = suite('figures of keys')

const ALICE: KeyStatus = {
  name: 'alice',
  sessions: 2,
  max_sessions: 20,
  sessions_opened: 7,
  sessions_refused: 1,
  tcp_read_bytes: 3000,
  tcp_written_bytes: 5000,
  datagrams_received: 11,
  datagrams_sent: 13,
  last_seen_seconds: 4.7,
  not_after: '2027-12-31',
}
const BOB: KeyStatus = {
  ...ALICE,
  name: 'bob',
  sessions: 0,
  max_sessions: null,
  sessions_refused: 0,
  last_seen_seconds: null,
  not_after: null,
}
const SESSION: SessionStats = {
  ...{ conv: 7, state: 2, peer: { family: 4, address: '192.0.2.1', port: 9, scope: 0 }, age: 1, idle: 0 },
  ...{ rtt: 1, rttvar: 1, rto: 1, waitsnd: 0, sndwnd: 1, rmtWnd: 1, cwnd: 1, retransmissions: 0, pace: 0 },
  ...{ baseLoss: 0, tcpRead: 0, tcpWritten: 0 },
}

function scene(keys: readonly KeyStatus[] | undefined): Scene {
  const made = new Scene({ keys: () => keys })
  made.sessions = [keys === undefined ? SESSION : { ...SESSION, user: 'alice' }]
  return made
}

const textOf = async (at: Scene, target: string): Promise<string> => (await at.ask(target)).text()

test('/stats has a line for each key, and names the user of a session', async () => {
  const text = await textOf(scene([ALICE, BOB]), '/stats?sessions=3')
  assert.match(text, /^\[00000007\] - peer=192\.0\.2\.1:9 user=alice seen=0s /m)
  const facts = '2 of 20 sessions, 7 opened, 1 refused; tcp: 2.93KiB, 4.88KiB; pkt: 11, 13; seen=4s; until 2027-12-31'
  assert.ok(text.includes(`\n[user alice] ${facts}\n`), text)
  assert.match(text, /^\[user bob\] 0 sessions, 7 opened; .*; seen=never$/m)
})

test('/stats.json has them in the order of the file', async () => {
  const { keys, sessions } = JSON.parse(await textOf(scene([ALICE, BOB]), '/stats.json'))
  assert.equal(keys, [ALICE, BOB])
  assert.is(sessions[0].user, 'alice')
})

test('/metrics has series with the label key', async () => {
  const text = await textOf(scene([ALICE, BOB]), '/metrics')
  for (const line of [
    'kcptun_key_sessions{key="alice"} 2',
    'kcptun_key_sessions_opened_total{key="bob"} 7',
    'kcptun_key_sessions_refused_total{key="alice"} 1',
    'kcptun_key_tcp_read_bytes_total{key="alice"} 3000',
    'kcptun_key_tcp_written_bytes_total{key="bob"} 5000',
    'kcptun_key_received_datagrams_total{key="alice"} 11',
    'kcptun_key_sent_datagrams_total{key="alice"} 13',
    'kcptun_key_seen_age_seconds{key="alice"} 4.7',
    `kcptun_key_expiry_timestamp_seconds{key="alice"} ${Date.parse('2028-01-01T00:00:00Z') / 1000}`,
  ])
    assert.ok(text.includes(`${line}\n`), line)
  assert.not.match(text, /key_seen_age_seconds\{key="bob"|key_expiry_timestamp_seconds\{key="bob"/)
  assert.match(text, '# UNIT kcptun_key_tcp_read_bytes bytes\n')
})

test('without several keys nothing of it is there', async () => {
  const plain = scene(undefined)
  assert.not.match(await textOf(plain, '/stats?sessions=3'), 'user')
  const json = JSON.parse(await textOf(plain, '/stats.json'))
  assert.not.ok('keys' in json || 'user' in json.sessions[0])
  assert.not.match(await textOf(plain, '/metrics'), 'kcptun_key_sessions')
})

test('workers count together, also those that ended, for the keys that are left', () => {
  const more = { ...ALICE, sessions: 1, sessions_opened: 1, tcp_read_bytes: 1, last_seen_seconds: 2 }
  const past = pastKeys([ALICE, { ...BOB, name: 'removed' }])
  const [alice, bob, ...others] = joinKeys([[ALICE, BOB], [more]], past) ?? []
  assert.equal([alice?.name, bob?.name, others], ['alice', 'bob', []])
  assert.equal([alice?.sessions, alice?.sessions_opened, alice?.tcp_read_bytes], [3, 15, 6001])
  assert.equal([alice?.last_seen_seconds, bob?.last_seen_seconds, alice?.max_sessions], [2, null, 20])
  assert.is(joinKeys([[], []], past), undefined)
})

test('top shows a row for each user, the busiest first, and whose a session is', () => {
  const document = (seconds: number) => ({
    ...{ version: 1, program: { mode: 'server' }, uptime_ms: seconds * 1000, counters: {}, gauges: {} },
    keys: [ALICE, { ...BOB, tcp_written_bytes: seconds * 125_000 }],
    sessions: [{ conv: '00000007', state: 'established', peer: '192.0.2.1:9', user: 'alice' }],
  })
  const style: Style = { color: false, blocks: true, keys: false }
  const sample = readSample(document(12))
  const rates = ratesOf(readSample(document(10)), sample)
  const view = { url: '', sample, rates, received: [], sent: [], order: 'rate', offset: 0, trouble: undefined } as const
  const lines = frame(view, 120, 30, style)
  const rows = lines.slice(lines.findIndex((line) => line.startsWith('USER ')))
  assert.match(rows[1] ?? '', /^bob +0 +1\.00 Mbit\/s +0 bit\/s +- *$/)
  assert.match(rows[2] ?? '', /^alice +2\/20 +0 bit\/s +0 bit\/s +4s 2027-12-31$/)
  assert.match(lines.find((line) => line.startsWith('00000007')) ?? '', / alice +192\.0\.2\.1:9/)
  for (const columns of [1, 20, 80, 200])
    for (const line of frame(view, columns, 12, style)) assert.ok(line.length <= columns)
})

test('names and figures of another version do no harm to top', () => {
  const sample = readSample({ version: 1, keys: [{ name: '\x1b[2J' }, 5, null], sessions: [{ user: 5 }] })
  assert.equal(
    sample.users.map(({ name }) => name),
    ['?[2J', '', ''],
  )
  assert.is(sample.sessions[0]?.user, '')
})

test.run()
