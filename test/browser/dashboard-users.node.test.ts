// time limit: 120 s
/** The dashboard of a server with several keys: who uses it, on wide and narrow screens, and after a reload. */
import type { Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { openUsers } from '../../testkit/users.ts'
import { waitFor } from '../../testkit/wait.ts'
import { assertAccessible, browserSuite } from './browser.ts'

const { check, open, run } = browserSuite('dashboard of users')

/** Cells of the table of users. */
const rowsOf = async (page: Page): Promise<string[][]> => {
  const rows = await page.locator('#users-body tr').all()
  return Promise.all(rows.map((row) => row.locator('td').allTextContents()))
}

for (const program of RUNTIMES) {
  check(`the page shows who uses the server: ${program}`, async () => {
    const target = await echoTarget()
    const clients = { alice: 'node', bob: 'node' } as const
    const entries = { bob: { max_sessions: 20, not_after: '2999-12-31' } }
    const users = await openUsers({ server: program, clients, target: target.address, entries })
    try {
      const app = await users.dial('bob')
      await app.pour(100_000, 1)
      const { page, diagnostics } = await open(`http://${users.server.config['http_listen']}/`)
      await waitFor(
        'the session of bob',
        async () => /^1 of 2 has sessions$/.test((await page.locator('#users-sub').textContent()) ?? ''),
        30_000,
      )
      const [alice = [], bob = []] = await rowsOf(page)
      assert.equal(alice.slice(0, 2), ['alice', '0'])
      assert.equal(bob.slice(0, 2), ['bob', '1 of 20'])
      assert.ok(bob.includes('97.7 KiB') && bob.includes('2999-12-31'), bob.join())
      const name = page.locator('#sessions-body td.at-users')
      assert.is(await name.textContent(), 'bob')
      await assertAccessible(page, 'users')
      for (const width of [1240, 720, 390, 320]) {
        await page.setViewportSize({ width, height: 800 })
        assert.ok(await page.locator('#users-body td').first().isVisible(), `${width} px`)
        // the charts follow the width with their next frame
        const overflow = (): Promise<number> => page.evaluate('document.documentElement.scrollWidth - innerWidth')
        await waitFor(`a page that fits into ${width} px`, async () => (await overflow()) <= 0, 10_000)
      }
      await page.setViewportSize({ width: 1240, height: 900 })
      await users.setKeys({ psk: users.entries['alice']?.['psk'] ?? '', name: 'only' })
      await waitFor('no table of users', async () => !(await page.locator('#users').isVisible()), 30_000)
      assert.not.ok(await page.locator('#sessions-head .at-users').isVisible())
      assert.equal(diagnostics, [])
    } finally {
      await users.close()
      await target.close()
    }
  })
}

run()
