/**
 * Creates docs/dashboard-light.png and docs/dashboard-dark.png (`npm run screenshots`) from a loaded tunnel over a link
 * with delay and loss, and docs/example-browser.png of examples/browser. With `--states FOLDER`, pictures of all states
 * of the page, to look at.
 */
import { statSync } from 'node:fs'
import type { Browser } from 'playwright-core'
import { freePort, type Running, start } from '../../testkit/process.ts'
import { echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { openTunnel, type Tunnel } from '../../testkit/tunnel.ts'
import { sleep } from '../../testkit/wait.ts'
import { browserProblem, launch, visit } from './browser.ts'
import { servePage } from './site.ts'

const RUN_MS = Number(process.env['SCREENSHOT_RUN_MS'] ?? 75_000)
const LINK = { delay: 24, jitter: 3, loss: 0.006, rate: 60e6 }
const EXAMPLE_MS = 26_000
/** Down to the sessions. */
const VIEW = { width: 1240, height: 1260 }
const PHONE = { width: 390, height: 844 }

/** Sends to the echo target at a varying rate, forever. */
async function load(tunnel: Tunnel, bytesPerSecond: number, period: number): Promise<void> {
  const app: TcpEnd = await tunnel.dial()
  const began = performance.now()
  for (;;) {
    const phase = ((performance.now() - began) / 1000 / period) * 2 * Math.PI
    const rate = bytesPerSecond * (0.62 + 0.3 * Math.sin(phase) + 0.08 * Math.sin(5.3 * phase))
    await app.send(Buffer.alloc(Math.max(200, Math.round(rate / 20))))
    await sleep(50)
  }
}

/** The example, in the middle of its transfer. */
async function shootExample(browser: Browser): Promise<void> {
  const site = await servePage('dist/example-browser.html')
  const { page, close } = await visit(browser, site.url, {
    colorScheme: 'light',
    viewport: { width: 1120, height: 860 },
  })
  await sleep(EXAMPLE_MS)
  await page.screenshot({ path: 'docs/example-browser.png' })
  await close()
  site.close()
}

/** The pages of an endpoint as one sees them on a desk and on a phone. */
async function shoot(browser: Browser, running: Running, path: string): Promise<void> {
  const url = `http://${running.config['http_listen']}/`
  const views = [
    ['light', { colorScheme: 'light', viewport: VIEW }],
    ['dark', { colorScheme: 'dark', viewport: VIEW }],
    ['phone', { colorScheme: 'light', viewport: PHONE, deviceScaleFactor: 2 }],
  ] as const
  const visits = await Promise.all(views.map(([, options]) => visit(browser, url, options)))
  await sleep(4000)
  for (const [i, { page, diagnostics, close }] of visits.entries()) {
    await page.screenshot({ path: `${path}-${views[i]?.[0]}.png`, fullPage: true })
    for (const diagnostic of diagnostics) console.error(diagnostic)
    await close()
  }
}

/** All states of the page, to look at: idle, loaded, with many sessions, silent, refused. */
async function shootStates(browser: Browser, folder: string): Promise<void> {
  const target = await echoTarget()
  const tunnel = await openTunnel({ server: 'node', client: 'node', target: target.address, link: LINK })
  await sleep(3000)
  await shoot(browser, tunnel.client, `${folder}/idle`)
  const apps: TcpEnd[] = []
  for (let i = 0; i < 200; i++) {
    const app = await tunnel.dial()
    apps.push(app)
    await app.send(Buffer.alloc(10 * i + 1))
  }
  for (const rate of [2e6, 5e5, 4e4]) void load(tunnel, rate, rate / 1e5).catch(() => {})
  for (const app of apps.slice(0, 20)) app.finish()
  await sleep(15_000)
  await shoot(browser, tunnel.client, `${folder}/many`)
  await shoot(browser, tunnel.server, `${folder}/server`)
  for (const app of apps) app.destroy()
  tunnel.link.blackhole()
  await sleep(12_000)
  await shoot(browser, tunnel.client, `${folder}/silent`)
  tunnel.link.heal()
  // seen late: all pages are opened after it
  await sleep(8000)
  await shoot(browser, tunnel.client, `${folder}/loaded`)
  await tunnel.close()
  const alone = await start('node', {
    listen: `127.0.0.1:${await freePort()}`,
    kcp_connect: `127.0.0.1:${await freePort()}`,
    http_listen: `127.0.0.1:${await freePort()}`,
  })
  await shoot(browser, alone, `${folder}/refused`)
  await alone.stop()
  await target.close()
}

if (browserProblem !== undefined) {
  console.error(browserProblem)
  process.exit(1)
}
if (process.argv.includes('--example')) {
  const browser = await launch()
  await shootExample(browser)
  await browser.close()
  process.exit(0)
}
const states = process.argv.indexOf('--states')
if (states > 0) {
  const browser = await launch()
  await shootStates(browser, process.argv[states + 1] ?? '.')
  await browser.close()
  process.exit(0)
}
const target = await echoTarget()
const tunnel = await openTunnel({ server: 'node', client: 'bun', target: target.address, link: LINK })
const browser = await launch()
try {
  const url = `http://${tunnel.client.config['http_listen']}/`
  const light = await visit(browser, url, { colorScheme: 'light', viewport: VIEW })
  const dark = await visit(browser, url, { colorScheme: 'dark', viewport: VIEW })
  for (const [rate, period] of [
    [2.1e6, 34],
    [700e3, 21],
    [180e3, 13],
    [40e3, 9],
    [1e3, 5],
  ] as const) {
    void load(tunnel, rate, period).catch(() => {})
    await sleep(RUN_MS / 25)
  }
  await sleep(RUN_MS * 0.8)
  for (const [name, { page, diagnostics }] of Object.entries({ light, dark })) {
    const path = `docs/dashboard-${name}.png`
    await page.screenshot({ path, fullPage: false })
    console.log(`${path}: ${statSync(path).size} bytes`)
    for (const diagnostic of diagnostics) console.error(diagnostic)
  }
  await shootExample(browser)
} finally {
  await browser.close()
  await tunnel.close()
  await target.close()
}
process.exit(0)
