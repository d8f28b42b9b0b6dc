// time limit: 120 s
/** The library in Chromium: errors where there are no sockets, streams over a MessagePort and over data channels. */
import { readFileSync } from 'node:fs'
import type { Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { browserSuite } from './browser.ts'
import type { PageFunctions } from './pages/page.ts'
import { serveSite } from './site.ts'

declare const functions: PageFunctions

const BYTES = 1_000_000
const KEY = 'A'.repeat(43)

const { check, open, run } = browserSuite('library in a browser', {
  // data channels between pages on a machine without a network
  args: ['--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns'],
  site: serveSite,
})

/** Runs `use` with pages of the site, and checks that their consoles are empty. */
async function withPages(count: number, use: (...pages: [Page, ...Page[]]) => Promise<void>): Promise<void> {
  const visits = await Promise.all(Array.from({ length: count }, () => open()))
  try {
    const [first, ...others] = visits.map(({ page }) => page)
    if (first === undefined) throw new Error('no page')
    await use(first, ...others)
    assert.equal(
      visits.flatMap(({ diagnostics }) => diagnostics),
      [],
    )
  } finally {
    for (const { close } of visits) await close()
  }
}

check('the file for browsers imports nothing', async () => {
  const script = readFileSync('dist/browser/index.js', 'utf8')
  assert.equal(script.match(/\bfrom\s*["'][^"']+["']|\bimport\s*\(?\s*["'][^"']+["']/g) ?? [], [])
})

check('without a transport, and for AES, the reason is a typed error', () =>
  withPages(1, async (page) => {
    const refusal = (name: 'createClient' | 'createServer' | 'createTunnel', options: object): Promise<string> =>
      page.evaluate(([name, options]) => functions.refusal(name, options), [name, options] as const)
    const noSockets = /^NotAvailable ERR_KCPTUN_NOT_AVAILABLE: there are no sockets in a browser/
    assert.match(await refusal('createServer', { bind: ':4000', psk: `${KEY}=` }), noSockets)
    assert.match(await refusal('createClient', { server: '127.0.0.1:4000', psk: `${KEY}=` }), noSockets)
    assert.match(await refusal('createTunnel', { config: {} }), noSockets)
    const aes = await page.evaluate(
      (psk) =>
        functions.refusal('createServer', {
          psk,
          method: 'aes256gcm',
          transport: { open() {}, send() {}, close() {} },
        }),
      `${KEY}=`,
    )
    assert.match(aes, /^NotAvailable ERR_KCPTUN_NOT_AVAILABLE: method aes256gcm/)
  }),
)

check('a stream between a page and a worker over a MessagePort', () =>
  withPages(1, async (page) => {
    const result = await page.evaluate((length) => functions.worker(length), BYTES)
    assert.equal(result, { length: BYTES, isSame: true })
  }),
)

check('a key from a password', () =>
  withPages(1, async (page) => {
    const result = await page.evaluate((length) => functions.password(length), BYTES)
    assert.equal(result, { length: BYTES, isSame: true })
  }),
)

/** Connects two pages by a data channel, whose descriptions the test carries, and transfers. */
async function overDataChannel(client: Page, server: Page): Promise<void> {
  const offer = await client.evaluate(() => functions.offer())
  const answer = await server.evaluate((offer) => functions.answer(offer), offer)
  const result = await client.evaluate(([answer, length]) => functions.overChannel(answer, length), [
    answer,
    BYTES,
  ] as const)
  assert.equal(result, { length: BYTES, isSame: true, ordered: false, received: BYTES, error: 'ClosedError' })
}

check('a stream over a WebRTC data channel, both ends in one page', () =>
  withPages(1, (page) => overDataChannel(page, page)),
)

check('a stream over a WebRTC data channel between two pages', () =>
  withPages(2, (one, other = one) => overDataChannel(one, other)),
)

run()
