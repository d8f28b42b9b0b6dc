// time limit: 180 s
/** A start without network and name resolution: the program runs, says so, and works when they are there. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Host, World } from '../../testkit/netns.ts'
import type { Config, Running } from '../../testkit/process.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const KEY: Config = { method: 'chacha20poly1305_ietf', psk: Buffer.alloc(32, 7).toString('base64') }
const PORT = 5200
const LIMIT_MS = 60_000

const test = suite('netns: start')

/** Status and text of /ready. */
const ready = (host: Host, running: Running): Promise<string> =>
  host.get(`http://${running.config['http_listen']}/ready`).catch((error) => String(error.message))

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addPublicHost('server', 50)
  const clientHost = world.addPublicHost('client', 60)
  test.after(() => world.close())

  for (const [family, program, path, workers] of [
    [4, 'node', 'fast', 1],
    [6, 'bun', 'portable', 1],
    [6, 'node', 'portable', 2],
    [4, 'bun', 'fast', 2],
  ] as const) {
    test(`both ends start before the network: ${program}, udp.path ${path}, ${workers} workers, IPv${family}`, async () => {
      const names = new HostsFile()
      const common: Config = { ...KEY, workers, udp: { path } }
      const listen = '127.0.0.1:7000'
      const running: Running[] = []
      for (const host of [serverHost, clientHost]) host.unplug()
      try {
        const target = await serverHost.target()
        const server = await serverHost.start(
          program,
          { ...common, kcp_bind: serverHost.at(family, PORT), connect: `target.test:${target.port}` },
          { wrapper: names.wrapper },
        )
        running.push(server)
        const client = await clientHost.start(
          program,
          { ...common, listen, kcp_connect: `server.test:${PORT}` },
          { wrapper: names.wrapper },
        )
        running.push(client)
        assert.match(await ready(clientHost, client), '503')
        assert.match(await ready(serverHost, server), '503')
        // the reset may come before the application knows that it is connected
        const early = await clientHost.dial('127.0.0.1', 7000).then(
          async (end) => (await within('the end of an early connection', LIMIT_MS, end.ending)).kind,
          (error: unknown) => (/ECONNRESET/.test(String(error)) ? 'reset' : String(error)),
        )
        assert.is(early, 'reset')
        for (const host of [serverHost, clientHost]) host.plug()
        names.set('server.test', serverHost.addresses[family])
        names.set('target.test', '127.0.0.1')
        const log = (): string => `${server.log()}\n${client.log()}`
        for (const [host, end] of [
          [serverHost, server],
          [clientHost, client],
        ] as const) {
          await waitFor('it is ready', async () => /^healthy/.test(await ready(host, end)), LIMIT_MS, log)
        }
        const accepted = target.serve((end) => end.finish())
        const app = await clientHost.dial('127.0.0.1', 7000)
        app.finish()
        await within('a connection through the tunnel', LIMIT_MS, accepted)
        assert.is((await within('its end', LIMIT_MS, app.ending)).kind, 'fin', log())
        await target.close()
      } finally {
        for (const end of running) assert.is((await end.stop()).code, 0, end.log())
        names.remove()
        for (const host of [serverHost, clientHost]) {
          host.unplug()
          host.plug()
        }
      }
    })
  }
}

test.run()
