// time limit: 120 s
/**
 * Prometheus itself reads /metrics of a client and a server, the rules and every expression of the Grafana board in
 * contrib/: what they name exists, and the rules fire as test/package/prometheus/rules.test.yml says. Needs Debian's
 * package prometheus, installed or unpacked in .cache/prometheus as .ci/run does.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { freePort, httpGet, projectRoot, type Running, start } from '../../testkit/process.ts'
import { dial, echoTarget, type Target } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TIMEOUT_MS = 60_000
/** Only a program with workers has it. */
const CONDITIONAL = new Set(['kcptun_worker_restarts_total'])
const NAME = /\bkcptun_\w+/g

interface Reply<T> {
  readonly status: string
  readonly data: T
}
type Series = readonly Readonly<Record<string, string>>[]
interface Panel {
  readonly title: string
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[]
}

const contrib = (path: string): string => join(projectRoot, 'contrib', path)
const rules = contrib('prometheus/kcptun-wasm.rules.yml')
const board = JSON.parse(readFileSync(contrib('grafana/kcptun-wasm.json'), 'utf8')) as { panels: readonly Panel[] }
const folder = ['/usr/bin', join(projectRoot, '.cache/prometheus/usr/bin')].find((path) =>
  existsSync(join(path, 'promtool')),
)
const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-prometheus-'))
const ends: Running[] = []
let prometheus: ChildProcess | undefined
let target: Target | undefined

const test = suite('metrics')
test.after(async () => {
  prometheus?.kill('SIGKILL')
  for (const end of ends) await end.stop()
  await target?.close()
  rmSync(directory, { recursive: true, force: true })
})

async function startTunnel(): Promise<void> {
  target = await echoTarget()
  const [udp, tcp] = [`127.0.0.1:${await freePort()}`, await freePort()]
  const common = { method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64') }
  ends.push(await start('node', { ...common, kcp_bind: udp, connect: target.address }))
  ends.push(await start('node', { ...common, kcp_connect: udp, listen: `127.0.0.1:${tcp}` }))
  const app = await dial('127.0.0.1', tcp)
  await app.pour(100_000, 1)
  app.finish()
  await within('the echo', TIMEOUT_MS, app.ending)
}

/** Starts Prometheus with the rules, scraping both endpoints. @returns its API */
async function startPrometheus(bin: string): Promise<<T>(path: string) => Promise<T>> {
  const targets = ends.map((end) => String(end.config['http_listen']))
  const config = {
    global: { scrape_interval: '1s', evaluation_interval: '1s' },
    rule_files: [rules],
    scrape_configs: [{ job_name: 'kcptun-wasm', static_configs: [{ targets }] }],
  }
  // JSON is YAML
  writeFileSync(join(directory, 'prometheus.yml'), JSON.stringify(config))
  const address = `127.0.0.1:${await freePort()}`
  prometheus = spawn(
    join(bin, 'prometheus'),
    [
      `--config.file=${join(directory, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(directory, 'data')}`,
      `--web.listen-address=${address}`,
    ],
    { stdio: 'ignore' },
  )
  return async <T>(path: string) => (JSON.parse(await httpGet(`http://${address}/api/v1/${path}`)) as Reply<T>).data
}

if (folder === undefined) {
  skip(test, 'all', "Debian's package prometheus is not installed")
} else {
  test('the alerts fire for the trouble that they name', () => {
    copyFileSync(rules, join(directory, 'kcptun-wasm.rules.yml'))
    copyFileSync(join(projectRoot, 'test/package/prometheus/rules.test.yml'), join(directory, 'rules.test.yml'))
    const words = ['test', 'rules', 'rules.test.yml']
    const { status, stdout, stderr } = spawnSync(join(folder, 'promtool'), words, { cwd: directory, encoding: 'utf8' })
    assert.is(status, 0, stdout + stderr)
  })

  test('Prometheus reads /metrics, and what rules and board name exists', async () => {
    await startTunnel()
    const api = await startPrometheus(folder)
    /** A value of each series. */
    const query = (expression: string) =>
      api<{ result: { metric: Record<string, string> }[] }>(`query?query=${encodeURIComponent(expression)}`)
    const scraped = async (): Promise<boolean> =>
      (await query('count_over_time(kcptun_ready[1m]) > 2')).result.length === 2
    await waitFor('three scrapes of both endpoints', () => scraped().catch(() => false), TIMEOUT_MS)

    const { activeTargets } = await api<{ activeTargets: { lastError: string }[] }>('targets?state=active')
    assert.equal(
      activeTargets.map((one) => one.lastError),
      ['', ''],
    )
    const loaded = await api<{ groups: { rules: { health: string; lastError?: string }[] }[] }>('rules')
    for (const group of loaded.groups)
      for (const rule of group.rules) assert.is.not(rule.health, 'err', JSON.stringify(rule))

    const series = await api<Series>(`series?match[]=${encodeURIComponent('{job="kcptun-wasm"}')}`)
    const names = new Set(series.map((one) => one['__name__'] ?? ''))
    const named = [...readFileSync(rules, 'utf8').matchAll(NAME)].map(([name]) => name)
    const expressions = board.panels.flatMap((panel) => panel.targets)
    for (const { expr } of expressions) named.push(...[...expr.matchAll(NAME)].map(([name]) => name))
    const isKnown = (name: string): boolean => names.has(name) || CONDITIONAL.has(name) || name === 'kcptun_loss'
    assert.equal([...new Set(named.filter((name) => !isKnown(name)))], [], 'names that /metrics does not have')

    for (const { expr, legendFormat } of expressions) {
      const here = expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*')
      const { result } = await query(here)
      // filtered to what is above zero: nothing is wrong here
      if (/ > 0/.test(here)) continue
      assert.ok(result.length >= 2, `${here} has no value for both endpoints`)
      // only those of several tunnels have one, and a board shows nothing in its place
      for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
        for (const { metric } of label === 'tunnel' ? [] : result)
          assert.ok(label in metric, `${here} has no label ${label}`)
    }
  })
}

test.run()
