// time limit: 180 s
/** The page of examples/browser in Chromium: transfers finish, sliders change what is measured, in light and dark. */
import type { Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { waitFor } from '../../testkit/wait.ts'
import { assertAccessible, browserSuite } from './browser.ts'
import { servePage } from './site.ts'

const LIMIT_MS = 90_000
const LANES = ['ours', 'plain'] as const

const { check, open, run } = browserSuite('browser/example', { site: () => servePage('dist/example-browser.html') })

const textOf = async (page: Page, id: string): Promise<string> => (await page.locator(`#${id}`).textContent()) ?? ''
const numberOf = async (page: Page, id: string): Promise<number> => Number.parseFloat(await textOf(page, id))
const shown = (page: Page, what: string, done: () => Promise<boolean>): Promise<void> =>
  waitFor(what, done, LIMIT_MS, async () => (await page.locator('main').innerText()).replace(/\s+/g, ' '))

check('transfers over a link with loss finish in both lanes', async () => {
  const { page, diagnostics } = await open()
  await page.selectOption('#size', '4')
  await page.locator('#start').click()
  for (const lane of LANES) {
    await shown(page, `${lane} to finish`, async () => /^Finished in \d/.test(await textOf(page, `${lane}-state`)))
    assert.is(await page.locator(`#${lane}-progress`).evaluate((bar: HTMLProgressElement) => bar.value), 1)
    assert.ok((await numberOf(page, `${lane}-goodput`)) > 0)
  }
  assert.equal(diagnostics, [])
})

check('sliders change loss, round trip, goodput and queue while a transfer runs', async () => {
  const { page, diagnostics } = await open()
  await page.selectOption('#size', '')
  await page.locator('#start').click()
  await page.press('#loss', 'End')
  assert.is(await textOf(page, 'loss-value'), '20 %')
  await shown(page, 'loss', async () => (await numberOf(page, 'ours-lost')) > 10)
  await page.press('#loss', 'Home')
  await shown(page, 'no loss', async () => (await textOf(page, 'ours-lost')) === '0.0 %')
  await page.press('#roundTrip', 'End')
  for (const lane of LANES) {
    await shown(page, 'the round trip', async () => (await numberOf(page, `${lane}-roundTrip`)) >= 390)
  }
  await shown(page, 'more than the lowest rate', async () => (await numberOf(page, 'ours-goodput')) > 2)
  await page.press('#rate', 'Home')
  // 1 Mbit/s, of which the queue lets through a little at once
  await shown(page, 'the lowest rate', async () => {
    const goodput = await numberOf(page, 'ours-goodput')
    return goodput > 0.1 && goodput < 1.2
  })
  assert.equal(diagnostics, [])
})

check('light and dark are accessible, and nothing scrolls sideways on narrow screens', async () => {
  for (const colorScheme of ['light', 'dark'] as const) {
    const { page, diagnostics } = await open(undefined, { colorScheme })
    await shown(page, 'a transfer', async () => (await numberOf(page, 'ours-goodput')) > 0)
    await assertAccessible(page, colorScheme)
    for (const width of [320, 390, 768]) {
      await page.setViewportSize({ width, height: 800 })
      await shown(page, `no horizontal scroll at ${width}`, () =>
        page.evaluate(() => document.documentElement.scrollWidth <= innerWidth),
      )
    }
    assert.equal(diagnostics, [])
  }
})

run()
