// time limit: 300 s
/** UDP forwarding where kcptun-libev is one end, or both: udp-wrap and udp-unwrap stand beside it. */
import { randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Command } from '../../testkit/command.ts'
import { ask, openUdp, openUdpTarget } from '../../testkit/datagrams.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { freePort, libevPath, type Program } from '../../testkit/process.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { skip } from '../skip.ts'

const test = suite('interop: udp forwarding')
const LENGTHS = [0, 1, 100, 1400, 1501, 20_000, 65507]
const LOSSY = { delay: 10, jitter: 2, loss: 0.03, reorder: 0.02, seed: 9 }

interface Ends {
  readonly server: Program
  readonly client: Program
}

/** Sends datagrams of all lengths through a tunnel. */
async function forward({ server, client }: Ends, runtime: Program): Promise<void> {
  const target = await openUdpTarget()
  const commands: Command[] = []
  const isWrapped = client === 'libev'
  const isUnwrapped = server === 'libev'
  const between = await freePort()
  const entrance = await freePort()
  const targetText = `127.0.0.1:${target.port}`
  if (isUnwrapped)
    commands.push(new Command(runtime, 'udp-unwrap', '--listen', `127.0.0.1:${between}`, '--connect', targetText))
  const listen = await freePort()
  const options = {
    server,
    client,
    datagrams: true,
    link: LOSSY,
    target: targetText,
    ...(isUnwrapped && { serverConfig: { connect: `127.0.0.1:${between}` } }),
    ...(isWrapped && { clientConfig: { listen: `127.0.0.1:${listen}` } }),
  }
  try {
    await withTunnel(options, async (tunnel) => {
      if (isWrapped) {
        const words = ['--listen', `127.0.0.1:${entrance}`, '--connect', `127.0.0.1:${listen}`]
        commands.push(new Command(runtime, 'udp-wrap', ...words))
      }
      for (const command of commands) await command.starts()
      const apps = await Promise.all(Array.from({ length: 5 }, () => openUdp()))
      const round = async (length: number): Promise<void> => {
        const answers = apps.map(async (app) => {
          const data = randomBytes(length)
          assert.ok((await ask(app, data, isWrapped ? entrance : tunnel.port)).equals(data), `${length} bytes`)
        })
        await Promise.all(answers)
      }
      for (const length of LENGTHS) await round(length)
      for (const app of apps) app.close()
    })
    // each source has a socket of its own at the target
    assert.is(new Set(target.senders.map(({ port }) => port)).size, 5)
  } finally {
    for (const command of commands) assert.is(await command.stop(), 0, command.log)
    target.close()
  }
}

const PAIRS: readonly (Ends & { readonly name: string })[] = [
  { name: 'udp_listen, kcptun-libev server, udp-unwrap', server: 'libev', client: 'node' },
  { name: 'udp-wrap, kcptun-libev client, udp_connect', server: 'node', client: 'libev' },
  { name: 'udp-wrap, kcptun-libev at both ends, udp-unwrap', server: 'libev', client: 'libev' },
]

for (const runtime of RUNTIMES) {
  for (const { name, server, client } of PAIRS) {
    const title = `datagrams of every length arrive as they were sent: ${name}: ${runtime}`
    if (libevPath === undefined) {
      skip(test, title, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
      continue
    }
    const own = (end: Program): Program => (end === 'libev' ? end : runtime)
    test(title, () => forward({ server: own(server), client: own(client) }, runtime))
  }
}

test.run()
