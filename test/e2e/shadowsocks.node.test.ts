// time limit: 300 s
/**
 * The program as a SIP003 plugin of shadowsocks-libev: curl through ss-local, two plugins and ss-server to an HTTP
 * server; what ends a plugin; and what it says about mistakes.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { commandOf, freePort, libevPath, type Program, run, start } from '../../testkit/process.ts'
import { digest } from '../../testkit/tcp.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const PSK = randomBytes(32).toString('base64')
const METHOD = 'xchacha20poly1305_ietf'
const BODY = randomBytes(2_000_000)
/** For a machine that is busy with other tests. */
const LIMIT_MS = 60_000

const test = suite('shadowsocks')

const missing = ['ss-server', 'ss-local', 'curl'].filter((name) => spawnSync('which', [name]).status !== 0)
const problem =
  process.platform !== 'linux'
    ? 'shadowsocks-libev is for Linux here'
    : missing.length > 0
      ? `${missing.join(', ')} not installed (apt-get install shadowsocks-libev curl)`
      : undefined

const folder = mkdtempSync(join(tmpdir(), 'kcptun-wasm-ss-'))
const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

/** The executable that shadowsocks starts: it takes a path alone. */
function pluginOf(program: Program): string {
  const path = join(folder, program)
  // one that is being executed cannot be written
  if (existsSync(path)) return path
  const words = commandOf(program).map((word) => `'${word}'`)
  writeFileSync(path, `#!/bin/sh\nexec ${words.join(' ')} "$@"\n`)
  chmodSync(path, 0o755)
  return path
}

/** ss-local or ss-server. */
class Shadowsocks {
  readonly child: ChildProcess
  #log = ''

  constructor(name: 'ss-local' | 'ss-server', words: readonly string[]) {
    this.child = spawn(name, ['-k', 'password', '-m', 'aes-256-gcm', ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    running.add(this.child)
    for (const stream of [this.child.stdout, this.child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => (this.#log += text))
    this.child.once('close', () => running.delete(this.child))
  }

  get log(): string {
    return this.#log
  }

  logs(what: RegExp): Promise<void> {
    return waitFor(
      `log: ${what}`,
      () => what.test(this.#log),
      LIMIT_MS,
      () => this.#log,
    )
  }

  /** Process id of the plugin. */
  plugin(): number {
    const { pid } = this.child
    const [plugin = ''] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
    return Number(plugin)
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal)
    await waitFor('shadowsocks ends', () => !running.has(this.child), LIMIT_MS)
  }
}

interface Ends {
  readonly server: Program
  readonly client: Program
  /** Options of the plugins. */
  readonly options?: string
  readonly serverWords?: readonly string[]
  readonly hosts?: readonly string[]
}

/** Runs a body with ss-server and ss-local, each with its plugin, which have logged that they run. */
async function withBoth(
  { server, client, options = `psk=${PSK}`, serverWords = [], hosts = ['127.0.0.1'] }: Ends,
  body: (server: Shadowsocks, client: Shadowsocks, socks: string, port: number) => Promise<void>,
): Promise<void> {
  const [port, socks] = [await freePort(), await freePort()]
  const addresses = hosts.flatMap((host) => ['-s', host])
  const common = [...addresses, '-p', String(port)]
  const one = new Shadowsocks('ss-server', [
    ...common,
    ...['--plugin', pluginOf(server), '--plugin-opts', `server;${options}`, ...serverWords],
  ])
  const two = new Shadowsocks('ss-local', [
    ...common,
    ...['-b', '127.0.0.1', '-l', String(socks), '--plugin', pluginOf(client), '--plugin-opts', options],
  ])
  try {
    await one.logs(/server start|workers start|tunnels start/)
    await two.logs(/connected: /)
    await body(one, two, `socks5h://127.0.0.1:${socks}`, port)
  } finally {
    for (const each of [one, two]) await each.stop('SIGKILL')
  }
}

/** What curl gets through the proxy from an HTTP server. */
async function curl(proxy: string): Promise<Buffer> {
  const web = createServer((_, response) => response.end(BODY))
  await new Promise<void>((done) => web.listen(0, '127.0.0.1', done))
  try {
    const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/`
    return await new Promise<Buffer>((done, fail) => {
      const words = ['-sS', '--max-time', String(LIMIT_MS / 1000), '--noproxy', '', '-x', proxy, url]
      execFile('curl', words, { encoding: 'buffer', maxBuffer: 1 << 26 }, (error, body) =>
        error === null ? done(body) : fail(error),
      )
    })
  } finally {
    web.close()
  }
}

const works = async (proxy: string): Promise<void> => assert.is(digest(await curl(proxy)), digest(BODY))

async function isFree(port: number): Promise<boolean> {
  const socket = createSocket('udp4')
  return new Promise((done) => {
    socket.once('error', () => done(false))
    socket.bind(port, '127.0.0.1', () => socket.close(() => done(true)))
  })
}

const isGone = (pid: number): Promise<void> =>
  waitFor(`process ${pid} ends`, () => !existsSync(`/proc/${pid}/exe`) || isZombie(pid), LIMIT_MS)

const isZombie = (pid: number): boolean => {
  try {
    return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return true
  }
}

function pairs(program: Program): void {
  const other = program === 'node' ? 'bun' : 'node'

  test(`curl through shadowsocks and its plugins: ${program} client, ${other} server`, () =>
    withBoth({ client: program, server: other }, async (server, client, proxy) => {
      await works(proxy)
      assert.match(client.log, /SIP003 plugin of shadowsocks, client, listening on 127\.0\.0\.1:\d+/)
      assert.match(server.log, /SIP003 plugin of shadowsocks, server, with its target at 127\.0\.0\.1:\d+/)
      for (const { log } of [server, client]) assert.not.match(log, PSK.slice(0, 12), 'no key in the log')
      for (const pid of [server.plugin(), client.plugin()])
        assert.not.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), PSK.slice(0, 12), 'no key in the arguments')
      const [one, two] = [server.plugin(), client.plugin()]
      await server.stop('SIGTERM')
      await client.stop('SIGTERM')
      for (const pid of [one, two]) await isGone(pid)
      assert.match(server.log, /SIGTERM received, stopping/)
    }))

  test(`over IPv6, with two workers: ${program} client, ${other} server`, () =>
    withBoth(
      { client: program, server: other, hosts: ['::1'], options: `workers=2;psk=${PSK}` },
      async (server, _, proxy) => {
        assert.match(server.log, /udp bind: \[::1\]:|kcp_bind.*\[::1\]:|\[::1\]:\d+/)
        await works(proxy)
      },
    ))

  for (const [how, options] of [
    ['its descriptor reports it', ''],
    ['it is looked at', 'native=false;'],
    ['with workers', 'workers=2;'],
  ] as const) {
    test(`killed shadowsocks takes its plugin along: ${how}: ${program}`, () =>
      withBoth(
        { client: program, server: program, options: `${options}psk=${PSK}` },
        async (server, client, proxy, port) => {
          await works(proxy)
          for (const end of [client, server]) {
            const pid = end.plugin()
            await end.stop('SIGKILL')
            await isGone(pid)
          }
          await waitFor('the port is free', () => isFree(port), LIMIT_MS)
        },
      ))
  }

  test(`the UDP relay of ss-server has the port: the message says so, and port= helps: ${program}`, async () => {
    const port = await freePort()
    const words = ['-s', '127.0.0.1', '-p', String(port), '-u', '--plugin', pluginOf(program), '--plugin-opts']
    const refused = new Shadowsocks('ss-server', [...words, `server;psk=${PSK}`])
    await refused.logs(/EADDRINUSE.*"mode": "tcp_only".*port=/)
    await waitFor('ss-server ends with its plugin', () => !running.has(refused.child), LIMIT_MS)
    const options = `port=${await freePort()};psk=${PSK}`
    await withBoth({ client: program, server: program, options, serverWords: ['-u'] }, async (_one, _two, proxy) =>
      works(proxy),
    )
  })

  test(`bad options end the plugin, and with it shadowsocks: ${program}`, async () => {
    const words = ['-s', '127.0.0.1', '-p', '9', '-l', String(await freePort()), '--plugin', pluginOf(program)]
    for (const [options, message] of [
      ['kcp.mtu=10', /F .*option kcp\.mtu = 10: must be an integer from 300 to 1500/],
      ['mtu=1400', /F .*option mtu is unknown, did you mean kcp\.mtu\?/],
      ['method=rot13;psk=secret-text', /F .*option method = "rot13": unknown method/],
      ['psk=secret-text', /F .*option psk = \(hidden\): must be 32 bytes/],
      ['config=/nowhere.json', /F .*config file \/nowhere\.json: no such file/],
    ] as const) {
      const one = new Shadowsocks('ss-local', [...words, '--plugin-opts', options])
      await one.logs(message)
      await waitFor('ss-local ends with its plugin', () => !running.has(one.child), LIMIT_MS)
      assert.not.match(one.log, 'secret-text')
    }
  })

  test(`a file has further keys, and is read again at SIGHUP: ${program}`, async () => {
    const path = join(folder, `${program}.json`)
    writeFileSync(path, JSON.stringify({ method: METHOD, psk: PSK, kcp: { mtu: 1300 } }), { mode: 0o600 })
    await withBoth({ client: program, server: other, options: `config=${path}` }, async (_, client, proxy) => {
      await works(proxy)
      writeFileSync(path, JSON.stringify({ method: METHOD, psk: PSK, kcp: { mtu: 10 } }))
      process.kill(client.plugin(), 'SIGHUP')
      await client.logs(/reload failed, keeping the old configuration: .*kcp\.mtu = 10/)
      writeFileSync(path, JSON.stringify({ method: METHOD, psk: PSK, kcp: { mtu: 1200 } }))
      process.kill(client.plugin(), 'SIGHUP')
      await client.logs(/config successfully reloaded/)
      await works(proxy)
    })
  })

  const withLibev = `kcptun-libev in front of ss-server, the plugin at the client alone: ${program}`
  if (libevPath === undefined) skip(test, withLibev, 'KCPTUN_LIBEV is not set')
  else
    test(withLibev, async () => {
      const [port, inner, socks] = [await freePort(), await freePort(), await freePort()]
      const server = await start('libev', {
        kcp_bind: `127.0.0.1:${port}`,
        connect: `127.0.0.1:${inner}`,
        method: METHOD,
        psk: PSK,
      })
      const shadow = new Shadowsocks('ss-server', ['-s', '127.0.0.1', '-p', String(inner)])
      const client = new Shadowsocks('ss-local', [
        ...['-s', '127.0.0.1', '-p', String(port), '-l', String(socks)],
        ...['--plugin', pluginOf(program), '--plugin-opts', `method=${METHOD};psk=${PSK}`],
      ])
      try {
        await client.logs(/connected: /)
        await works(`socks5h://127.0.0.1:${socks}`)
      } finally {
        for (const one of [client, shadow]) await one.stop('SIGKILL')
        await server.stop()
      }
    })

  test(`a config file on the command line wins over the environment: ${program}`, async () => {
    const path = join(folder, `${program}-own.json`)
    writeFileSync(path, JSON.stringify({ connect: '127.0.0.1:9', kcp_bind: 'nonsense', method: METHOD, psk: PSK }))
    const { code, stdout } = await run(program, ['-c', path], ['env', 'SS_REMOTE_HOST=x', 'SS_LOCAL_PORT=1'])
    assert.is(code, 1)
    assert.match(stdout, /config key kcp_bind = "nonsense"/)
    const alone = await run(program, [], ['env', 'SS_REMOTE_HOST=x', 'SS_LOCAL_PORT=1'])
    assert.is(alone.code, 1)
    assert.match(alone.stdout, /F .*SS_REMOTE_PORT, SS_LOCAL_HOST: missing/)
  })
}

if (problem === undefined) {
  for (const program of ['node', 'bun', 'deno'] as const) pairs(program)

  test('both addresses of ss-server are served', () =>
    withBoth({ client: 'node', server: 'bun', hosts: ['127.0.0.1', '::1'] }, async (server, client, proxy) => {
      await works(proxy)
      assert.match(server.log, /udp bind: \[::1\]:/)
      assert.match(server.log, /udp bind: 127\.0\.0\.1:/)
      assert.match(client.log, /\[::1\]:/)
    }))
} else skip(test, 'all', problem)

test.run()
