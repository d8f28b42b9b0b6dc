// time limit: 240 s
/** The PROXY protocol through a tunnel: written by a client or a server, accepted at `listen`. */
import { randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { httpGet, libevPath, type Program, type Running } from '../../testkit/process.ts'
import { dial, listen, type Target, type TcpEnd } from '../../testkit/tcp.ts'
import { openTunnel, type Tunnel, withTunnel } from '../../testkit/tunnel.ts'
import { dialAt, socketFolder } from '../../testkit/unix.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT_MS = 30_000
const test = suite('PROXY protocol')
const ENDS: readonly { server: Program; client: Program }[] = [
  { server: 'node', client: 'bun' },
  { server: 'bun', client: 'node' },
  { server: 'node', client: 'deno' },
]

/** A target that speaks at once, and answers with the end of what it reads. */
const openTarget = (host = '127.0.0.1'): Promise<Target> =>
  listen(
    (end) => {
      const ignore = (): void => {}
      void end.send('welcome').catch(ignore)
      end.socket.once('end', () => void end.send('bye').then(() => end.finish(), ignore))
    },
    { host },
  )

const portOf = (end: TcpEnd): number => end.socket.localPort ?? 0

/** Sends and ends in one go. @returns what the target got */
async function exchange(tunnel: Tunnel, target: Target, send: string, app?: TcpEnd): Promise<string> {
  const index = target.connections.length
  const own = app ?? (await tunnel.dial())
  if (send !== '') await own.send(Buffer.from(send, 'latin1'))
  own.finish()
  const end = await within('the dial', LIMIT_MS, target.connection(index))
  assert.is((await within('the upload', LIMIT_MS, end.ending)).kind, 'fin')
  assert.is((await within('the answer', LIMIT_MS, own.ending)).kind, 'fin')
  assert.is(own.text(), 'welcomebye')
  return end.text()
}

const stats = async (running: Running) =>
  JSON.parse(await httpGet(`http://${running.config['http_listen']}/stats.json`)) as {
    host: Record<string, number>
    sessions: { tcp_peer: string | null }[]
  }

/** The addresses in a header of version 2 for IPv4. */
function binaryEnds(header: string): string {
  const bytes = Buffer.from(header, 'latin1')
  assert.is(bytes.subarray(0, 16).toString('hex'), '0d0a0d0a000d0a515549540a2111000c')
  const ip = (at: number): string => bytes.subarray(at, at + 4).join('.')
  return `${ip(16)} ${ip(20)} ${bytes.readUInt16BE(24)} ${bytes.readUInt16BE(26)}`
}

for (const ends of ENDS) {
  test(`a client writes who the application is, before any byte of either side: ${ends.client}`, async () => {
    const target = await openTarget()
    for (const version of [1, 2]) {
      const options = { ...ends, target: target.address, clientConfig: { proxy_protocol: version } }
      await withTunnel(options, async (tunnel) => {
        for (const data of ['hello', '']) {
          const app = await tunnel.dial()
          const wanted = `127.0.0.1 127.0.0.1 ${portOf(app)} ${tunnel.port}`
          const got = await exchange(tunnel, target, data, app)
          if (version === 1) assert.is(got, `PROXY TCP4 ${wanted}\r\n${data}`)
          else {
            assert.is(binaryEnds(got), wanted)
            assert.is(got.slice(28), data)
          }
        }
        // a target that speaks first gets the header at once
        const waiting = await tunnel.dial()
        await waitFor('the welcome', () => waiting.received > 0, LIMIT_MS)
        await waitFor('the header', () => (target.connections.at(-1)?.received ?? 0) > 27, LIMIT_MS)
        waiting.destroy()
      })
    }
    await target.close()
  })

  test(`a server writes who the client is: ${ends.server}`, async () => {
    const target = await openTarget()
    const options = { ...ends, target: target.address, serverConfig: { proxy_protocol: 1, workers: 1 } }
    await withTunnel(options, async (tunnel) => {
      const got = await exchange(tunnel, target, 'hello')
      const udp = String(tunnel.server.config['kcp_bind']).split(':')[1]
      assert.match(got, new RegExp(`^PROXY TCP4 127\\.0\\.0\\.1 127\\.0\\.0\\.1 \\d+ ${udp}\r\nhello$`))
      // a reload ends it
      tunnel.server.reload({ proxy_protocol: 2 })
      await waitFor('the reload', () => tunnel.server.log().includes('successfully reloaded'), LIMIT_MS)
      assert.match(binaryEnds(await exchange(tunnel, target, 'x')), new RegExp(`^127.0.0.1 127.0.0.1 \\d+ ${udp}$`))
    }).finally(() => target.close())
  })

  test(`a client takes the address of a listed proxy from its header: ${ends.client}`, async () => {
    const target = await openTarget()
    const clientConfig = { proxy_protocol: 1, proxy_protocol_from: ['127.0.0.1'] }
    await withTunnel({ ...ends, target: target.address, clientConfig }, async (tunnel) => {
      const line = 'PROXY TCP6 2001:db8::7 2001:db8::8 7000 443\r\n'
      const app = await tunnel.dial()
      for (const part of [line.slice(0, 9), line.slice(9, -1), `${line.slice(-1)}hel`]) {
        await app.send(part)
        await new Promise((done) => setTimeout(done, 30))
      }
      await waitFor(
        'the visitor is shown',
        async () => (await stats(tunnel.client)).sessions.some(({ tcp_peer }) => tcp_peer === '[2001:db8::7]:7000'),
        LIMIT_MS,
      )
      assert.is(await exchangeRest(tunnel, target, app), `${line}hello`)

      const binary = `\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x09\x08\x07\x06\x05\x04\x03\x02\x01\x00\x02\x00`
      assert.is(await exchange(tunnel, target, `${binary}data`), 'PROXY TCP4 9.8.7.6 5.4.3.2 256 512\r\ndata')
      const local = await tunnel.dial()
      const own = `PROXY TCP4 127.0.0.1 127.0.0.1 ${portOf(local)} ${tunnel.port}\r\ndata`
      assert.is(await exchange(tunnel, target, '\r\n\r\n\0\r\nQUIT\n\x20\0\0\0data', local), own)

      const wrong = await tunnel.dial()
      await wrong.send('GET / HTTP/1.1\r\n\r\n')
      assert.is((await within('its end', LIMIT_MS, wrong.ending)).kind, 'reset')
      const early = await tunnel.dial()
      await early.send('PROXY TCP4 ')
      early.finish()
      assert.is.not((await within('its end', LIMIT_MS, early.ending)).bytes, 1)
      await waitFor('both are counted', async () => (await stats(tunnel.client)).host['proxy_header_errors'] === 2)
      // others are taken as they are
      tunnel.client.reload({ proxy_protocol_from: ['10.0.0.0/8'] })
      await waitFor('the reload', () => tunnel.client.log().includes('successfully reloaded'), LIMIT_MS)
      assert.match(await exchange(tunnel, target, line), /^PROXY TCP4 127.*\r\nPROXY TCP6 2001/)
    }).finally(() => target.close())
  })
}

/** Sends the rest and ends. @returns what the target got */
async function exchangeRest(tunnel: Tunnel, target: Target, app: TcpEnd): Promise<string> {
  await waitFor('the dial', () => target.connections.length > 0, LIMIT_MS, tunnel.server.log)
  await app.send('lo')
  app.finish()
  const end = await within('the dial', LIMIT_MS, target.connection(0))
  await within('the upload', LIMIT_MS, end.ending)
  return end.text()
}

for (const program of ['node', 'bun'] as const) {
  test(`visitors of Unix sockets are unknown unless a header says who they are, mapped ones are IPv4: ${program}`, async () => {
    const target = await openTarget()
    const folder = socketFolder()
    const ends = { server: program, client: program, target: target.address }
    const unix = { listen: `unix:${folder.at('a.sock')}` }
    for (const [more, sent, wanted] of [
      [{}, 'hi', 'PROXY UNKNOWN\r\nhi'],
      [
        { proxy_protocol_from: ['unix'] },
        'PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nhi',
        'PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nhi',
      ],
    ] as const)
      await withTunnel({ ...ends, clientConfig: { ...unix, proxy_protocol: 1, ...more } }, async (tunnel) => {
        assert.is(await exchange(tunnel, target, sent, await dialAt(folder.at('a.sock'))), wanted)
      })
    const both = await openTunnel({ ...ends, clientConfig: { proxy_protocol: 1, listen: '[::]:0' } })
    const port = Number(/tcp listen: \[::\]:(\d+)/.exec(both.client.log())?.[1])
    try {
      for (const [host, kind] of [
        ['127.0.0.1', `TCP4 127.0.0.1 127.0.0.1`],
        ['::1', 'TCP6 ::1 ::1'],
      ] as const) {
        const app = await dial(host, port)
        const wanted = `PROXY ${kind} ${portOf(app)} ${port}\r\nhi`
        assert.is(await exchange(both, target, 'hi', app), wanted)
      }
    } finally {
      await both.close()
      await target.close()
      folder.remove()
    }
  })

  const interop = `the other end may be kcptun-libev: ${program}`
  if (libevPath === undefined) skip(test, interop, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
  else
    test(interop, async () => {
      const target = await openTarget()
      const key = { method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64') }
      for (const [server, client, where] of [
        ['libev', program, 'clientConfig'],
        [program, 'libev', 'serverConfig'],
      ] as const) {
        const options = { server, client, target: target.address, config: key, [where]: { proxy_protocol: 1 } }
        const tunnel = await openTunnel(options)
        try {
          const app = await tunnel.dial()
          await app.send('hello')
          await waitFor('the welcome', () => app.received > 0, LIMIT_MS)
          const end = target.connections.at(-1)
          await waitFor('the bytes', () => end?.text().endsWith('hello') === true, LIMIT_MS)
          assert.match(end?.text() ?? '', /^PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+\r\nhello$/)
          app.destroy()
        } finally {
          await tunnel.close()
        }
      }
      await target.close()
    })
}

test.run()
