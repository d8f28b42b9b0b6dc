/** A real browser for tests: Debian's Chromium, driven by playwright-core. Nothing is downloaded. */
import { existsSync, readFileSync } from 'node:fs'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { skip } from '../skip.ts'
import type { Site } from './site.ts'

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

export interface BrowserSuiteOptions {
  /** Arguments of the browser. */
  readonly args?: readonly string[]
  /** Another reason why the tests cannot run. */
  readonly problem?: string | undefined
  /** Opens what the tests visit. */
  site?(): Promise<Site>
  /** Cleans up after each test, when its pages are closed. */
  afterEach?(): Promise<void>
}

export interface BrowserSuite {
  /** A test, skipped where there is no browser. */
  check(name: string, body: () => Promise<void>): void
  /** Opens a page, of the site if no other URL is given. What a test leaves open is closed after it. */
  open(url?: string, options?: BrowserContextOptions): Promise<Visit>
  run(): void
}

/** A suite whose tests share one browser. */
export function browserSuite(name: string, options: BrowserSuiteOptions = {}): BrowserSuite {
  const test = suite(name)
  const problem = browserProblem ?? options.problem
  let browser: Browser
  let site: Site | undefined
  if (problem === undefined) {
    test.before(async () => {
      browser = await launch(...(options.args ?? []))
      site = await options.site?.()
    })
    test.after.each(async () => {
      await Promise.all(browser.contexts().map((context) => context.close()))
      await options.afterEach?.()
    })
    test.after(async () => {
      await browser.close()
      site?.close()
    })
  }
  return {
    check: (title, body) => (problem === undefined ? test(title, body) : skip(test, title, problem)),
    open: (url = site?.url ?? '', contextOptions = {}) => visit(browser, url, contextOptions),
    run: () => test.run(),
  }
}
