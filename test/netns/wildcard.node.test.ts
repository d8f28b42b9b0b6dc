// time limit: 240 s
/**
 * The wildcard address `[::]` serves IPv6 and IPv4, for UDP, TCP and HTTP: whatever the system's default of IPV6_V6ONLY
 * is, with IPv6 disabled by sysctl, and, as 0.0.0.0, on a kernel without IPv6.
 */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Host, World } from '../../testkit/netns.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program, Running, StartOptions } from '../../testkit/process.ts'
import { projectRoot, start } from '../../testkit/process.ts'
import type { ScriptedTarget } from '../../testkit/traffic.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const UDP_PORT = 5200
const HTTP_PORT = 5201
const LISTEN_PORT = 5202
const ANSWER_MS = 30_000

const BOTH = ['127.0.0.1', '::1']

/** Settings for which different code opens the sockets. */
const SETTINGS: Readonly<Record<string, Config>> = {
  'fast UDP, TCP from a descriptor': { udp: { path: 'fast' }, tcp: { sndbuf: 65536 } },
  'portable UDP and TCP': { udp: { path: 'portable' } },
  'portable UDP and TCP from descriptors': { udp: { path: 'portable', reuseport: true }, tcp: { reuseport: true } },
  workers: { workers: 2 },
}

const test = suite('netns: [::]')

const url = (host: string, port: number): string =>
  host.includes(':') ? `http://[${host}]:${port}` : `http://${host}:${port}`

/** One server on `[::]`, and one client for each address under which it must be reached, one after the other. */
class Scene {
  readonly host: Host
  readonly #program: Program
  readonly #settings: Config
  readonly #options: StartOptions
  readonly #target: ScriptedTarget
  readonly logs: string[] = []

  constructor(host: Host, program: Program, settings: Config, options: StartOptions, target: ScriptedTarget) {
    this.host = host
    this.#program = program
    this.#settings = settings
    this.#options = options
    this.#target = target
  }

  async #with(config: Config, body: (running: Running) => Promise<void>): Promise<void> {
    const place = {
      command: ['ip', 'netns', 'exec', this.host.namespace.name],
      get: (address: string) => this.host.get(address.replace('[::]', '127.0.0.1')),
    }
    const common = { method: 'xchacha20poly1305_ietf', password: 'a password' }
    const running = await start(this.#program, { ...common, ...this.#settings, ...config }, { ...this.#options, place })
    try {
      await body(running)
    } catch (error) {
      throw new Error(`${String(error)}\n${running.log()}`, { cause: error })
    } finally {
      await running.stop()
      this.logs.push(running.log())
    }
  }

  /** @param addresses under which the server and the client must be reached */
  async run(addresses: readonly string[]): Promise<void> {
    const server = { kcp_bind: `[::]:${UDP_PORT}`, connect: this.#target.address, http_listen: `[::]:${HTTP_PORT}` }
    await this.#with(server, async () => {
      for (const address of addresses) {
        assert.match(await this.host.get(`${url(address, HTTP_PORT)}/stats`), 'sessions')
        const peer = url(address, UDP_PORT).slice('http://'.length)
        await this.#with({ kcp_connect: peer, listen: `[::]:${LISTEN_PORT}` }, async () => {
          for (const local of addresses) await this.#echo(local)
        })
      }
    })
  }

  async #echo(host: string): Promise<void> {
    void this.#target.serve(({ socket }) => socket.pipe(socket))
    const app = await this.host.dial(host, LISTEN_PORT)
    await app.send('hello')
    await waitFor(`an echo by ${host}`, () => app.received === 5 || app.ended, ANSWER_MS)
    assert.not.ok(app.ended)
    app.destroy()
  }
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const { net } = world
  const targets: ScriptedTarget[] = []
  test.before(async () => void targets.push(await net.target()))
  test.after(() => world.close())
  const scene = (program: Program, settings: Config | undefined, options: StartOptions = {}): Scene => {
    const [target] = targets
    if (target === undefined) throw new Error('no target')
    return new Scene(net, program, settings ?? {}, options, target)
  }

  for (const program of RUNTIMES) {
    for (const [title, settings] of Object.entries(SETTINGS)) {
      test(`bindv6only = 1: ${title}: ${program}`, async () => {
        net.namespace.sysctl('net/ipv6/bindv6only', 1)
        try {
          await scene(program, settings).run(BOTH)
        } finally {
          net.namespace.sysctl('net/ipv6/bindv6only', 0)
        }
      })
    }

    for (const path of ['fast', 'portable']) {
      test(`IPv6 disabled by sysctl: ${path} UDP: ${program}`, async () => {
        net.namespace.sysctl('net/ipv6/conf/all/disable_ipv6', 1)
        try {
          await scene(program, { udp: { path } }).run(['127.0.0.1'])
        } finally {
          net.namespace.sysctl('net/ipv6/conf/all/disable_ipv6', 0)
        }
      })
    }

    for (const [title, settings] of Object.entries(SETTINGS)) {
      test(`a kernel without IPv6: ${title}: ${program}`, async () => {
        const wrapper = [process.execPath, join(projectRoot, 'testkit/no-ipv6.mjs')]
        const run = scene(program, settings, { wrapper })
        await run.run(['127.0.0.1'])
        const [client = '', server = ''] = run.logs
        for (const [key, port, log] of [
          ['listen', LISTEN_PORT, client],
          ['kcp_bind', UDP_PORT, server],
          ['http_listen', HTTP_PORT, server],
        ] as const) {
          const warnings = log
            .split('\n')
            .filter((line) => line.startsWith('W ') && line.includes(`config key ${key} = "[::]:${port}": this`))
          assert.is(warnings.length, 1, log)
          assert.match(warnings[0] ?? '', 'has no IPv6, 0.0.0.0 is used')
        }
      })
    }

    test(`an obfuscated server on [::] serves IPv6 only, refuses IPv4 and says so: ${program}`, async () => {
      const common = { method: 'xchacha20poly1305_ietf', password: 'a password', obfs: 'dpi/tcp-wnd' }
      const server = await net.start(program, { ...common, kcp_bind: `[::]:${UDP_PORT}`, connect: '127.0.0.1:9' })
      try {
        const cover = await net.dial('::1', UDP_PORT)
        cover.destroy()
        const refusal = await net.dial('127.0.0.1', UDP_PORT).then(String, (error) => String(error))
        assert.match(refusal, 'ECONNREFUSED')
        assert.match(server.log(), /W .*config key kcp_bind = "\[::\]:5200": with obfs it serves IPv6 only/)
      } finally {
        await server.stop()
      }
    })
  }
}

test.run()
