/**
 * A server, a client and, if needed, a rendezvous server, each on a host of a small Internet (testkit/netns.ts), with a
 * target behind the server.
 */
import { randomBytes } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { DialOptions, Family, Host } from '../../testkit/netns.ts'
import type { Config, Program, Running, StartOptions } from '../../testkit/process.ts'
import type { TcpEnd } from '../../testkit/tcp.ts'
import { download, echo, type ScriptedTarget, upload } from '../../testkit/traffic.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'

const RENDEZVOUS_PORT = 12345
const TRANSFER_BYTES = 300_000
const SERVER_PORT = 5200
const LISTEN_PORT = 5202
/** Length of the log shown for each process when a test fails, in UTF-16 units. */
const SHOWN_LOG = 4000
/** Time limit for a tunnel to start or resume transfers: names are requested every 4 s, and machines are busy. */
export const RECOVERY_MS = 45_000
/** Time limit of an echo through the tunnel; then the next attempt is made. */
const ECHO_MS = 3000
/** Pause between attempts. */
const ATTEMPT_MS = 200

export type Role = 'rendezvous' | 'server' | 'client'

export interface MeetingOptions {
  /** Programs by role; without `rendezvous` the client connects to the server's address. */
  readonly programs: { readonly rendezvous?: Program; readonly server: Program; readonly client: Program }
  readonly family: Family
  readonly net: Host
  readonly serverHost: Host
  readonly clientHost: Host
  /** Configuration common to all roles, and of single ones. */
  readonly config?: Config
  readonly roles?: Partial<Record<Role, Config>>
  /** Start options by role. */
  readonly start?: Partial<Record<Role, StartOptions>>
}

export const titleOf = ({ programs, family }: Pick<MeetingOptions, 'programs' | 'family'>): string => {
  const third = programs.rendezvous === undefined ? '' : `${programs.rendezvous} rendezvous server, `
  return `${third}${programs.server} server, ${programs.client} client, IPv${family}`
}

/** The processes of one test. It has the tunnel interface of the transfers in testkit/traffic.ts. */
export class Meeting {
  readonly options: MeetingOptions
  target: ScriptedTarget
  #serverHost: Host
  readonly #running = new Map<Role, Running>()
  readonly #configs = new Map<Role, Config>()
  readonly #logs: string[] = []

  constructor(options: MeetingOptions, target: ScriptedTarget) {
    this.options = options
    this.target = target
    this.#serverHost = options.serverHost
    const { programs, family, net, serverHost } = options
    const common: Config = {
      method: 'xchacha20poly1305_ietf',
      psk: randomBytes(32).toString('base64'),
      // short, so that a service that moved is announced soon
      keepalive: 3,
      ...options.config,
    }
    const { rendezvous } = programs
    if (rendezvous !== undefined) {
      const party: Config = { ...common, service_id: 'a service', rendezvous_server: net.at(family, RENDEZVOUS_PORT) }
      this.#configs.set('rendezvous', { ...common, kcp_bind: net.at(family, RENDEZVOUS_PORT) })
      this.#configs.set('server', { ...party, connect: target.address })
      this.#configs.set('client', { ...party, listen: `127.0.0.1:${LISTEN_PORT}` })
    } else {
      const address = serverHost.at(family, SERVER_PORT)
      this.#configs.set('server', { ...common, connect: target.address, kcp_bind: address })
      this.#configs.set('client', { ...common, listen: `127.0.0.1:${LISTEN_PORT}`, kcp_connect: address })
    }
  }

  hostOf(role: Role): Host {
    if (role === 'rendezvous') return this.options.net
    return role === 'server' ? this.#serverHost : this.options.clientHost
  }

  #get(role: Role): Running {
    const running = this.#running.get(role)
    if (running === undefined) throw new Error(`there is no ${role}`)
    return running
  }

  get server(): Running {
    return this.#get('server')
  }

  get client(): Running {
    return this.#get('client')
  }

  /** Starts the program of a role, with changed settings if any are given. */
  async start(role: Role, change: Config = {}): Promise<void> {
    const program = this.options.programs[role]
    if (program === undefined) throw new Error(`there is no ${role}`)
    const { psk, ...others }: Config = { ...this.#configs.get(role), ...this.options.roles?.[role], ...change }
    const config = psk === undefined || 'keys' in others ? others : { ...others, psk }
    this.#running.set(role, await this.hostOf(role).start(program, config, this.options.start?.[role]))
  }

  async stop(role: Role, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const running = this.#get(role)
    await running.stop(signal)
    this.#logs.push(`--- log of the ${role}, ${running.program} ---\n${running.log().slice(-SHOWN_LOG)}`)
    this.#running.delete(role)
  }

  /** Makes the next server run on another host, with a target of its own. */
  async moveServer(host: Host): Promise<void> {
    await this.target.close()
    this.#serverHost = host
    this.target = await host.target()
    this.#configs.set('server', { ...this.#configs.get('server'), connect: this.target.address })
  }

  dial = (options?: DialOptions): Promise<TcpEnd> => this.options.clientHost.dial('127.0.0.1', LISTEN_PORT, options)

  /** Opens an echoing connection through the tunnel, retrying until it works. */
  async connect(): Promise<TcpEnd> {
    const end = performance.now() + RECOVERY_MS
    for (;;) {
      void this.target.serve(({ socket }) => socket.on('data', (chunk: Buffer) => socket.write(chunk)))
      // without a peer the connection is reset, maybe before it is reported
      const app = await this.dial().catch(() => undefined)
      if (app !== undefined && (await echoes(app).catch(() => false))) return app
      app?.destroy()
      if (performance.now() > end) throw new Error(`no tunnel within ${RECOVERY_MS} ms`)
      await sleep(ATTEMPT_MS)
    }
  }

  /**
   * Stops all processes.
   * @returns the logs
   */
  async close(): Promise<string> {
    for (const role of ['client', 'server', 'rendezvous'] as const) {
      if (this.#running.has(role)) await this.stop(role, 'SIGTERM')
    }
    await this.target.close()
    return this.#logs.join('\n')
  }
}

/** Resolves to true once a byte is echoed; rejects when the connection ends or no echo arrives. */
async function echoes(app: TcpEnd): Promise<boolean> {
  const before = app.received
  await app.send('x')
  await waitFor(
    'an echo',
    () => {
      if (app.ended) throw new Error('the connection ended')
      return app.received > before
    },
    ECHO_MS,
  )
  return true
}

/** Asserts that an open connection still echoes within the time limit. */
export async function assertEchoes(app: TcpEnd, what: string): Promise<void> {
  const before = app.received
  await app.send('still there')
  await waitFor(
    `${what}: an echo`,
    () => app.ended || app.received >= before + 'still there'.length,
    RECOVERY_MS,
    () => `${app.received - before} bytes came back`,
  )
  assert.not.ok(app.ended, `${what}: the connection ended`)
}

/** Whether an endpoint has moved to another local port. */
export const hasMoved = (running: Running): boolean => /not at port \d+: .*Moved to port \d+/.test(running.log())

export async function assertMoves(running: Running): Promise<void> {
  await waitFor('the move to another port', () => hasMoved(running), RECOVERY_MS)
}

/** Transfers data in each direction and both ways. */
export async function assertCarries(meeting: Meeting, seed: number): Promise<void> {
  const app = await meeting.connect()
  app.destroy()
  await upload(meeting, meeting.target, TRANSFER_BYTES, seed)
  await download(meeting, meeting.target, TRANSFER_BYTES, seed + 1)
  await echo(meeting, meeting.target, TRANSFER_BYTES, seed + 2)
}

/** Runs a test body with all processes started, and stops them afterwards; a failure shows the logs. */
export async function withMeeting(options: MeetingOptions, body: (meeting: Meeting) => Promise<void>): Promise<void> {
  const meeting = new Meeting(options, await options.serverHost.target())
  let failure: unknown
  try {
    if (options.programs.rendezvous !== undefined) await meeting.start('rendezvous')
    // a client that requests the service before it is announced retries only after 4 s
    await meeting.start('server')
    await meeting.start('client')
    await body(meeting)
  } catch (error) {
    failure = error ?? new Error('failed')
  }
  const logs = await meeting.close()
  if (failure === undefined) return
  const message = failure instanceof Error ? failure.message : String(failure)
  throw new Error(`${titleOf(options)}: ${message}\n${logs}`)
}
