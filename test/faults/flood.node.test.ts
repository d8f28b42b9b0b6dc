// time limit: 180 s, long 900 s
/**
 * A flood of unauthenticated datagrams, 100 000 a second or what one process makes, costs a tunnel at most half of its
 * goodput, compared with the same flood to a closed port. At the client it comes from the server's address, since the
 * kernel drops others. The short form has a download at the rate of a good line, since other tests run beside it; the
 * long form one without limit, which takes all the CPU time that the machine has left.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { download } from '../../testkit/flow.ts'
import { type Config, freePort, type Program, projectRoot, type Running, start } from '../../testkit/process.ts'
import { formatAddress, listen, type Target } from '../../testkit/tcp.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { figuresOf, form, note, type Role } from './form.ts'

const SHARE_MIN = 0.5
/** Bytes that the target sends in each interval. */
const INTERVAL_MS = 5
const INTERVAL_BYTES = form((20e6 / 8 / 1000) * INTERVAL_MS, 4 << 20)
const WINDOW_MS = form(1500, 5000)
/** Time for the flood and for congestion control to settle. */
const SETTLE_MS = 500
/** Windows of either kind, in turn; more only if the share is too small after these, as on a machine with other work. */
const ROUNDS = form(1, 3)
const ROUNDS_MAX = 6
const TIMEOUT_MS = 30_000

interface Victim {
  readonly role: Role
  readonly program: Program
  readonly host: string
  readonly path: string
}

const VICTIMS: readonly Victim[] = [
  { role: 'server', program: 'node', host: '127.0.0.1', path: 'auto' },
  { role: 'server', program: 'bun', host: '127.0.0.1', path: 'auto' },
  { role: 'client', program: 'node', host: '127.0.0.1', path: 'auto' },
  { role: 'client', program: 'bun', host: '127.0.0.1', path: 'auto' },
  { role: 'server', program: 'node', host: '::1', path: 'auto' },
  ...form<Victim[]>(
    [],
    [
      { role: 'server', program: 'node', host: '127.0.0.1', path: 'portable' },
      { role: 'server', program: 'bun', host: '127.0.0.1', path: 'portable' },
    ],
  ),
]

const test = suite('faults: flood')

/** A process of test/faults/flood.mjs. */
class Flood {
  readonly #child: ChildProcess
  #sent = 0

  constructor(to: readonly [string, number], from: readonly [string, number] | readonly []) {
    const args = [join(projectRoot, 'test/faults/flood.mjs'), ...to, ...from].map(String)
    this.#child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#sent = Number(text.trimEnd().split('\n').at(-1))
    })
  }

  get sent(): number {
    return this.#sent
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.#child.once('exit', done))
    this.#child.kill('SIGKILL')
    await ended
  }
}

interface Window {
  /** Payload, and datagrams of the flood, per second. */
  readonly goodput: number
  readonly rate: number
}

async function measure(received: () => number, flood: Flood): Promise<Window> {
  try {
    await waitFor('the flood', () => flood.sent > 0, TIMEOUT_MS)
    await sleep(SETTLE_MS)
    const [began, bytes, sent] = [performance.now(), received(), flood.sent]
    await sleep(WINDOW_MS)
    const seconds = (performance.now() - began) / 1000
    return { goodput: (received() - bytes) / seconds, rate: (flood.sent - sent) / seconds }
  } finally {
    await flood.stop()
  }
}

/** A target that sends at its rate, as far as the connection takes it. */
function source(): Promise<Target> {
  const chunk = randomBytes(INTERVAL_BYTES)
  return listen(({ socket }) => {
    const timer = setInterval(() => socket.writableNeedDrain || socket.write(chunk), INTERVAL_MS)
    socket.once('close', () => clearInterval(timer))
  })
}

const udpPort = (address: unknown): number => Number(String(address).split(':').at(-1))

/** Runs `body` with a server, a client on a fixed port, and a download without end. */
async function withDownload(
  victim: Victim,
  body: (ends: Record<Role, Running>, received: () => number) => Promise<void>,
): Promise<void> {
  const { host, program, path } = victim
  const other = program === 'node' ? 'bun' : 'node'
  const [serverPort, clientPort, port] = [await freePort(host), await freePort(host), await freePort()]
  const target = await source()
  const common: Config = {
    ...{ method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64'), loglevel: 4 },
    udp: { path },
  }
  const configs: Record<Role, Config> = {
    server: { ...common, kcp_bind: formatAddress(host, serverPort), connect: target.address },
    client: {
      ...{ ...common, listen: `127.0.0.1:${port}`, kcp_bind: formatAddress(host, clientPort) },
      kcp_connect: formatAddress(host, serverPort),
    },
  }
  const programOf = (role: Role): Program => (role === victim.role ? program : other)
  const server = await start(programOf('server'), configs.server)
  const client = await start(programOf('client'), configs.client).catch(async (error) => {
    await server.stop('SIGKILL')
    throw error
  })
  const flow = download(port)
  try {
    await waitFor('the download', () => flow.received() > 1e6, TIMEOUT_MS, client.log)
    await body({ server, client }, flow.received)
    assert.is(flow.failed(), undefined)
    for (const end of [client, server]) {
      assert.is((await end.stop()).code, 0, end.log())
      // a warning a minute, whatever comes
      assert.ok((end.log().match(/failed authentication/g)?.length ?? 0) <= 3, end.log())
    }
  } finally {
    flow.stop()
    await Promise.all([client.stop('SIGKILL'), server.stop('SIGKILL')])
    await target.close()
  }
}

async function flooded(victim: Victim): Promise<void> {
  const { role, host } = victim
  const totals = { closed: { goodput: 0, rate: 0 }, open: { goodput: 0, rate: 0 } }
  const closed = await freePort(host)
  const shareOf = (): number => totals.open.goodput / totals.closed.goodput
  let rounds = 0
  let rejected = 0
  await withDownload(victim, async (ends, received) => {
    const [server, client] = [udpPort(ends.server.config['kcp_bind']), udpPort(ends.client.config['kcp_bind'])]
    const from = role === 'client' ? ([host, server] as const) : ([] as const)
    for (let round = 0; round < ROUNDS || (shareOf() < SHARE_MIN && round < ROUNDS_MAX); round++) {
      for (const kind of ['closed', 'open'] as const) {
        const port = kind === 'closed' ? closed : role === 'client' ? client : server
        const { goodput, rate } = await measure(received, new Flood([host, port], from))
        totals[kind].goodput += goodput
        totals[kind].rate += rate
      }
      rounds++
    }
    rejected = (await figuresOf(ends[role])).counters['drop_auth'] ?? 0
  })
  const share = shareOf()
  const text = ({ goodput, rate }: Window): string =>
    `${((goodput * 8) / 1e6 / rounds).toFixed(0)} Mbit/s at ${Math.round(rate / 1000 / rounds)} k datagrams/s`
  note(
    `${victim.program} ${role}, ${host}, ${victim.path}: ${text(totals.open)}, closed port ${text(totals.closed)}: ` +
      `${(100 * share).toFixed(0)} %, ${rejected} rejected`,
  )
  assert.ok(rejected > 0, 'the flood arrives')
  assert.ok(share >= SHARE_MIN, `${(100 * share).toFixed(0)} % of the goodput`)
}

const reason =
  process.platform !== 'linux' || process.getuid?.() !== 0 ? 'a spoofed source needs Linux and root' : undefined
for (const victim of VICTIMS) {
  const name = `a ${victim.program} ${victim.role} under a flood, ${victim.host}, path ${victim.path}`
  if (reason !== undefined) skip(test, name, reason)
  else test(name, () => flooded(victim))
}

test.run()
