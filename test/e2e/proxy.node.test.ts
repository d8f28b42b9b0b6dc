// time limit: 240 s
/** A server that is a proxy itself: `connect` socks5 and http, as curl and other clients use them through a tunnel. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { freePort, httpGet, libevPath, type Program, type Running } from '../../testkit/process.ts'
import { echoTarget, patternDigest, type TcpEnd } from '../../testkit/tcp.ts'
import { scriptedTarget } from '../../testkit/traffic.ts'
import { openTunnel, type Tunnel, type TunnelOptions, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT_MS = 30_000
const BYTES = 300_000
const LOCAL = ['allow 127.0.0.0/8', 'allow [::1]']
/** Greeting without authentication. */
const HELLO = [5, 1, 0]

const test = suite('proxy')

/** Server and client at the two ends. */
const ENDS: readonly { server: Program; client: Program }[] = [
  { server: 'node', client: 'bun' },
  { server: 'bun', client: 'node' },
  { server: 'deno', client: 'node' },
]

const request = (address: readonly number[], port: number, command = 1): Uint8Array =>
  Uint8Array.of(5, command, 0, ...address, port >> 8, port & 255)
const byName = (name: string): number[] => [3, name.length, ...Buffer.from(name)]
const LOOPBACK = [1, 127, 0, 0, 1]

const countersOf = async (running: Running): Promise<Record<string, number>> =>
  JSON.parse(await httpGet(`http://${running.config['http_listen']}/stats.json`)).host

/** The reply code of a request by SOCKS5. */
async function replyTo(tunnel: Tunnel, bytes: Uint8Array): Promise<number | undefined> {
  const app = await tunnel.dial()
  await app.send(Uint8Array.of(...HELLO, ...bytes))
  await within(
    'the reply',
    LIMIT_MS,
    Promise.race([app.ending, waitFor('12 bytes', () => app.received >= 12, LIMIT_MS)]),
  )
  app.destroy()
  return app.bytes()[3]
}

function curl(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((done) => {
    const all = ['-sS', '--max-time', '30', ...words]
    execFile('curl', all, (error, out, err) => done({ code: error === null ? 0 : Number(error.code), out, err }))
  })
}
const hasCurl = await curl('--version').then(({ code }) => code === 0)

/** Runs a body with a tunnel whose server is a proxy, and an HTTP server as target. */
async function withProxy(
  options: Omit<TunnelOptions, 'target'> & { kind: 'socks5' | 'http' },
  body: (tunnel: Tunnel, page: number) => Promise<void>,
): Promise<void> {
  const server = createServer((_, response) => response.end('a page'))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const serverConfig = { proxy_rules: LOCAL, ...options.serverConfig }
  const { port } = server.address() as AddressInfo
  await withTunnel({ ...options, serverConfig, target: options.kind }, (tunnel) => body(tunnel, port)).finally(() =>
    server.close(),
  )
}

/** Everything that is answered to a request. */
function answerTo(port: number, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    connect(port, '127.0.0.1')
      .on('data', (bytes) => (text += bytes))
      .on('end', () => resolve(text))
      .on('error', reject)
      .write(request)
  })
}

for (const ends of ENDS) {
  const title = `${ends.server} server`
  const name = `curl fetches pages by SOCKS5 and by CONNECT: ${title}`
  if (!hasCurl) skip(test, name, 'there is no curl here')
  else
    test(name, async () => {
      await withProxy({ ...ends, kind: 'socks5' }, async ({ port, server }, page) => {
        for (const how of ['--socks5-hostname', '--socks5']) {
          const { out, err } = await curl(how, `127.0.0.1:${port}`, `http://localhost:${page}/`)
          assert.is(out, 'a page', `${how}: ${err}`)
        }
        const refused = await curl('--socks5-hostname', `127.0.0.1:${port}`, 'http://10.1.2.3/')
        assert.is.not(refused.code, 0)
        await waitFor('it is logged', () => server.log().includes('10.1.2.3:80 is denied (private'))
      })
      await withProxy({ ...ends, kind: 'http' }, async ({ port }, page) => {
        const good = await curl('-x', `http://127.0.0.1:${port}`, '--proxytunnel', `http://localhost:${page}/`)
        assert.is(good.out, 'a page', good.err)
        const plain = await curl('-x', `http://127.0.0.1:${port}`, '-w', '%{http_code}', `http://localhost:${page}/`)
        assert.match(plain.out, /CONNECT only.*405$/s)
        const denied = await curl('-p', '-x', `http://127.0.0.1:${port}`, 'http://169.254.169.254/latest/')
        assert.match(denied.err, /403/)
        const told = await answerTo(port, 'CONNECT 10.1.2.3:80 HTTP/1.1\r\n\r\n')
        assert.match(told, /403.*denied by the rules of this proxy/s)
        assert.not.match(told, /private/)
      })
      const serverConfig = { proxy_users: { alice: 'pa:ss', bob: 'x' } }
      await withProxy({ ...ends, kind: 'http', serverConfig }, async ({ port, server }, page) => {
        const ask = (user: string) => curl('-p', '-x', `http://${user}127.0.0.1:${port}`, `http://localhost:${page}/`)
        assert.is((await ask('alice:pa%3Ass@')).out, 'a page')
        assert.match((await ask('alice:guessed@')).err, /407/)
        assert.match((await ask('')).err, /407/)
        assert.is((await countersOf(server))['proxy_auth_failures'], 2)
        assert.not.match(server.log(), /pa:ss|guessed/)
      })
      await withProxy({ ...ends, kind: 'socks5', serverConfig }, async ({ port }, page) => {
        const ask = (user: string) => curl('-x', `socks5h://${user}127.0.0.1:${port}`, `http://localhost:${page}/`)
        assert.is((await ask('bob:x@')).out, 'a page')
        assert.is.not((await ask('bob:y@')).code, 0)
        assert.is.not((await ask('')).code, 0)
      })
    })

  test(`bytes sent with the request arrive, both directions end separately, and replies name the failure: ${title}`, async () => {
    const target = await scriptedTarget()
    const port = Number(target.address.split(':')[1])
    const nobody = await freePort()
    await withTunnel({ ...ends, target: 'socks5', serverConfig: { proxy_rules: LOCAL } }, async (tunnel) => {
      const accepted = target.serve((end) => {
        end.socket.once('end', () => void end.pour(BYTES, 2).then(() => end.finish()))
      })
      const app = await tunnel.dial()
      // a client that does not wait for answers
      await app.send(Uint8Array.of(...HELLO, ...request(LOOPBACK, port)))
      await app.pour(BYTES, 1)
      app.finish()
      const end = await within('the dial', LIMIT_MS, accepted)
      assert.is((await within('the upload', LIMIT_MS, end.ending)).sha256, patternDigest(BYTES, 1))
      const { kind, bytes } = await within('the download', LIMIT_MS, app.ending)
      assert.equal([kind, bytes], ['fin', 2 + 10 + BYTES])

      assert.is(await replyTo(tunnel, request(LOOPBACK, nobody)), 5, 'refused')
      assert.is(await replyTo(tunnel, request([1, 10, 0, 0, 1], 80)), 2, 'not allowed')
      assert.is(await replyTo(tunnel, request(byName('does-not-exist.invalid'), 80)), 4, 'host unreachable')
      assert.is(await replyTo(tunnel, request(LOOPBACK, port, 3)), 7, 'UDP ASSOCIATE')
      // ::ffff:10.0.0.1 and 64:ff9b::10.0.0.1
      const inside = [10, 0, 0, 1]
      const mapped = [4, ...new Array(10).fill(0), 255, 255, ...inside]
      assert.is(await replyTo(tunnel, request(mapped, 80)), 2)
      assert.is(await replyTo(tunnel, request([4, 0, 0x64, 0xff, 0x9b, ...new Array(8).fill(0), ...inside], 80)), 2)
      const counters = await countersOf(tunnel.server)
      assert.equal([counters['proxy_denied'], counters['proxy_bad_requests']], [3, 1])
      assert.is(counters['tcp_dial_failures'], 2)
    }).finally(() => target.close())
  })
}

for (const program of ['node', 'bun'] as const) {
  test(`many clients that never finish their request hold nothing else, and a reload changes the rules: ${program}`, async () => {
    const target = await echoTarget()
    const port = target.port
    const workers = process.platform === 'linux' ? 2 : 1
    const options = { server: program, client: program, target: 'socks5', serverConfig: { workers } } as const
    await withTunnel(options, async (tunnel) => {
      const idle: TcpEnd[] = []
      for (let i = 0; i < 200; i++) idle.push(await tunnel.dial())
      for (const [i, end] of idle.entries()) if (i % 2 === 0) await end.send(Uint8Array.of(5))
      assert.is(await replyTo(tunnel, request(LOOPBACK, port)), 2, 'denied by default')
      const reload = async (change: object): Promise<void> => {
        const count = (): number => tunnel.server.log().split('config successfully reloaded').length
        const before = count()
        tunnel.server.reload({ ...change })
        await waitFor('the reload', () => count() > before, LIMIT_MS, tunnel.server.log)
      }
      await reload({ proxy_rules: [`allow 127.0.0.1:${port}`] })
      assert.is(await replyTo(tunnel, request(LOOPBACK, port)), 0)
      assert.is(await replyTo(tunnel, request(byName('localhost'), port)), 0)
      await reload({ connect: `127.0.0.1:${port}` })
      const app = await tunnel.dial()
      await app.send('echo')
      await waitFor('the target itself', () => app.received === 4, LIMIT_MS)
      app.destroy()
      for (const end of idle) end.destroy()
    }).finally(() => target.close())
  })
}

const interop = 'a kcptun-libev client before a server that is a proxy'
if (libevPath === undefined) skip(test, interop, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
else
  for (const server of ['node', 'bun'] as const)
    test(`${interop}: ${server}`, async () => {
      const target = await echoTarget()
      const psk = randomBytes(32).toString('base64')
      const config = { method: 'xchacha20poly1305_ietf', psk }
      const serverConfig = { proxy_rules: LOCAL, ...config }
      const tunnel = await openTunnel({ server, client: 'libev', target: 'socks5', serverConfig, clientConfig: config })
      try {
        assert.is(await replyTo(tunnel, request(LOOPBACK, target.port)), 0)
        const app = await tunnel.dial()
        await app.send(Uint8Array.of(...HELLO, ...request(byName('localhost'), target.port), ...Buffer.from('early')))
        await waitFor('the echo', () => app.received === 2 + 10 + 5, LIMIT_MS)
        assert.is(app.text().slice(-5), 'early')
        app.destroy()
      } finally {
        await tunnel.close()
        await target.close()
      }
    })

test.run()
