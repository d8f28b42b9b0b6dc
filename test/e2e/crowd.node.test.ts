// time limit: 300 s
/** Ten thousand sessions, and the memory left after a burst. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Agent } from '../../testkit/agent.ts'
import { type Crowd, openCrowd } from '../../testkit/flow.ts'
import { MIXED_PAIRS, type Pair } from '../../testkit/pairs.ts'
import { type Config, freePort, httpGet, type Program, type Running, start } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const SESSIONS = 10_000
/** Maximum number of connections in the process of opening. */
const UNDER_WAY = 512
const SESSIONS_LIMIT_MS = 60_000
/** Descriptors that a program needs in addition to those of its sessions. */
const OTHER_DESCRIPTORS = 100
const BURST = 200
const BURSTS = 2
const CEILING_MIB = 32
/** Memory grows in steps: the last one may exceed the ceiling by this much. */
const GROWTH_MIB = 1
/** Memory use of the client's engine from which the burst counts as one. */
const USED_MIB = 12
/**
 * Engine memory allowed after a burst, while sessions are in linger or time_wait; and after they are removed, for grown
 * tables.
 */
const LEFT_MIB = 1
const FORGOTTEN_MIB = 0.125
const MIB = 2 ** 20
const TIMEOUT_MS = 90_000

const test = suite('crowds')

const CRYPTO: Config = { method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64') }

/** Runs a program with the maximum number of descriptors. */
const place = { command: ['sh', '-c', 'ulimit -n "$(ulimit -Hn)"; exec "$0" "$@"'], get: httpGet }

interface Ends {
  readonly server: Running
  readonly client: Running
  /** Port on which the client listens. */
  readonly port: number
}

async function withEnds(pair: Pair, target: number, more: Config, body: (ends: Ends) => Promise<void>): Promise<void> {
  const [kcp_bind, port] = [`127.0.0.1:${await freePort()}`, await freePort()]
  const launch = (program: Program, config: Config): Promise<Running> =>
    start(program, { ...CRYPTO, loglevel: 4, ...more, ...config }, { place })
  const server = await launch(pair.server, { kcp_bind, connect: `127.0.0.1:${target}` })
  try {
    const client = await launch(pair.client, { listen: `127.0.0.1:${port}`, kcp_connect: kcp_bind })
    try {
      await body({ server, client, port })
      assert.is((await client.stop()).code, 0, client.log())
      assert.is((await server.stop()).code, 0, server.log())
    } finally {
      await client.stop('SIGKILL')
    }
  } finally {
    await server.stop('SIGKILL')
  }
}

interface Stats {
  readonly counters: Readonly<Record<string, number>>
  readonly gauges: Readonly<Record<string, number>>
}

const statsOf = async (end: Running): Promise<Stats> =>
  JSON.parse(await httpGet(`http://${end.config['http_listen']}/stats.json?sessions=none`))

const gauge = async (end: Running, name: string): Promise<number> => (await statsOf(end)).gauges[name] ?? Number.NaN

const residentMiB = (end: Running): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${end.pid}/status`, 'utf8'))?.[1]) / 1024

const nameOf = ({ server, client }: Pair): string => `${server} server, ${client} client`

/** The reason why ten thousand connections are not possible here. */
function crowdProblem(): string | undefined {
  if (process.platform !== 'linux') return 'limits and ports are looked up as Linux has them'
  const hard = spawnSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).stdout.trim()
  if (Number(hard) < SESSIONS + OTHER_DESCRIPTORS) return `the hard limit of open files is ${hard} (ulimit -Hn)`
  const range = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
  const [first = 0, last = 0] = range.trim().split(/\s+/).map(Number)
  if (last - first < 2 * SESSIONS)
    return `only ports from ${first} to ${last} are for connections (ip_local_port_range)`
  return undefined
}

const problem = crowdProblem()
for (const pair of MIXED_PAIRS) {
  const name = `${SESSIONS} sessions open and echo within a minute: ${nameOf(pair)}`
  if (problem !== undefined) {
    skip(test, name, problem)
    continue
  }
  test(name, async () => {
    const target = new Agent()
    let crowd: Crowd | undefined
    try {
      await withEnds(pair, await target.target(), {}, async ({ server, client, port }) => {
        crowd = await openCrowd(port, SESSIONS, UNDER_WAY, SESSIONS_LIMIT_MS)
        assert.is(
          crowd.times.length,
          SESSIONS,
          `answers within ${SESSIONS_LIMIT_MS} ms\n${client.log()}\n${server.log()}`,
        )
        for (const end of [server, client]) assert.is(await gauge(end, 'sessions_established'), SESSIONS)
        crowd.close()
        for (const end of [server, client]) {
          // an endpoint that is busy closing thousands may answer a request late
          const left = (): Promise<number> => gauge(end, 'sessions_established').catch(() => Number.NaN)
          const gone = async (): Promise<boolean> => (await left()) === 0
          await waitFor('all sessions ended', gone, TIMEOUT_MS, () => end.stats('sessions=none'))
        }
      })
    } finally {
      crowd?.close()
      await target.close()
    }
  })
}

/** A target that sends on every connection as much as it accepts. */
async function openSource(): Promise<{ readonly port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>()
  const chunk = Buffer.alloc(64 * 1024, 0x53)
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    const fill = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    }
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.on('drain', fill)
    socket.resume()
    fill()
  })
  await new Promise<void>((done) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, done))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    close: () =>
      new Promise((done) => {
        server.close(() => done())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

for (const pair of MIXED_PAIRS) {
  test(`a burst without readers stays below the memory ceiling, and its memory is released: ${nameOf(pair)}`, async () => {
    const source = await openSource()
    const apps: Socket[] = []
    try {
      await withEnds(
        pair,
        source.port,
        { memory: CEILING_MIB, linger: 5, time_wait: 5 },
        async ({ server, client, port }) => {
          const ends = [server, client]
          const idle = await Promise.all(ends.map((end) => gauge(end, 'memory_used')))
          const peaks: number[] = []
          for (let burst = 0; burst < BURSTS; burst++) {
            for (let i = 0; i < BURST; i++) {
              const app = connect({ port, host: '127.0.0.1' })
              // reads nothing: only the kernel's buffer fills
              app.pause()
              app.on('error', () => {})
              apps.push(app)
            }
            const seen = [0, 0]
            await waitFor(
              'memory is used and does not grow any more',
              async () => {
                const used = await Promise.all(ends.map((end) => gauge(end, 'memory_used')))
                // the replay filter and similar structures do not count towards the ceiling
                const more = used.map((bytes, i) => bytes - (idle[i] ?? 0))
                for (const bytes of more) assert.ok(bytes <= (CEILING_MIB + GROWTH_MIB) * MIB, `${bytes} bytes`)
                const steady = more.every((bytes, i) => Math.abs(bytes - (seen[i] ?? 0)) < MIB / 4)
                more.forEach((bytes, i) => {
                  seen[i] = bytes
                })
                // the client's windows are full; the server keeps the rest
                return steady && (seen[1] ?? 0) > USED_MIB * MIB
              },
              TIMEOUT_MS,
              () => `${seen.join(' ')} bytes, idle ${idle.join(' ')}`,
            )
            peaks.push(...ends.map(residentMiB))
            for (const app of apps.splice(0)) app.destroy()
            const left = burst < BURSTS - 1 ? LEFT_MIB : FORGOTTEN_MIB
            for (const [i, end] of ends.entries()) {
              await waitFor(
                'the memory of the engine is back',
                async () => (await gauge(end, 'memory_used')) - (idle[i] ?? 0) <= left * MIB,
                TIMEOUT_MS,
                async () => `${await gauge(end, 'memory_used')} bytes, ${idle[i]} at the start`,
              )
            }
          }
          for (const i of [0, 1]) {
            const [first = 0, last = 0] = [peaks[i], peaks[2 * (BURSTS - 1) + i]]
            // garbage collectors are slow: there must only be no growth with every burst
            assert.ok(
              last <= 1.5 * first + CEILING_MIB,
              `${ends[i]?.program}: resident MiB after each burst ${peaks.join(' ')}`,
            )
          }
        },
      )
    } finally {
      for (const app of apps) app.destroy()
      await source.close()
    }
  })
}

test.run()
