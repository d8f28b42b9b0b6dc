// time limit: 240 s
/** The dashboard in a real browser, served by tunnels of both runtimes. */
import type { Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, freePort, type Program, type Running, start } from '../../testkit/process.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { nameOf, type Tunnel, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { assertAccessible, browserSuite, type Visit } from './browser.ts'

/** ms within which a dropped link is shown. */
const DROP_SHOWN_MS = 3000
/** Measurements of which a loaded machine may delay all but one. */
const ATTEMPTS = 4
const CHUNK = Buffer.alloc(60_000)
const TOKEN = 'a-token.of/some+length=='

const { check, open, run } = browserSuite('dashboard in a browser', {
  // stop what a failed test left running
  async afterEach() {
    await Promise.all([...started].map((running) => running.stop('SIGKILL')))
    started.clear()
  },
})

const started = new Set<Running>()
async function startAlone(program: Program, config: Config): Promise<Running> {
  const running = await start(program, config)
  started.add(running)
  return running
}

const urlOf = (running: Running): string => `http://${running.config['http_listen']}/`
const textOf = async (page: Page, id: string): Promise<string> => (await page.locator(`#${id}`).textContent()) ?? ''
const shownBy = async (page: Page, id: string): Promise<number> =>
  Number(await page.locator(`#${id}`).getAttribute('data-value'))

interface Stats {
  readonly counters: Readonly<Record<string, number>>
  readonly sessions: readonly { readonly conv: string }[]
}

async function statsOf(running: Running): Promise<Stats> {
  return JSON.parse(await (await fetch(`${urlOf(running)}stats.json`)).text())
}

const shows = (page: Page, state: RegExp): Promise<void> =>
  waitFor(
    `the page shows ${state}`,
    async () => state.test(await textOf(page, 'state')),
    30_000,
    () => textOf(page, 'state'),
  )

/** Sends to the echo target continuously. @returns a function that stops it */
async function load(tunnel: Tunnel): Promise<() => void> {
  const app = await tunnel.dial()
  let running = true
  const loop = async (): Promise<void> => {
    while (running && !app.ended) {
      await app.send(CHUNK)
      await sleep(30)
    }
  }
  void loop().catch(() => {})
  return () => {
    running = false
  }
}

for (const pair of MIXED_PAIRS) {
  check(`figures change under load and match /stats.json at both ends: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    await withTunnel({ ...pair, target: target.address, link: { delay: 10 } }, async (tunnel) => {
      const client = await open(urlOf(tunnel.client))
      const server = await open(urlOf(tunnel.server))
      await shows(client.page, /^Connected$/)
      await shows(server.page, /^Ready$/)
      const { page } = client
      assert.match(await textOf(page, 'sessions-empty'), `Connect an application to 127.0.0.1:${tunnel.port}`)
      const stop = await load(tunnel)
      for (const { page } of [client, server]) {
        await waitFor('rates', async () => (await shownBy(page, 'rx')) > 1e5 && (await shownBy(page, 'tx')) > 1e5)
        await waitFor('a round trip', async () => (await shownBy(page, 'rtt')) >= 20)
        await waitFor('a session', async () => (await page.locator('#sessions-body tr').count()) === 1)
      }
      await shows(server.page, /^Connected$/)
      stop()
      for (const [end, { page }] of [
        ['client', client],
        ['server', server],
      ] as const) {
        let stats: Stats | undefined
        await waitFor('the same totals on the page and in /stats.json', async () => {
          stats = await statsOf(tunnel[end])
          return (
            (await shownBy(page, 'rx-sub')) === stats.counters['tcp_written_bytes'] &&
            (await shownBy(page, 'tx-sub')) === stats.counters['tcp_read_bytes'] &&
            (await shownBy(page, 'rx')) === 0
          )
        })
        assert.is(await textOf(page, 'mode'), end)
        assert.is(await page.locator('#sessions-body td').first().textContent(), stats?.sessions[0]?.conv)
      }
      assert.equal([...client.diagnostics, ...server.diagnostics], [])
      await client.close()
      await server.close()
    }).finally(() => target.close())
  })
}

/**
 * Drops the link, repeatedly, until the page shows it in time. An idle server shows only that the peer is quiet.
 * @returns the shortest time in ms until it was shown
 */
async function timeUntilDropShown(tunnel: Tunnel, page: Page): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < ATTEMPTS && best > DROP_SHOWN_MS; i++) {
    const seen = page.waitForFunction(
      () => document.getElementById('state')?.textContent?.match(/^(?:No answer|Quiet) for/),
      null,
      {
        polling: 20,
        timeout: 30_000,
      },
    )
    const began = performance.now()
    tunnel.link.blackhole()
    await seen
    best = Math.min(best, performance.now() - began)
    tunnel.link.heal()
    await shows(page, /^Connected$/)
  }
  return best
}

for (const pair of MIXED_PAIRS) {
  check(`a dropped link is shown within 3 s, idle and under load, and its recovery too: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    await withTunnel({ ...pair, target: target.address }, async (tunnel) => {
      const client = await open(urlOf(tunnel.client))
      await shows(client.page, /^Connected$/)
      const idle = await timeUntilDropShown(tunnel, client.page)
      assert.ok(idle <= DROP_SHOWN_MS, `${idle} ms`)
      const stop = await load(tunnel)
      await waitFor('rates', async () => (await shownBy(client.page, 'rx')) > 1e5)
      const loaded = await timeUntilDropShown(tunnel, client.page)
      assert.ok(loaded <= DROP_SHOWN_MS, `${loaded} ms`)
      const server = await open(urlOf(tunnel.server))
      await shows(server.page, /^Connected$/)
      const far = await timeUntilDropShown(tunnel, server.page)
      assert.ok(far <= DROP_SHOWN_MS, `${far} ms`)
      stop()
      assert.equal([...client.diagnostics, ...server.diagnostics], [])
      await client.close()
      await server.close()
    }).finally(() => target.close())
  })
}

check('light and dark themes are accessible at desktop and phone widths, with and without sessions', async () => {
  const target = await echoTarget()
  const visits: Visit[] = []
  await withTunnel({ server: 'node', client: 'bun', target: target.address }, async (tunnel) => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const { page, diagnostics } = await open(urlOf(tunnel.client), { colorScheme }).then((one) => {
        visits.push(one)
        return one
      })
      await shows(page, /^Connected$/)
      assert.is(await page.locator('html').getAttribute('data-theme'), colorScheme)
      await assertAccessible(page, `${colorScheme}, no session`)
      const app = await tunnel.dial()
      await app.send(CHUNK)
      await waitFor('a session', async () => (await page.locator('#sessions-body tr').count()) > 0)
      await assertAccessible(page, `${colorScheme}, a session`)
      for (const width of [320, 390, 768]) {
        await page.setViewportSize({ width, height: 800 })
        const wide = (): Promise<number> => page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
        await waitFor(
          `no horizontal scroll at ${width}`,
          async () => (await wide()) <= 0,
          5000,
          async () => `${await wide()} px`,
        )
      }
      await assertAccessible(page, `${colorScheme}, phone`)
      assert.equal(diagnostics, [])
      app.destroy()
    }
  }).finally(() => target.close())
  for (const one of visits) await one.close()
})

check('theme, pause and session order can be operated by keyboard', async () => {
  const target = await echoTarget()
  await withTunnel({ server: 'bun', client: 'node', target: target.address }, async (tunnel) => {
    const { page, close } = await open(urlOf(tunnel.client), { colorScheme: 'light' })
    const apps = [await tunnel.dial(), await tunnel.dial(), await tunnel.dial()]
    for (const [i, app] of apps.entries()) await app.send(CHUNK.subarray(0, 1000 * (i + 1)))
    await waitFor('the sessions', async () => (await page.locator('#sessions-body tr').count()) === 3)
    const press = async (id: string): Promise<void> => {
      await page.locator(id).focus()
      await page.keyboard.press('Enter')
    }
    await press('#theme')
    assert.is(await page.locator('html').getAttribute('data-theme'), 'dark')
    await page.reload()
    assert.is(await page.locator('html').getAttribute('data-theme'), 'dark')
    await waitFor('the sessions', async () => (await page.locator('#sessions-body tr').count()) === 3)
    const sent = page.locator('#sessions-head th', { hasText: /^Sent$/ })
    // with those that only a server shows
    const column = 15
    const cells = () => page.locator(`#sessions-body td:nth-child(${column})`).allTextContents()
    await sent.locator('button').focus()
    await page.keyboard.press('Enter')
    assert.is(await sent.getAttribute('aria-sort'), 'descending')
    await waitFor('largest first', async () => (await cells()).join() === '2.93 KiB,1.95 KiB,1000 B')
    await page.keyboard.press('Enter')
    assert.is(await sent.getAttribute('aria-sort'), 'ascending')
    await waitFor('smallest first', async () => (await cells()).join() === '1000 B,1.95 KiB,2.93 KiB')
    await press('#pause')
    await waitFor('paused', async () => (await textOf(page, 'pause')) === 'Resume')
    const before = await textOf(page, 'meta')
    await sleep(1500)
    assert.is(await textOf(page, 'meta'), before)
    await page.keyboard.press('Enter')
    await waitFor('resumed', async () => (await textOf(page, 'meta')) !== before)
    for (const app of apps) app.destroy()
    await close()
  }).finally(() => target.close())
})

/** Replaces the server's events with these. */
async function play(page: Page, hello: object, sample: object): Promise<void> {
  const body = `event: hello\ndata: ${JSON.stringify(hello)}\n\nevent: sample\ndata: ${JSON.stringify(sample)}\n\n`
  await page.route('**/events', (route) => route.fulfill({ status: 200, contentType: 'text/event-stream', body }))
  await page.reload()
}

check('markup in addresses, settings and warnings is shown as text, also in contexts and a long table', async () => {
  const server = await startAlone('node', { kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9' })
  const { page, diagnostics, close } = await open(urlOf(server), { colorScheme: 'dark' })
  await shows(page, /^Ready$/)
  const answer = await fetch(`${urlOf(server)}stats.json`)
  const stats = JSON.parse(await answer.text())
  const evil = '<img src=x onerror="document.title=666"><script>document.title=666</script>'
  const session = { conv: evil, state: evil, peer: evil, rtt_ms: 5, rttvar_ms: 1, rto_ms: 9, sndwnd_segments: 9 }
  const rows = Array.from({ length: 50 }, (_, i) => ({
    ...session,
    conv: `${i} ${evil}`,
    age_seconds: i,
    idle_seconds: i,
    waitsnd_segments: i,
    rmtwnd_segments: 9,
    cwnd_segments: 9,
    retransmitted_segments: i,
    pace_segments_per_second: 9,
    base_loss: 0,
    tcp_read_bytes: i,
    tcp_written_bytes: i,
  }))
  const link = {
    state: 'pending',
    silent_ms: 0,
    rtt_ms: null,
    local: evil,
    peer: null,
    rendezvous: evil,
    peer_found: false,
  }
  await play(
    page,
    {
      about: { listen: evil, method: evil },
      sample_ms: 500,
      rows_max: 50,
      warnings: [{ at: 1, level: 3, text: evil }],
    },
    {
      ...stats,
      program: { ...stats.program, mode: 'client' },
      health: evil,
      gauges: { ...stats.gauges, sessions_established: 1234, obfs_contexts: 70 },
      link,
      path: rows[0],
      sessions: rows,
      contexts: [{ peer: evil, state: 'authenticated', age_seconds: 4000, received_bytes: 5000, [evil]: evil }],
    },
  )
  await shows(page, /^Looking for the server$/)
  assert.match(await textOf(page, 'detail'), evil)
  assert.match(await textOf(page, 'warnings'), evil)
  assert.match(await textOf(page, 'details'), `asking ${evil}`)
  assert.match(await textOf(page, 'sessions-sub'), '1,234 connected; the 50 liveliest are listed, 1,234 more are not')
  assert.is(await page.locator('#sessions-body tr').count(), 50)
  assert.is(await textOf(page, 'contexts-sub'), '70 contexts, 1 are listed')
  assert.match(await textOf(page, 'contexts-body'), `${evil}authenticated1 h 6 min4.88 KiB`)
  assert.is(await page.locator('img').count(), 0)
  assert.is(await page.title(), 'client · kcptun-wasm')
  await assertAccessible(page, 'everything at once')
  assert.equal(diagnostics, [])
  await close()
  await server.stop()
})

for (const program of RUNTIMES) {
  check(
    `the page prompts for the token, keeps it for the tab, and recovers after a restart and a reload: ${program}`,
    async () => {
      const port = await freePort()
      const config = {
        kcp_bind: `127.0.0.1:${await freePort()}`,
        connect: '127.0.0.1:9',
        http_listen: `127.0.0.1:${port}`,
      }
      // without a token the page is ready at once
      let server = await startAlone(program, config)
      const other = 'another-token'
      const { page, close } = await open(urlOf(server))
      await shows(page, /^Ready$/)
      server.reload({ http_token: TOKEN })
      await page.locator('#token').waitFor()
      await assertAccessible(page, 'locked')
      const enter = async (token: string): Promise<void> => {
        await page.locator('#token-input').fill(token)
        await page.keyboard.press('Enter')
      }
      await enter('wrong-token')
      await page.getByText('That is not the token').waitFor()
      assert.is((await fetch(`${urlOf(server)}stats.json`)).status, 401)
      await enter(TOKEN)
      await page.locator('#token').waitFor({ state: 'hidden' })
      await shows(page, /^Ready$/)
      await page.reload()
      await shows(page, /^Ready$/)
      server.reload({ http_token: other })
      await page.locator('#token').waitFor()
      await enter(other)
      await page.locator('#token').waitFor({ state: 'hidden' })
      await server.stop()
      await shows(page, /^Lost contact/)
      server = await startAlone(program, config)
      await shows(page, /^Ready$/)
      await close()
      await server.stop()
    },
  )
}

run()
