// time limit: 300 s
/** What obfuscated tunnels carry beside connections to one server: datagrams, and connections to several servers. */
import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, type Family, type Host } from '../../testkit/netns.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import type { Config, Running } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { RECOVERY_MS } from './meeting.ts'
import { OBFS_PORT, obfsWorld } from './obfs.ts'

const LENGTHS = [0, 1, 1400, 9000, 65507]
const APP_PORT = 8081

const test = suite('netns: datagrams and several servers with obfs')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const { world, serverHost, clientHost } = obfsWorld()
  const otherHost = world.addPublicHost('obfs-o', 62)
  test.after(() => world.close())
  let port = 7000

  const common = (): Config => ({
    method: 'xchacha20poly1305_ietf',
    psk: randomBytes(32).toString('base64'),
    obfs: 'dpi/tcp-wnd',
    keepalive: 3,
  })

  async function running(body: (started: Running[]) => Promise<void>): Promise<void> {
    const started: Running[] = []
    try {
      await body(started)
    } catch (error) {
      const logs = started.map((each) => `--- ${each.program} ---\n${each.log().slice(-4000)}`).join('\n')
      throw new Error(`${error instanceof Error ? error.message : error}\n${logs}`)
    } finally {
      for (const each of started) await each.stop()
    }
  }

  /** Asks by UDP until the same comes back. */
  async function echoes(app: Socket, length: number, to: number, host: string): Promise<void> {
    const question = randomBytes(length)
    let isAnswered = false
    const onMessage = (data: Buffer): void => {
      isAnswered ||= data.equals(question)
    }
    app.on('message', onMessage)
    let asked = Number.NEGATIVE_INFINITY
    await waitFor(
      `an answer of ${length} bytes`,
      () => {
        if (!isAnswered && performance.now() - asked > 3000) {
          asked = performance.now()
          app.send(question, to, host)
        }
        return isAnswered
      },
      RECOVERY_MS,
    )
    app.off('message', onMessage)
  }

  /** What the server answers that a new connection goes to. */
  async function where(family: Family): Promise<string> {
    const app = await clientHost.dial(family === 4 ? '127.0.0.1' : '::1', APP_PORT, { keep: 100 })
    await app.send('who?')
    await waitFor('an answer', () => app.ended || app.received > 0, 3000).catch(() => {})
    const answer = app.text()
    app.destroy()
    return answer
  }

  for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
    const family = FAMILIES[index % 2] ?? 4
    const pair = `${server} server, ${client} client, IPv${family}`

    test(`datagrams of every length, also after a restart of the server: ${pair}`, () =>
      running(async (started) => {
        const shared = common()
        const target = await serverHost.udp(family, ++port)
        target.on('message', (data, from) => target.send(data, from.port, from.address))
        const serverConfig = {
          ...shared,
          kcp_bind: serverHost.at(family, OBFS_PORT),
          udp_connect: serverHost.at(family, port),
        }
        started.push(await serverHost.start(server, serverConfig))
        const udpListen = clientHost.at(family, APP_PORT)
        const kcpConnect = serverHost.at(family, OBFS_PORT)
        started.push(await clientHost.start(client, { ...shared, udp_listen: udpListen, kcp_connect: kcpConnect }))
        const app = await clientHost.udp(family, ++port)
        for (const length of LENGTHS) await echoes(app, length, APP_PORT, clientHost.addresses[family])
        await started[0]?.stop('SIGKILL')
        started.push(await serverHost.start(server, serverConfig))
        const later = await clientHost.udp(family, ++port)
        for (const length of [1, 3000]) await echoes(later, length, APP_PORT, clientHost.addresses[family])
      }))

    test(`new connections go to the other server when the first is killed, and return later: ${pair}`, () =>
      running(async (started) => {
        const shared = common()
        const hosts = [serverHost, otherHost]
        const starters: (() => Promise<Running>)[] = []
        for (const [number, host] of hosts.entries()) {
          const target = await (host as Host).target()
          void target.serve(({ socket }) => socket.on('data', () => socket.write(`${number}`)))
          const config = { ...shared, kcp_bind: host.at(family, OBFS_PORT), connect: target.address }
          starters.push(() => host.start(server, config))
        }
        for (const starter of starters) started.push(await starter())
        const kcpConnect = hosts.map((host) => host.at(family, OBFS_PORT))
        const listen = family === 4 ? `127.0.0.1:${APP_PORT}` : `[::1]:${APP_PORT}`
        const tunnel = await clientHost.start(client, { ...shared, listen, kcp_connect: kcpConnect })
        started.push(tunnel)
        const goesTo = (number: string): Promise<void> =>
          waitFor(`server ${number}`, async () => (await where(family)) === number, 2 * RECOVERY_MS)
        await goesTo('0')
        await started[0]?.stop('SIGKILL')
        await goesTo('1')
        assert.match(tunnel.log(), `server ${kcpConnect[0]} is down`)
        started.push(await (starters[0] as () => Promise<Running>)())
        await goesTo('0')
        assert.not.match(tunnel.log(), `server ${kcpConnect[1]} is down`)
      }))
  }
}

test.run()
