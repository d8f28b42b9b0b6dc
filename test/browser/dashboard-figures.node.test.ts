// time limit: 120 s
/** What the dashboard shows of the past, of addresses, of refusals, and how it explains itself, in a real browser. */
import type { Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { freePort, type Running, start } from '../../testkit/process.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'
import { assertAccessible, browserSuite } from './browser.ts'

const { check, open, run } = browserSuite('figures of the dashboard')

const urlOf = (running: Running): string => `http://${running.config['http_listen']}/`
const textOf = async (page: Page, selector: string): Promise<string> =>
  (await page.locator(selector).allTextContents()).join(' ')

/** What the legend and its note say at many moments of the throughput chart. */
async function readChart(page: Page): Promise<string[]> {
  const box = await page.locator('#throughput').boundingBox()
  assert.ok(box)
  const seen: string[] = []
  for (let x = 90; x < box.width - 30; x += 8) {
    await page.mouse.move(box.x + x, box.y + box.height / 2)
    const isNoted = await page.locator('#throughput-problem').isVisible()
    seen.push(
      (await textOf(page, '#throughput-legend')) + (isNoted ? ` ${await textOf(page, '#throughput-problem')}` : ''),
    )
  }
  return seen
}

check('who opens the page late sees the transfer, the outage after it, and its end', async () => {
  const target = await echoTarget()
  await withTunnel({ server: 'node', client: 'node', target: target.address }, async (tunnel) => {
    const app = await tunnel.dial()
    await app.pour(4e6, 1)
    await waitFor('the echo', () => app.received === 4e6)
    tunnel.link.blackhole()
    await app.send(Buffer.alloc(1000))
    await waitFor(
      'the outage is noticed',
      async () => {
        const answer = await fetch(`${urlOf(tunnel.client)}events`)
        const reader = answer.body?.getReader()
        const hello = new TextDecoder().decode((await reader?.read())?.value)
        await reader?.cancel()
        return /\],1\]|,1\]/.test(hello.slice(hello.indexOf('"rows"')))
      },
      30_000,
    )
    tunnel.link.heal()
    await waitFor('the rest', () => app.received === 4e6 + 1000, 60_000)
    for (const running of [tunnel.client, tunnel.server]) {
      const { page, diagnostics, close } = await open(urlOf(running))
      await page.getByText(/^(Connected|Quiet)/).waitFor()
      await page.getByRole('button', { name: '15 min' }).click()
      const moments = await readChart(page)
      assert.ok(
        moments.some((text) => /Receiving\s*[\d.]+ Mbit\/s/.test(text)),
        moments.join('\n'),
      )
      if (running === tunnel.client) {
        assert.ok(moments.some((text) => text.endsWith('no answer')))
        assert.not.match(moments.at(-1) ?? '', 'no answer')
      }
      assert.equal(diagnostics, [])
      await close()
    }
    app.destroy()
  }).finally(() => target.close())
})

check('sessions show the addresses of application and target; closed ones are hidden until asked for', async () => {
  const target = await echoTarget()
  await withTunnel({ server: 'node', client: 'bun', target: target.address }, async (tunnel) => {
    const [first, second] = [await tunnel.dial(), await tunnel.dial()]
    for (const app of [first, second]) {
      await app.send(Buffer.alloc(100))
      await waitFor('the echo', () => app.received === 100)
    }
    second.finish()
    await second.ending
    const rows = (page: Page) => page.locator('#sessions-body tr')
    const client = await open(urlOf(tunnel.client))
    await client.page.getByRole('button', { name: 'Show closed' }).waitFor()
    await waitFor('one open session', async () => (await rows(client.page).count()) === 1)
    const address = `127.0.0.1:${first.socket.localPort}`
    assert.ok(await client.page.getByRole('cell', { name: address, exact: true }).isVisible())
    await client.page.getByRole('button', { name: 'Show closed' }).click()
    await waitFor('both sessions', async () => (await rows(client.page).count()) === 2)
    await client.page.getByRole('button', { name: 'Hide closed' }).click()
    await waitFor('one session again', async () => (await rows(client.page).count()) === 1)
    const server = await open(urlOf(tunnel.server))
    await server.page.getByRole('cell', { name: target.address, exact: true }).first().waitFor()
    first.destroy()
    for (const { page } of [client, server]) {
      await waitFor('no open session', async () => (await textOf(page, '#sessions-empty')) === 'No open session.')
    }
    for (const { close } of [client, server]) await close()
  }).finally(() => target.close())
})

check('a server that is not started is named as such, beside the memory of the process', async () => {
  const kcp_connect = `127.0.0.1:${await freePort()}`
  const client = await start('node', { listen: `127.0.0.1:${await freePort()}`, kcp_connect })
  try {
    const { page, close } = await open(urlOf(client))
    await page.getByText('Refused by the server').waitFor()
    assert.match(await textOf(page, '#detail'), `${kcp_connect} answers that no server listens on that UDP port`)
    assert.match(await textOf(page, '#strip'), /Engine memory\?[\d.]+ [KM]iBProcess memory\?[\d.]+ MiB/)
    await close()
  } finally {
    await client.stop()
  }
})

check('a figure is explained by keyboard and by touch, and the explanation goes away again', async () => {
  const server = await start('node', { kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9' })
  try {
    for (const viewport of [
      { width: 1240, height: 900 },
      { width: 390, height: 700 },
    ]) {
      const { page, diagnostics, close } = await open(urlOf(server), { viewport, hasTouch: true })
      await page.getByText('Ready').waitFor()
      const help = page.locator('#help')
      assert.not(await help.isVisible())
      const loss = page.getByRole('button', { name: 'What is Loss?' })
      await loss.focus()
      await page.keyboard.press('Enter')
      assert.ok(await help.isVisible())
      assert.match(await textOf(page, '#help'), 'sent twice on purpose are not in it')
      await assertAccessible(page, 'with an explanation')
      await page.keyboard.press('Escape')
      assert.not(await help.isVisible())
      const memory = page.getByRole('button', { name: 'What is Process memory?' })
      await memory.tap()
      assert.match(await textOf(page, '#help'), 'Resident memory')
      const box = await help.boundingBox()
      assert.ok(box !== null && box.x >= 0 && box.x + box.width <= viewport.width)
      await page.locator('#state').tap()
      assert.not(await help.isVisible())
      assert.equal(diagnostics, [])
      await close()
    }
  } finally {
    await server.stop()
  }
})

run()
