// time limit: 120 s
/** The documentation site in a browser, as `npm run docs` built it: it reads, searches, and asks no other server. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { pages } from '../../build/site/pages.mjs'
import { skip } from '../skip.ts'
import { browserProblem, launch, visit } from './browser.ts'

const SITE = 'dist/site'
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.png': 'image/png',
  '.json': 'application/json',
}

const test = suite('documentation in a browser')
const problem = browserProblem ?? (existsSync(SITE) ? undefined : `there is no ${SITE}: npm run docs builds it`)

async function serve() {
  const server = createServer(async ({ url = '/' }, response) => {
    const path = normalize(new URL(url, 'http://site').pathname)
    const file = join(SITE, path.endsWith('/') ? `${path}index.html` : path)
    const content = await readFile(file).catch(() => undefined)
    const type = TYPES[extname(file)] ?? 'application/octet-stream'
    response.writeHead(content === undefined ? 404 : 200, { 'content-type': type }).end(content)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => server.close() }
}

if (problem !== undefined) {
  skip(test, 'all', problem)
} else {
  const site = await serve()
  const browser = await launch()
  test.after(async () => {
    await browser.close()
    site.close()
  })

  test('every page opens without an error and asks no other server', async () => {
    const { page, diagnostics, close } = await visit(browser, site.url)
    for (const { name } of pages) {
      await page.goto(`${site.url}${name}.html`)
      assert.ok(await page.isVisible('h1'), name)
      assert.equal(diagnostics, [], name)
    }
    await close()
  })

  test('the search finds an answer, without any other server', async () => {
    const { page, diagnostics, close } = await visit(browser, site.url)
    await page.click('#local-search button')
    await page.fill('#localsearch-input', 'CGNAT')
    await page.click('#localsearch-list a[href*="faq.html"], #localsearch-list a[href*="nat.html"]')
    await page.waitForURL(/(faq|nat)\.html#/)
    assert.equal(diagnostics, [])
    await close()
  })
}

test.run()
