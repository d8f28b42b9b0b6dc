// time limit: 300 s
/** UDP applications through a tunnel with udp_listen and udp_connect. */
import { randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ask, openUdp, openUdpTarget, type UdpEnd } from '../../testkit/datagrams.ts'
import { ALL_PAIRS } from '../../testkit/pairs.ts'
import { httpGet, type Running } from '../../testkit/process.ts'
import { nameOf, type Tunnel, withTunnel } from '../../testkit/tunnel.ts'

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

for (const pair of ALL_PAIRS) {
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

test.run()
