/** The doctor's statistics and report, without a network. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { summarize } from '../../host/cli/doctor/pings.ts'
import { EXIT_STATUS, Report, reportJson, reportText } from '../../host/cli/doctor/report.ts'
import { parseConfig } from '../../host/config/load.ts'

const CONFIG = parseConfig(
  new TextEncoder().encode(
    `{"listen": "127.0.0.1:1", "kcp_connect": "a:2", "method": "aes256gcm", "psk": "${'A'.repeat(43)}="}`,
  ),
)

const test = suite('doctor')

test('the statistics of a ping train are loss, spread, jitter and reordering', () => {
  const answers = new Map([
    [10, 20],
    [11, 30],
    [13, 20],
    [14, 60],
  ])
  const stats = summarize([10, 11, 12, 13, 14], { answers, order: [10, 13, 11, 14] }, 2, [1, 2, 3])
  assert.equal([stats.sent, stats.answered, stats.reordered, stats.duplicated], [5, 4, 1, 2])
  assert.ok(Math.abs(stats.loss - 0.2) < 1e-9)
  assert.equal([stats.minMs, stats.medianMs, stats.maxMs], [20, 30, 60])
  assert.ok(Math.abs(stats.jitterMs - 20) < 1e-9)
  const none = summarize([1, 2], { answers: new Map(), order: [] }, 0, [])
  assert.is(none.loss, 1)
  assert.ok(Number.isNaN(none.medianMs))
})

test('the worst finding determines the verdict and the exit status', () => {
  const report = new Report()
  report.add('config', 'ok', 'fine')
  report.add('buffers', 'note', 'small', { remedies: ['sysctl'] })
  assert.is(report.verdict, 'healthy')
  report.add('path', 'warning', 'lossy')
  assert.is(report.verdict, 'degraded')
  report.add('peer', 'failure', 'nothing comes back '.repeat(20).trim(), { remedies: ['look'] })
  report.add('server', 'failure', 'later')
  assert.is(report.verdict, 'broken')
  assert.match(report.summary, /^nothing comes back/)
  assert.equal([EXIT_STATUS.healthy, EXIT_STATUS.broken, EXIT_STATUS.degraded], [0, 1, 2])
  const text = reportText(report, 'client.json', CONFIG)
  for (const line of text.split('\n')) assert.ok(line.length <= 100, line)
  assert.match(text, /\n +-> sysctl\n/)
  assert.match(text, /\nbroken: nothing comes back/)
  const json = reportJson(report, 'client.json', CONFIG)
  assert.is(JSON.parse(json).verdict, 'broken')
  assert.not.ok((text + json).includes('AAAA'), 'no key')
})

test.run()
