// time limit: 300 s
/** UDP applications through a tunnel with udp_listen and udp_connect. */
import { randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Command } from '../../testkit/command.ts'
import { ask, openUdp, openUdpTarget, type UdpEnd } from '../../testkit/datagrams.ts'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { ALL_PAIRS, MIXED_PAIRS, type Pair, RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, freePort, httpGet, type Running } from '../../testkit/process.ts'
import { nameOf, type Tunnel, type TunnelOptions, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'

import { skip } from '../skip.ts'

const test = suite('udp forwarding')

/** Lengths of datagrams: none, thin, around a packet, and the longest. */
const LENGTHS = [0, 1, 100, 1397, 1400, 1472, 1473, 1500, 1501, 2048, 9216, 65507]

const hostOf = async (end: Running): Promise<Record<string, number>> =>
  JSON.parse(await httpGet(`http://${end.config['http_listen']}/stats.json`)).host

async function withTarget(body: (target: UdpEnd) => Promise<void>, host = '127.0.0.1'): Promise<void> {
  const target = await openUdpTarget((data) => data, host)
  await body(target).finally(() => target.close())
}

const addressOf = ({ host, port }: UdpEnd): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)

async function echoes(tunnel: Tunnel, app: UdpEnd, lengths: readonly number[]): Promise<void> {
  for (const length of lengths) {
    const data = randomBytes(length)
    const answer = await ask(app, data, tunnel.port)
    assert.is(answer.length, length)
    assert.ok(answer.equals(data), `the bytes of ${length}`)
  }
}

const DENO_PAIRS: readonly Pair[] = [
  { server: 'deno', client: 'node' },
  { server: 'bun', client: 'deno' },
]

for (const pair of [...ALL_PAIRS, ...DENO_PAIRS]) {
  for (const path of ['auto', 'portable']) {
    test(`datagrams of every length arrive as they were sent: ${nameOf(pair)}, ${path}`, () =>
      withTarget(async (target) => {
        const config = { udp: { path } }
        await withTunnel({ ...pair, target: addressOf(target), datagrams: true, config }, async (tunnel) => {
          const app = await openUdp()
          await echoes(tunnel, app, LENGTHS)
          app.close()
          const { client, server } = { client: await hostOf(tunnel.client), server: await hostOf(tunnel.server) }
          for (const end of [client, server]) {
            assert.is(end['flows'], 1)
            assert.is(end['flows_opened'], 1)
            assert.is(end['flow_datagrams_in'], LENGTHS.length)
            assert.is(end['flow_datagrams_out'], LENGTHS.length)
            for (const name of ['queue', 'send', 'cut']) assert.is(end[`flow_drops_${name}`], 0, name)
          }
        })
      }))
  }
}

/** Whether an answer arrives soon. */
async function isAnswered(app: UdpEnd, port: number): Promise<boolean> {
  const before = app.received.length
  app.send(Buffer.from('?'), port)
  await sleep(500)
  return app.received.length > before
}

const withApp = async (options: TunnelOptions, body: (tunnel: Tunnel, app: UdpEnd) => Promise<void>): Promise<void> => {
  const app = await openUdp()
  await withTunnel({ datagrams: true, ...options }, (tunnel) => body(tunnel, app)).finally(() => app.close())
}

for (const pair of MIXED_PAIRS) {
  const both = nameOf(pair)

  test(`a target that is not there ends no flow, and is reported once: ${both}`, async () => {
    const port = await freePort()
    await withApp({ ...pair, target: `127.0.0.1:${port}` }, async (tunnel, app) => {
      // longer than lines of the log are limited for
      for (let count = 0; count < 60; count++) {
        app.send(Buffer.from('nobody'), tunnel.port)
        await sleep(50)
      }
      await waitFor('the target refuses', async () => ((await hostOf(tunnel.server))['flow_drops_send'] ?? 0) > 0)
      const target = await openUdpTarget((data) => data, '127.0.0.1', port)
      await ask(app, Buffer.from('somebody'), tunnel.port).finally(() => target.close())
      assert.is((await hostOf(tunnel.server))['flows_opened'], 1)
      assert.is(tunnel.server.log().match(/ECONNREFUSED/g)?.length, 1, tunnel.server.log())
    })
  })

  for (const host of ['127.0.0.1', '::1']) {
    const name = `of several addresses of a name, that one is used which answers, ${host}: ${both}`
    if (process.platform !== 'linux' || process.getuid?.() !== 0) {
      skip(test, name, 'a hosts file of its own needs Linux and root')
      continue
    }
    test(name, () =>
      withTarget(async (target) => {
        const names = new HostsFile()
        names.set('target.test', '127.0.0.9', '::1', '127.0.0.1')
        const commands = { server: [...names.wrapper, ...commandOf(pair.server)] }
        const options = { ...pair, commands, target: `target.test:${target.port}` }
        await withApp(options, async (tunnel, app) => {
          await echoes(tunnel, app, [10, 20])
          const other = await openUdp()
          await echoes(tunnel, other, [30])
          other.close()
          // it was found with the first datagram of the first flow, which no application had to repeat
          assert.is((await hostOf(tunnel.client))['flow_datagrams_in'], 3)
        }).finally(() => names.remove())
      }, host),
    )
  }

  test(`an idle flow ends at both ends, and its source begins another: ${both}`, () =>
    withTarget(async (target) => {
      await withApp({ ...pair, target: addressOf(target), config: { udp_timeout: 2 } }, async (tunnel, app) => {
        await echoes(tunnel, app, [1, 2, 3])
        const counts = async (): Promise<unknown> => [
          (await hostOf(tunnel.client))['flows'],
          (await hostOf(tunnel.server))['flows'],
        ]
        assert.equal(await counts(), [1, 1])
        await waitFor('the flow ends', async () => String(await counts()) === '0,0')
        await echoes(tunnel, app, [4])
        assert.is((await hostOf(tunnel.server))['flows_opened'], 2)
        assert.is(new Set(target.senders.map(({ port }) => port)).size, 2)
      })
    }))

  test(`a server that is killed: datagrams meanwhile are dropped, and its successor serves: ${both}`, () =>
    withTarget(async (target) => {
      const config = { keepalive: 1 }
      await withApp({ ...pair, target: addressOf(target), config }, async (tunnel, app) => {
        await echoes(tunnel, app, [5, 6])
        const restarted = tunnel.restart('server')
        for (let count = 0; count < 200; count++) app.send(Buffer.alloc(500, count), tunnel.port)
        await restarted
        await waitFor('the successor answers', () => isAnswered(app, tunnel.port), 60_000)
      })
    }))

  test(`after an outage, hardly anything of it is delivered, and new datagrams are: ${both}`, () =>
    withTarget(async (target) => {
      await withApp({ ...pair, target: addressOf(target), link: { delay: 10 } }, async (tunnel, app) => {
        await echoes(tunnel, app, [5, 6])
        tunnel.link.blackhole()
        const outage = target.received.length
        for (let number = 0; number < 400; number++) {
          app.send(Buffer.from(`old ${number}`.padEnd(1000)), tunnel.port)
          await sleep(20)
        }
        tunnel.link.heal()
        await waitFor('an answer', () => isAnswered(app, tunnel.port), 60_000)
        await sleep(1000)
        const late = target.received.slice(outage).filter((data) => String(data).startsWith('old')).length
        // what was sent before the window was full, and what the engine held unsent
        assert.ok(late < 100, `${late} of 400`)
      })
    }))

  test(`a reload moves udp_connect and udp_listen, and refuses TCP: ${both}`, () =>
    withTarget(async (target) => {
      const second = await openUdpTarget(() => Buffer.from('second'))
      await withApp({ ...pair, target: addressOf(target) }, async (tunnel, app) => {
        await echoes(tunnel, app, [7, 8])
        tunnel.server.reload({ udp_connect: addressOf(second) })
        await waitFor('the server reloads', () => /successfully reloaded/.test(tunnel.server.log()))
        // the open flow stays where it is
        await echoes(tunnel, app, [9])
        const other = await openUdp()
        assert.is(String(await ask(other, Buffer.from('?'), tunnel.port)), 'second')
        const port = await freePort()
        tunnel.client.reload({ udp_listen: `127.0.0.1:${port}` })
        await waitFor('the client reloads', () => /successfully reloaded/.test(tunnel.client.log()))
        assert.is(String(await ask(other, Buffer.from('?'), port)), 'second')
        assert.not(await isAnswered(other, tunnel.port))
        const { udp_listen: _, ...rest } = tunnel.client.config
        tunnel.client.reload(JSON.stringify({ ...rest, listen: `127.0.0.1:${port}` }))
        await waitFor('TCP is refused', () => /reload failed.*between TCP and UDP/.test(tunnel.client.log()))
        assert.is(String(await ask(other, Buffer.from('?'), port)), 'second')
        other.close()
      }).finally(() => second.close())
    }))

  test(`a path that is too slow delays datagrams for a short time, and drops the others: ${both}`, () =>
    withTarget(async (target) => {
      const link = { delay: 20, rate: 2_000_000 }
      await withApp({ ...pair, target: addressOf(target), link }, async (tunnel, app) => {
        await echoes(tunnel, app, [1])
        let sent = 0
        const end = performance.now() + 4000
        while (performance.now() < end) {
          for (let count = 0; count < 20; count++) app.send(Buffer.alloc(1000), tunnel.port)
          sent += 20
          await sleep(20)
        }
        const atEnd = target.received.length
        await sleep(3000)
        const waited = target.received.length - atEnd
        const { flow_drops_queue: dropped = 0 } = await hostOf(tunnel.client)
        assert.ok(sent > 1000 && atEnd > 300, `${sent} sent, ${atEnd} arrived`)
        assert.ok(dropped > sent / 4, `${dropped} of ${sent} dropped`)
        // 128 KiB of the flow, what the engine may hold, and what is on its way at the path's rate
        assert.ok(waited < 300, `${waited} waited`)
      })
    }))

  test(`with workers, every source stays with one: ${both}`, () =>
    withTarget(async (target) => {
      await withApp({ ...pair, target: addressOf(target), config: { workers: 2 } }, async (tunnel) => {
        const apps = await Promise.all(Array.from({ length: 12 }, () => openUdp()))
        for (const length of [1, 2, 3000]) await Promise.all(apps.map((app) => echoes(tunnel, app, [length])))
        for (const app of apps) app.close()
        assert.is(new Set(target.senders.map(({ port }) => port)).size, apps.length)
        await waitFor('the workers report', async () => (await hostOf(tunnel.client))['flows'] === apps.length)
      })
    }))

  test(`IPv6 applications, targets and paths: ${both}`, () =>
    withTarget(async (target) => {
      const port = await freePort('::1')
      const options = { ...pair, family: 6, clientConfig: { udp_listen: `[::]:${port}` } } as const
      await withApp({ ...options, target: addressOf(target) }, async () => {
        for (const host of ['::1', '127.0.0.1']) {
          const app = await openUdp(host)
          for (const length of [0, 100, 30_000]) {
            const data = randomBytes(length)
            assert.ok((await ask(app, data, port)).equals(data))
          }
          app.close()
        }
      })
    }, '::1'))
}

for (const runtime of RUNTIMES) {
  test(`udp-wrap and udp-unwrap carry datagrams over any TCP, and a flow ends with its connection: ${runtime}`, () =>
    withTarget(async (target) => {
      const [entrance, between] = [await freePort(), await freePort()]
      const tcp = `127.0.0.1:${between}`
      const start = (...words: string[]): Command => new Command(runtime, ...words)
      let unwrap = start('udp-unwrap', '--listen', tcp, '--connect', addressOf(target))
      const wrap = start('udp-wrap', '--listen', `127.0.0.1:${entrance}`, '--connect', tcp, '-v')
      try {
        await Promise.all([wrap.starts(), unwrap.starts()])
        const apps = await Promise.all(Array.from({ length: 4 }, () => openUdp()))
        for (const length of LENGTHS) {
          const round = apps.map(async (app) => {
            const data = randomBytes(length)
            assert.ok((await ask(app, data, entrance)).equals(data), `${length} bytes`)
          })
          await Promise.all(round)
        }
        assert.is(new Set(target.senders.map(({ port }) => port)).size, apps.length)
        assert.is(await unwrap.stop(), 0, unwrap.log)
        await waitFor('the flows end', () => wrap.log.match(/flow over/g)?.length === apps.length)
        unwrap = start('udp-unwrap', '--listen', tcp, '--connect', addressOf(target))
        await unwrap.starts()
        for (const app of apps) await ask(app, Buffer.from('again'), entrance)
        for (const app of apps) app.close()
      } finally {
        for (const command of [wrap, unwrap]) assert.is(await command.stop(), 0, command.log)
      }
    }))
}

for (const client of RUNTIMES) {
  test(`on a wildcard address, answers leave from the address that was asked: ${client}`, () =>
    withTarget(async (target) => {
      const port = await freePort()
      const options = { server: 'node', client, clientConfig: { udp_listen: `0.0.0.0:${port}` } } as const
      await withApp({ ...options, target: addressOf(target) }, async (_, app) => {
        for (const host of ['127.0.0.2', '127.0.0.1', '127.0.0.3']) {
          for (const length of [10, 5000]) {
            await ask(app, randomBytes(length), port, host)
            assert.is(app.senders.at(-1)?.address, host)
          }
        }
      })
    }))
}

test.run()
