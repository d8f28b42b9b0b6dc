// time limit: 400 s, waits
/**
 * A client that hops between the ports of its server, behind a NAT and a middlebox that blocks every flow a few seconds
 * after its first datagram: connections go on, and no byte is lost.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { World } from '../../testkit/netns.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Program } from '../../testkit/process.ts'
import { libevPath, run, writeConfig } from '../../testkit/process.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, type Meeting, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'
import { type Direction, transfer } from './transfer.ts'

const PORT = 5200
const RANGE = '5200-5299'
/** A flow is blocked this long after its first datagram. */
const BLOCK_S = 6

const CASES: readonly { server: Program; client: Program; family: 4 | 6; path: string; isBound: boolean }[] = [
  { server: 'node', client: 'bun', family: 4, path: 'auto', isBound: false },
  { server: 'bun', client: 'node', family: 6, path: 'auto', isBound: false },
  { server: 'bun', client: 'node', family: 4, path: 'portable', isBound: true },
  { server: 'node', client: 'bun', family: 6, path: 'portable', isBound: false },
]

const test = suite('netns: port hopping')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const router = world.addRouter('router', 1)
  const clientHost = world.addHost('client', router)
  const serverHost = world.addPublicHost('server', 50)
  test.after(() => world.close())

  /** Drops every flow between client and server some seconds after its first datagram, in both directions. */
  function block(seconds: number, family: 4 | 6): void {
    const ip = family === 4 ? 'ip' : 'ip6'
    const type = family === 4 ? 'ipv4_addr' : 'ipv6_addr'
    const out = `${ip} saddr . udp sport . ${ip} daddr . udp dport`
    const back = `${ip} daddr . udp dport . ${ip} saddr . udp sport`
    const isOut = `${ip} saddr ${clientHost.addresses[family]}`
    const set = (name: string, timeout: string): string =>
      `set ${name} { type ${type} . inet_service . ${type} . inet_service; flags dynamic,timeout; timeout ${timeout}; size 65535; }`
    router.namespace.run(
      ['nft', '-f', '-'],
      `table inet censor {
        ${set('young', `${seconds}s`)}
        ${set('known', '1h')}
        chain forward {
          type filter hook forward priority -200; policy accept;
          meta l4proto != udp accept
          ${out} @young accept
          ${back} @young accept
          ${out} @known counter drop
          ${back} @known counter drop
          ${isOut} add @known { ${out} } add @young { ${out} }
        }
      }\n`,
    )
  }
  const unblock = (): string => router.namespace.run(['nft', 'delete', 'table', 'inet', 'censor'])

  /** Executes what --hop-firewall prints for a server. */
  async function redirect(meeting: Meeting): Promise<void> {
    const { program, config } = meeting.server
    const file = writeConfig(config)
    const { stdout } = await run(program, [`--hop-firewall=${RANGE}`, '-c', file.path])
    file.remove()
    const commands = stdout.split('\n').filter((line) => line.startsWith('nft '))
    assert.is(commands.length, 3, stdout)
    for (const command of commands) serverHost.namespace.run(['sh', '-c', command])
  }

  /** The ports that a client has hopped to, in order. */
  const hops = (meeting: Meeting): string[] =>
    [...meeting.client.log().matchAll(/udp hop: .*port (\d+), from \S*:(\d+)/g)].map(([, to, from]) => `${to} ${from}`)

  for (const { server, client, family, path, isBound } of CASES) {
    const options = {
      programs: { server, client },
      family,
      net: world.net,
      serverHost,
      clientHost,
      config: { udp: { path }, loglevel: 6 },
    }
    const title = `${titleOf(options)}, udp.path ${path}, ${isBound ? 'ports are bound' : 'redirected by nft'}`

    /** Runs a server that serves the range, and a client that hops every 5 s. */
    const hopping = (interval: number, body: (meeting: Meeting) => Promise<void>): Promise<void> =>
      withMeeting(options, async (meeting) => {
        const address = serverHost.addresses[family]
        const host = family === 4 ? address : `[${address}]`
        for (const role of ['client', 'server'] as const) await meeting.stop(role)
        await meeting.start('server', isBound ? { kcp_bind: `${host}:5200-5263` } : { kcp_bind: `${host}:${PORT}` })
        if (!isBound) await redirect(meeting)
        const range = isBound ? '5200-5263' : RANGE
        await meeting.start('client', { kcp_connect: `${host}:${range}`, hop_interval: interval })
        await body(meeting)
      }).finally(() => {
        serverHost.namespace.run(['sh', '-c', 'nft flush ruleset'])
      })

    test(`flows are blocked after ${BLOCK_S} s, and connections go on: ${title}`, () =>
      hopping(30, async (meeting) => {
        const idle = await meeting.connect()
        block(BLOCK_S, family)
        try {
          for (const direction of ['download', 'upload'] as Direction[])
            await transfer(meeting, direction, family, [() => {}, () => {}])
          const end = performance.now() + 2.5 * BLOCK_S * 1000
          while (performance.now() < end) {
            await assertEchoes(idle, 'a connection that is used now and then')
            await sleep(1000)
          }
          const fresh = await meeting.connect()
          for (const app of [idle, fresh]) app.destroy()
          const log = meeting.client.log()
          assert.match(log, 'no answer at port')
          assert.not.match(log, 'aborted')
          const seen = hops(meeting)
          assert.ok(new Set(seen).size > 1, log)
          for (const [i, hop] of seen.entries())
            assert.is.not(hop.split(' ')[0], seen[i - 1]?.split(' ')[0], 'another port each time')
        } finally {
          unblock()
        }
      }))

    test(`regular hops lose nothing and cost no pause: ${title}`, () =>
      hopping(5, async (meeting) => {
        const app = await meeting.connect()
        const idle = await meeting.connect()
        const waits: number[] = []
        await waitFor(
          'three hops',
          async () => {
            const began = performance.now()
            await assertEchoes(app, 'during hops')
            waits.push(performance.now() - began)
            return hops(meeting).length >= 3
          },
          RECOVERY_MS,
        )
        await assertEchoes(idle, 'an idle connection')
        console.log(`${title}: longest echo ${Math.max(...waits).toFixed(0)} ms of ${waits.length}`)
        for (const end of [app, idle]) end.destroy()
        assert.not.match(meeting.client.log(), 'aborted')
        assert.match(meeting.server.log(), 'peer moved')
      }))
  }

  if (libevPath === undefined) skip(test, 'a kcptun-libev server', 'KCPTUN_LIBEV is not set')
  for (const client of libevPath === undefined ? [] : RUNTIMES) {
    const programs = { server: 'libev', client } as const
    const options = { programs, family: 4, net: world.net, serverHost, clientHost } as const
    test(`a kcptun-libev server does not follow, so the client hops no more: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        await meeting.stop('client')
        const rule = `add rule inet hop pre udp dport ${PORT + 1}-${PORT + 99} redirect to :${PORT}`
        const chain = 'add chain inet hop pre { type nat hook prerouting priority dstnat ; }'
        serverHost.namespace.run(['nft', '-f', '-'], `add table inet hop\n${chain}\n${rule}\n`)
        const range = `${serverHost.addresses[4]}:${RANGE}`
        await meeting.start('client', { kcp_connect: range, hop_interval: 5 })
        let app = await meeting.connect()
        // it does not wait for echoes
        const timer = setInterval(() => app.ended || app.socket.write('x'), 20)
        try {
          await waitFor(
            'the client stays',
            async () => {
              if (app.ended) app = await meeting.connect()
              return /does not follow/.test(meeting.client.log())
            },
            2 * RECOVERY_MS,
          )
        } finally {
          clearInterval(timer)
        }
        // what was opened at the other port ends when the client is back
        app.destroy()
        await sleep(1000)
        app = await meeting.connect()
        const last = hops(meeting).length
        const end = performance.now() + 15_000
        while (performance.now() < end) {
          await assertEchoes(app, 'the connection')
          await sleep(1000)
        }
        assert.is(hops(meeting).length, last, meeting.client.log())
        app.destroy()
      }).finally(() => {
        serverHost.namespace.run(['sh', '-c', 'nft flush ruleset'])
      }))
  }
}

test.run()
