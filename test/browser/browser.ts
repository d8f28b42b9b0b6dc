/** A real browser for tests: Debian's Chromium, driven by playwright-core. Nothing is downloaded. */
import { existsSync, readFileSync } from 'node:fs'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import * as assert from 'uvu/assert'

const CHROMIUM = '/usr/bin/chromium'
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** Why no browser is available; undefined if one is. */
export const browserProblem: string | undefined = existsSync(CHROMIUM) ? undefined : `there is no ${CHROMIUM}`

export const launch = (...args: readonly string[]): Promise<Browser> =>
  chromium.launch({ executablePath: CHROMIUM, args: [...ARGS, ...args] })

export interface Visit {
  readonly page: Page
  /** Errors and warnings of the page's console, uncaught exceptions, and requests to other servers than the page's. */
  readonly diagnostics: readonly string[]
  close(): Promise<void>
}

/** Opens a page in its own browser context and collects its diagnostics. */
export async function visit(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Visit> {
  const context = await browser.newContext({ viewport: { width: 1240, height: 900 }, ...options })
  const page = await context.newPage()
  const diagnostics: string[] = []
  const { origin } = new URL(url)
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') diagnostics.push(message.text())
  })
  page.on('pageerror', (error) => diagnostics.push(String(error)))
  page.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:')) diagnostics.push(request.url())
  })
  await page.goto(url)
  return { page, diagnostics, close: () => context.close() }
}

/** Checks a page with axe. */
export async function assertAccessible(page: Page, what: string): Promise<void> {
  // the content security policy does not apply to code evaluated by the debugger
  await page.evaluate(readFileSync('node_modules/axe-core/axe.min.js', 'utf8'))
  const found = await page.evaluate<string[]>(
    "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' | ')))",
  )
  assert.equal(found, [], what)
}
