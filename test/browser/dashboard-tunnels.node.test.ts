// time limit: 120 s
/** The dashboard of several tunnels: all together, one of them, and a reload that takes that one away. */
import type { Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { freePort, type Running, start } from '../../testkit/process.ts'
import { dial, echoTarget } from '../../testkit/tcp.ts'
import { waitFor } from '../../testkit/wait.ts'
import { assertAccessible, browserSuite } from './browser.ts'

const { check, open, run } = browserSuite('dashboard of several tunnels', {
  async afterEach() {
    await running?.stop('SIGKILL')
  },
})

let running: Running | undefined

const shows = (page: Page, id: string, text: RegExp): Promise<void> =>
  waitFor(
    `#${id} shows ${text}`,
    async () => text.test((await page.locator(`#${id}`).textContent()) ?? ''),
    30_000,
    async () => (await page.locator(`#${id}`).textContent()) ?? '',
  )

for (const program of RUNTIMES) {
  check(`the page shows all tunnels or one, and follows a reload: ${program}`, async () => {
    const target = await echoTarget()
    const [udp, port] = [`127.0.0.1:${await freePort()}`, await freePort()]
    const web = { name: 'web', kcp_bind: udp, connect: target.address }
    const office = { name: 'office', listen: `127.0.0.1:${port}`, kcp_connect: udp }
    const lost = { name: 'lost', listen: '127.0.0.1:0', kcp_connect: `127.0.0.1:${await freePort()}` }
    running = await start(program, { tunnels: [web, office, lost] })
    const http_listen = running.config['http_listen'] ?? ''
    const { page, diagnostics, close } = await open(`http://${http_listen}/`)
    const app = await dial('127.0.0.1', port)
    await app.send('x')
    await shows(page, 'state', /^1 of 3 tunnels does not work$/)
    await shows(page, 'detail', /^lost: /)
    const options = page.locator('#tunnel option')
    assert.equal(await options.allTextContents(), ['All tunnels', 'web', 'office', 'lost (not ready)'])
    await waitFor('both ends of the session', async () => (await page.locator('#sessions-body tr').count()) === 2)
    const names = await page.locator('#sessions-body td:nth-child(3)').allTextContents()
    assert.equal(names.sort(), ['office', 'web'])
    await assertAccessible(page, 'several tunnels')
    await page.locator('#tunnel').selectOption('office')
    await shows(page, 'state', /^Connected$/)
    await shows(page, 'mode', /^client$/)
    assert.is(await page.title(), 'office · kcptun-wasm')
    await waitFor('its session', async () => (await page.locator('#sessions-body tr').count()) === 1)
    assert.not.ok(await page.locator('#sessions-head th').nth(2).isVisible())
    await page.reload()
    await shows(page, 'state', /^Connected$/)
    assert.is(await page.locator('#tunnel').inputValue(), 'office')
    running.reload(JSON.stringify({ http_listen, loglevel: 6, tunnels: [web] }))
    await shows(page, 'state', /^All tunnels work$/)
    assert.equal(await options.allTextContents(), ['All tunnels', 'web'])
    assert.equal(
      diagnostics.filter((text) => !text.includes('404')),
      [],
    )
    await close()
    app.destroy()
    await target.close()
  })
}

run()
