// time limit: 120 s
/** The documentation site in a browser, as `npm run docs` built it: it reads, searches, and asks no other server. */
import { existsSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { pages } from '../../build/site/pages.mjs'
import { browserSuite } from './browser.ts'
import { serveFolder } from './site.ts'

const SITE = 'dist/site'

const { check, open, run } = browserSuite('documentation in a browser', {
  problem: existsSync(SITE) ? undefined : `there is no ${SITE}: npm run docs builds it`,
  site: () => serveFolder(SITE),
})

check('every page opens without an error and asks no other server', async () => {
  const { page, diagnostics, close } = await open()
  const root = page.url()
  for (const { name } of pages) {
    await page.goto(`${root}${name}.html`)
    assert.ok(await page.isVisible('h1'), name)
    assert.equal(diagnostics, [], name)
  }
  await close()
})

check('the search finds an answer, without any other server', async () => {
  const { page, diagnostics, close } = await open()
  await page.click('#local-search button')
  await page.fill('#localsearch-input', 'CGNAT')
  await page.click('#localsearch-list a[href*="faq.html"], #localsearch-list a[href*="nat.html"]')
  await page.waitForURL(/(faq|nat)\.html#/)
  assert.equal(diagnostics, [])
  await close()
})

run()
