// time limit: 300 s, waits
/** Rate limits, measured at the TCP connections at both ends of a tunnel. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ask, openUdp, openUdpTarget } from '../../testkit/datagrams.ts'
import { download, echo, openTarget, pour, type Target } from '../../testkit/flow.ts'
import { MIXED_PAIRS, type Pair } from '../../testkit/pairs.ts'
import { type Config, freePort, httpGet, start } from '../../testkit/process.ts'
import { METHODS, nameOf, type Tunnel, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const MEASURE_MS = 10_000
/** Time for the first flights, and for what sockets buffer. */
const SETTLE_MS = 2000
const TIMEOUT_MS = 10_000

const test = suite('rate limits')

/** Mbit/s by a counter of bytes during `ms`. */
async function rateOf(bytes: () => number, ms = MEASURE_MS): Promise<number> {
  const [before, began] = [bytes(), performance.now()]
  await sleep(ms)
  return ((bytes() - before) * 8) / 1000 / (performance.now() - began)
}

/** A loaded machine may be late, and never early. */
function assertRate(actual: number, wanted: number, text: string): void {
  assert.ok(actual < wanted * 1.02, `${text}: ${actual.toFixed(3)} Mbit/s, limit ${wanted}`)
  assert.ok(actual > wanted * 0.9, `${text}: ${actual.toFixed(3)} Mbit/s of ${wanted}`)
}

async function withTarget(
  pair: Pair,
  config: { clientConfig?: Config; serverConfig?: Config },
  body: (tunnel: Tunnel, target: Target) => Promise<void>,
): Promise<void> {
  const target = await openTarget()
  const options = { ...pair, ...config, link: { delay: 5 }, target: `127.0.0.1:${target.port}` }
  await withTunnel(options, (tunnel) => body(tunnel, target)).finally(() => target.close())
}

async function transfers(pair: Pair): Promise<void> {
  await withTarget(pair, { clientConfig: { rate: { up: 8, down: 12 } } }, async ({ port, client }, target) => {
    const up = pour(port)
    const down = [download(port), download(port)]
    await sleep(SETTLE_MS)
    const [sent, ...received] = await Promise.all([
      rateOf(() => target.discarded),
      ...down.map((one) => rateOf(() => one.received())),
    ])
    assertRate(sent, 8, 'upload')
    assertRate(
      received.reduce((a, b) => a + b, 0),
      12,
      'downloads',
    )
    for (const rate of received) assert.ok(Math.abs(rate - 6) < 0.9, `an equal share: ${rate} Mbit/s of 6`)
    // an interactive connection beside them
    const { times, lost } = await echo(port, 50, 40, 5)
    const median = times.toSorted((a, b) => a - b)[20] ?? 0
    assert.is(lost, 0)
    // behind their backlog it would be a second
    assert.ok(median < 400, `echo beside the transfers: ${median} ms`)
    assert.match(await client.stats(), /^\[rate\] limited: up for \d+:?.*, down for /m)
    client.reload({ rate: { up: 2 } })
    await waitFor('the reload', () => client.log().includes('config successfully reloaded'), TIMEOUT_MS)
    await sleep(SETTLE_MS)
    const [slow, free] = await Promise.all([
      rateOf(() => target.discarded, 5000),
      rateOf(() => (down[0]?.received() ?? 0) + (down[1]?.received() ?? 0), 5000),
    ])
    assertRate(slow, 2, 'upload after the reload')
    assert.ok(free > 15, `downloads without limit: ${free} Mbit/s`)
    for (const one of [up, ...down]) {
      assert.is(one.failed(), undefined)
      one.stop()
    }
  })
}

test(`rate.up and rate.down hold, and a reload changes them: ${MIXED_PAIRS.map(nameOf).join('; ')}`, async () => {
  await Promise.all(MIXED_PAIRS.map(transfers))
})

test('each connection of a server has its limit, on the portable UDP path, too', async () => {
  const limits = { rate: { session_up: 3, session_down: 2 }, udp: { path: 'portable' } }
  await Promise.all(
    MIXED_PAIRS.map((pair) =>
      withTarget(pair, { serverConfig: limits }, async ({ port, server }, target) => {
        const down = [download(port), download(port)]
        const up = pour(port)
        await sleep(SETTLE_MS)
        const [sent, ...received] = await Promise.all([
          rateOf(() => target.discarded),
          ...down.map((one) => rateOf(() => one.received())),
        ])
        assertRate(sent, 2, 'what the server receives')
        for (const rate of received) assertRate(rate, 3, 'what the server sends')
        const metrics = await httpGet(`http://${server.config['http_listen']}/metrics`)
        const seconds = /^kcptun_rate_limited_seconds_total\{direction="up"\} (.*)$/m.exec(metrics)?.[1]
        assert.ok(Number(seconds) > 5, `limited for ${seconds} s`)
        for (const one of [up, ...down]) one.stop()
      }),
    ),
  )
})

/** A flood of datagrams beside small ones of another application. */
async function flooded(pair: Pair): Promise<void> {
  let arrived = 0
  const target = await openUdpTarget((data) => {
    arrived += data.length
    return data.length === 1000 ? undefined : data
  })
  const [flooder, other] = [await openUdp(), await openUdp()]
  const options = { ...pair, datagrams: true, clientConfig: { rate: { up: 1 } }, target: `127.0.0.1:${target.port}` }
  await withTunnel(options, async ({ port, client }) => {
    let isOver = false
    const flood = (async () => {
      for (; !isOver; await sleep(5)) for (let i = 0; i < 5; i++) flooder.send(Buffer.alloc(1000), port)
    })()
    await sleep(SETTLE_MS)
    const measured = rateOf(() => arrived, 5000)
    const times: number[] = []
    for (let i = 0; i < 20; i++) {
      const asked = performance.now()
      await ask(other, Buffer.from(`question ${i}`), port)
      times.push(performance.now() - asked)
      await sleep(100)
    }
    assertRate(await measured, 1, 'datagrams')
    isOver = true
    await flood
    const median = times.sort((a, b) => a - b)[10] ?? 0
    assert.ok(median < 400, `small datagrams beside a flood: ${median} ms`)
    const { host } = JSON.parse(await httpGet(`http://${client.config['http_listen']}/stats.json`))
    assert.ok(host.flow_drops_queue > 100, `${host.flow_drops_queue} datagrams that waited too long are dropped`)
  }).finally(() => {
    for (const end of [target, flooder, other]) end.close()
  })
}

test('UDP flows keep to the limit, a flood drops its own datagrams, and another flow does not wait for it', async () => {
  await Promise.all(MIXED_PAIRS.map(flooded))
})

/** Downloads through a tunnel of several engines, at `limit` Mbit/s together. */
async function divided(pair: Pair, config: Config, count: number, limit: number): Promise<void> {
  const rate = { rate: { down: limit } }
  await withTarget(pair, { clientConfig: { ...config, ...rate } }, async ({ port }) => {
    const all = Array.from({ length: count }, () => download(port))
    await sleep(SETTLE_MS)
    assertShares(await Promise.all(all.map((one) => rateOf(() => one.received()))), limit)
    for (const one of all) {
      assert.is(one.failed(), undefined)
      one.stop()
    }
  })
}

/** The share of each connection, and of all. */
function assertShares(rates: readonly number[], limit: number): void {
  const sum = rates.reduce((a, b) => a + b, 0)
  const text = `${rates.map((one) => one.toFixed(2)).join(', ')} Mbit/s, limit ${limit}`
  assert.ok(sum < limit * 1.03 && sum > limit * 0.9, text)
  for (const one of rates) assert.ok(Math.abs(one - limit / rates.length) < 0.25 * limit, text)
}

async function twoServers(pair: Pair): Promise<void> {
  await withTarget(pair, {}, async ({ psk, server }, target) => {
    const method = METHODS[1]
    const [place, port] = [await freePort(), await freePort()]
    const connect = `127.0.0.1:${target.port}`
    const other = await start(pair.server, { method, psk, connect, kcp_bind: `127.0.0.1:${place}` })
    const client = await start(pair.client, {
      ...{ method, psk, listen: `127.0.0.1:${port}`, strategy: 'round_robin', rate: { down: 6 } },
      kcp_connect: [server.config['kcp_bind'], `127.0.0.1:${place}`],
    } as Config)
    const all = [1, 2, 3].map(() => download(port))
    await sleep(SETTLE_MS)
    assertShares(await Promise.all(all.map((one) => rateOf(() => one.received()))), 6)
    all.pop()?.stop()
    all.pop()?.stop()
    await sleep(SETTLE_MS)
    assertShares(await Promise.all(all.map((one) => rateOf(() => one.received(), 5000))), 6)
    all.pop()?.stop()
    await Promise.all([client.stop(), other.stop()])
  })
}

test('the limit holds for all servers of a client together, one or both busy', async () => {
  await Promise.all(MIXED_PAIRS.map(twoServers))
})

if (process.platform === 'linux') {
  for (const pair of MIXED_PAIRS)
    test(`the limit holds for all workers of a client together, one or several busy: ${nameOf(pair)}`, async () => {
      await divided(pair, { workers: 3 }, 1, 8)
      await divided(pair, { workers: 3 }, 6, 8)
    })
} else skip(test, 'the limit holds for all workers', 'workers are for Linux')

test.run()
