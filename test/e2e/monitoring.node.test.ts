// time limit: 120 s
/** Running processes as seen by a monitoring system: /ready, /healthy, /stats.json and /metrics. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
import { freePort, type Running, start } from '../../testkit/process.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'

const BYTES = 100_000

const test = suite('monitoring')

async function ask(running: Running, path: string): Promise<{ status: number; type: string; body: string }> {
  const response = await fetch(`http://${running.config['http_listen']}${path}`)
  return { status: response.status, type: response.headers.get('content-type') ?? '', body: await response.text() }
}

/** Samples of /metrics by series. */
async function metrics(running: Running): Promise<Map<string, number>> {
  const { status, type, body } = await ask(running, '/metrics')
  assert.is(status, 200)
  assert.match(type, /^application\/openmetrics-text; version=1\.0\.0/)
  assert.ok(body.endsWith('# EOF\n'))
  const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]))
}

for (const pair of MIXED_PAIRS) {
  test(`MUST 75: both endpoints report the bytes of a session: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    await withTunnel({ ...pair, target: target.address }, async (tunnel) => {
      const app = await tunnel.dial()
      await app.pour(BYTES, 1)
      await waitFor('the echo', () => app.received === BYTES)
      for (const end of ['server', 'client'] as const) {
        const running = tunnel[end]
        assert.is((await ask(running, '/ready')).status, 200)
        assert.match(
          (await ask(running, '/healthy')).body,
          end === 'server' ? /^healthy\n$/ : /^healthy \(peer seen \d/,
        )
        const stats = JSON.parse((await ask(running, '/stats.json')).body)
        assert.is(stats.version, 1)
        assert.is(stats.program.runtime, pair[end])
        assert.is(stats.program.mode, end)
        assert.ok(stats.cpu_ms > 0)
        assert.is(stats.sessions.length, 1)
        const [session] = stats.sessions
        assert.is(session.state, 'established')
        assert.is(session.tcp_read_bytes, BYTES)
        assert.is(session.tcp_written_bytes, BYTES)
        assert.is(session.tcp_peer, end === 'server' ? target.address : `127.0.0.1:${app.socket.localPort}`)
        assert.ok(stats.rss_bytes > stats.gauges.memory_used)
        assert.is(stats.counters.tcp_read_bytes, BYTES)
        assert.is(stats.host[end === 'server' ? 'tcp_dials' : 'tcp_accepted'], 1)
        assert.match(
          await running.stats(),
          new RegExp(`^\\[${session.conv}\\] - peer=${session.peer.replaceAll('.', '\\.')} `, 'm'),
        )
        const samples = await metrics(running)
        assert.is(samples.get('kcptun_sessions{state="established"}'), 1)
        assert.is(samples.get('kcptun_tcp_read_bytes_total'), BYTES)
        assert.is(samples.get('kcptun_ready'), 1)
        assert.ok((samples.get('kcptun_resident_memory_bytes') ?? 0) > 1e6)
      }
      app.finish()
      await app.ending
    }).finally(() => target.close())
  })
}

for (const program of RUNTIMES) {
  test(`MUST 75: a client without a server is alive but not ready: ${program}`, async () => {
    const client = await start(program, {
      listen: `127.0.0.1:${await freePort()}`,
      kcp_connect: `127.0.0.1:${await freePort()}`,
    })
    try {
      const ready = await ask(client, '/ready')
      assert.is(ready.status, 503)
      assert.is(ready.body, 'peer unreachable\n')
      const healthy = await ask(client, '/healthy')
      assert.is(healthy.status, 200)
      assert.is(healthy.body, 'peer unreachable\n')
      const samples = await metrics(client)
      assert.is(samples.get('kcptun_ready'), 0)
      assert.is(samples.get('kcptun_last_received_age_seconds'), undefined)
    } finally {
      await client.stop()
    }
  })
}

test.run()
