/**
 * Creates docs/dashboard-light.png and docs/dashboard-dark.png (`npm run screenshots`) from a loaded tunnel over a link
 * with delay and loss, and docs/example-browser.png of examples/browser.
 */
import { statSync } from 'node:fs'
import type { Browser } from 'playwright-core'
import { echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { openTunnel, type Tunnel } from '../../testkit/tunnel.ts'
import { sleep } from '../../testkit/wait.ts'
import { browserProblem, launch, visit } from './browser.ts'
import { servePage } from './site.ts'

const RUN_MS = Number(process.env['SCREENSHOT_RUN_MS'] ?? 75_000)
const LINK = { delay: 24, jitter: 3, loss: 0.006, rate: 60e6 }
const EXAMPLE_MS = 26_000
const VIEW = { width: 1240, height: 1000 }

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
const target = await echoTarget()
const tunnel = await openTunnel({ server: 'node', client: 'bun', target: target.address, link: LINK })
const browser = await launch()
try {
  await shootExample(browser)
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
  if (process.env['SCREENSHOT_ALL'] !== undefined) {
    const { page } = light
    await page.screenshot({ path: `${process.env['SCREENSHOT_ALL']}/full.png`, fullPage: true })
    const phone = await visit(browser, url, {
      colorScheme: 'dark',
      viewport: { width: 390, height: 844 },
      deviceScaleFactor: 2,
    })
    const server = await visit(browser, `http://${tunnel.server.config['http_listen']}/`, {
      colorScheme: 'light',
      viewport: VIEW,
    })
    await sleep(8000)
    await phone.page.screenshot({ path: `${process.env['SCREENSHOT_ALL']}/phone.png`, fullPage: true })
    await server.page.screenshot({ path: `${process.env['SCREENSHOT_ALL']}/server.png`, fullPage: true })
    tunnel.link.blackhole()
    await sleep(6000)
    await page.screenshot({ path: `${process.env['SCREENSHOT_ALL']}/dropped.png` })
    for (const diagnostic of [...phone.diagnostics, ...server.diagnostics]) console.error(diagnostic)
  }
} finally {
  await browser.close()
  await tunnel.close()
  await target.close()
}
process.exit(0)
