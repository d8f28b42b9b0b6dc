// time limit: 300 s
/** What a user notices of the native host: ends of connections, back-pressure, strangers, names, bad configurations. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { buildNative } from '../../testkit/native.ts'
import { type Config, freePort, type Program, start, writeConfig } from '../../testkit/process.ts'
import { dial, echoTarget, listen, patternDigest } from '../../testkit/tcp.ts'
import { scriptedTarget } from '../../testkit/traffic.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TIMEOUT_MS = 30_000
const BYTES = 200_000
/** More than all buffers of kernels and programs hold. */
const STUCK_BYTES = 40 << 20
/** A sender without progress for this time is stopped by back-pressure. */
const STUCK_MS = 1500
const MIXED: readonly { readonly server: Program; readonly client: Program }[] = [
  { server: 'native', client: 'node' },
  { server: 'node', client: 'native' },
]

const test = suite('native: behaviour')
const built = buildNative()

/** CPU seconds of a process so far. */
function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

function tests(folder: string): void {
  for (const pair of MIXED) {
    test(`a reset at one end ends the connection at the other: ${nameOf(pair)}`, async () => {
      const target = await scriptedTarget()
      await withTunnel({ ...pair, target: target.address, link: { delay: 2 } }, async (tunnel) => {
        const pouring = target.serve((end) => void end.pour(STUCK_BYTES, 5))
        const app = await tunnel.dial()
        await waitFor('the download is in progress', () => app.received > BYTES, TIMEOUT_MS)
        app.reset()
        const end = await pouring
        assert.is((await within('the end at the target', TIMEOUT_MS, end.ending)).bytes, 0)
        end.destroy()

        const reading = target.serve(() => undefined)
        const other = await tunnel.dial()
        const poured = other.pour(STUCK_BYTES, 6)
        const far = await within('the target to be dialled', TIMEOUT_MS, reading)
        await waitFor('the upload is in progress', () => far.received > BYTES, TIMEOUT_MS)
        far.reset()
        assert.is((await within('the end at the application', TIMEOUT_MS, other.ending)).bytes, 0)
        other.destroy()
        await poured
      }).finally(() => target.close())
    })
  }

  test('a target that does not read stops the sender, then gets everything', async () => {
    const target = await listen(({ socket }) => {
      socket.pause()
      socket.once('end', () => socket.end())
    })
    const config = { memory: 16 }
    const options = { server: 'native', client: 'native', target: target.address, config } as const
    await withTunnel(options, async (tunnel) => {
      const app = await tunnel.dial()
      const poured = app.pour(STUCK_BYTES, 7).then(() => app.finish())
      let last = 0
      await waitFor('the sender is stopped', async () => {
        const before = last
        last = app.socket.bytesWritten
        await sleep(STUCK_MS)
        return last > 0 && before === last
      })
      const idle = [tunnel.client, tunnel.server].map(({ pid }) => cpuSeconds(pid))
      await sleep(STUCK_MS)
      for (const [i, { pid }] of [tunnel.client, tunnel.server].entries()) {
        const used = cpuSeconds(pid) - (idle[i] ?? 0)
        assert.ok(used < STUCK_MS / 1000 / 10, `an endpoint that waits for room is idle, not busy: ${used} s of CPU`)
      }
      const end = await target.connection(0)
      end.socket.resume()
      const ending = await within('everything', TIMEOUT_MS, end.ending)
      assert.is(ending.bytes, STUCK_BYTES)
      assert.is(ending.sha256, patternDigest(STUCK_BYTES, 7))
      await poured
      assert.is((await within('a clean end', TIMEOUT_MS, app.ending)).kind, 'fin')
    }).finally(() => target.close())
  })

  test('a client that is stopped resets its connections; so does one whose server was restarted', async () => {
    const target = await echoTarget()
    await withTunnel({ server: 'native', client: 'native', target: target.address }, async (tunnel) => {
      const one = await tunnel.dial({ keep: 10 })
      await one.send('x')
      await waitFor('the echo', () => one.received > 0, TIMEOUT_MS)
      await tunnel.restart('server', 'SIGKILL')
      await one.send('y')
      assert.is((await within('the end after a restart', TIMEOUT_MS, one.ending)).kind, 'reset')

      const two = await tunnel.dial()
      await two.send('x')
      await waitFor('the echo of the next one', () => two.received > 0, TIMEOUT_MS)
      await tunnel.restart('client', 'SIGTERM')
      assert.is((await within('the end after a stop', TIMEOUT_MS, two.ending)).kind, 'reset')
    }).finally(() => target.close())
  })

  test('garbage of strangers causes neither answers nor lines in the log', async () => {
    const target = await echoTarget()
    let answers = 0
    const stranger = createSocket('udp4').on('message', () => answers++)
    const config = { loglevel: 4 }
    await withTunnel({ server: 'native', client: 'native', target: target.address, config }, async (tunnel) => {
      const port = Number(String(tunnel.server.config['kcp_bind']).split(':').pop())
      const logs = tunnel.server.log().length
      for (let length = 0; length <= 3000; length++) {
        stranger.send(randomBytes(length), port, '127.0.0.1')
        // of the server's address, for the client
        tunnel.link.inject(randomBytes(length % 1500), 'down')
        if (length % 50 === 0) await sleep(2)
      }
      const app = await tunnel.dial()
      await app.pour(BYTES, 8)
      app.finish()
      assert.is((await within('the echo', TIMEOUT_MS, app.ending)).sha256, patternDigest(BYTES, 8))
      assert.is(answers, 0)
      assert.is(tunnel.server.log().length, logs)
    }).finally(() => target.close())
    stranger.close()
  })

  test('names are resolved, a refused target ends the connection, and a client outlives a name without address', async () => {
    const psk = randomBytes(32).toString('base64')
    const shared = { method: 'xchacha20poly1305_ietf', psk }
    const port = await freePort()
    const udpPort = await freePort()
    const server = await start('native', {
      kcp_bind: `localhost:${udpPort}`,
      connect: `localhost:${await freePort()}`,
      ...shared,
    })
    const client = await start('native', {
      listen: `localhost:${port}`,
      kcp_connect: `localhost:${udpPort}`,
      ...shared,
    })
    const lost = await start('native', { listen: '127.0.0.1:0', kcp_connect: 'no-such-name.invalid:1', ...shared })
    try {
      await waitFor('the peer is known', () => /udp peer: /.test(client.log()), TIMEOUT_MS)
      const host = /listen: \[/.test(client.log()) ? '::1' : '127.0.0.1'
      const app = await dial(host, port)
      assert.is((await within('the end', TIMEOUT_MS, app.ending)).bytes, 0)
      await waitFor('the failure is logged', () => /dial failed: Connection refused/.test(server.log()), TIMEOUT_MS)
      await waitFor('the unknown name is logged', () => /cannot resolve no-such-name/.test(lost.log()), TIMEOUT_MS)
      // the reset may come before the connection is reported
      const address = /listen: \S+:(\d+)/.exec(lost.log())?.[1]
      const other = dial('127.0.0.1', Number(address)).then(({ ending }) => ending)
      const kind = await within('a reset without peer', TIMEOUT_MS, other).then(
        (ending) => ending.kind,
        (error: NodeJS.ErrnoException) => (error.code === 'ECONNRESET' ? 'reset' : error.message),
      )
      assert.is(kind, 'reset')
      assert.is(lost.status, undefined)
    } finally {
      await Promise.all([server.stop(), client.stop(), lost.stop()])
    }
  })

  for (const wildcard of ['0.0.0.0', '[::]']) {
    test(`a server on ${wildcard} answers from the address that was asked`, async () => {
      const target = await echoTarget()
      const shared = { method: 'aes256gcm', psk: randomBytes(32).toString('base64') }
      const [port, udpPort] = [await freePort(), await freePort()]
      const server = await start('native', { kcp_bind: `${wildcard}:${udpPort}`, connect: target.address, ...shared })
      // not the one that the system selects for answers to 127.0.0.1
      const peer = `127.0.0.2:${udpPort}`
      const client = await start('native', { listen: `127.0.0.1:${port}`, kcp_connect: peer, ...shared })
      try {
        const app = await dial('127.0.0.1', port)
        await app.pour(BYTES, 9)
        app.finish()
        assert.is((await within('the echo', TIMEOUT_MS, app.ending)).sha256, patternDigest(BYTES, 9))
      } finally {
        await Promise.all([server.stop(), client.stop(), target.close()])
      }
    })
  }

  test('a bad configuration is refused with key, value and reason; an unknown key is named', () => {
    const psk = randomBytes(32).toString('base64')
    const client = { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:1', method: 'xchacha20poly1305_ietf', psk }
    const { psk: _, ...keyless } = client
    const cases: readonly (readonly [Config | string, RegExp])[] = [
      ['{"listen": ', /^E \S+ config file \S+: line 1, column \d+: /],
      ['{"timeout": 60, "timeout": 60}', /duplicate object key near '"timeout"/],
      [{ ...client, timeout: 59 }, /config key timeout = 59: must be an integer from 60 to 86400/],
      [{ ...client, kcp: { mtu: 1501 } }, /config key kcp\.mtu = 1501: must be an integer from 300 to 1500/],
      [{ ...client, keepalive: 2.5 }, /config key keepalive = 2\.5: must be an integer/],
      [{ ...client, tcp: { nodelay: 1 } }, /config key tcp\.nodelay = 1: must be true or false/],
      [{ ...client, tcp: 1 }, /config key tcp = 1: must be an object/],
      [{ ...client, method: 'rot13' }, /config key method = rot13: must be one of xchacha20poly1305_ietf, /],
      [{ ...client, psk: 'AAAA' }, /config key psk = \(hidden\): must be 32 bytes in standard Base64/],
      [{ ...client, password: 'x' }, /config key psk = \(hidden\): conflicts with password/],
      [keyless, /config key psk: missing/],
      [{ ...client, obfs: 'dpi/tcp' }, /config key obfs = "dpi\/tcp": not supported/],
      [{ ...client, kcp_connect: '::1:5' }, /config key kcp_connect = ::1:5: an IPv6 address must be in brackets/],
      [{ ...client, listen: '127.0.0.1:65536' }, /config key listen = 127\.0\.0\.1:65536: the port must be/],
      [{ ...client, connect: '127.0.0.1:1' }, /config key listen = 127\.0\.0\.1:0: conflicts with connect/],
      [
        { ...client, listen: '192.0.2.1:1' },
        /W \S+ config key speed: unknown.*\n.*listen: cannot open 192\.0\.2\.1:1: /,
      ],
    ]
    for (const [config, message] of cases) {
      const file = writeConfig(typeof config === 'string' ? config : { speed: 1, ...config })
      const { status, stdout } = spawnSync(join(folder, 'kcptun-wasm-native'), ['-c', file.path], {
        encoding: 'utf8',
        timeout: TIMEOUT_MS,
      })
      file.remove()
      assert.match(stdout, message)
      assert.is(status, 1, stdout)
      assert.not.ok(stdout.includes(psk))
    }
  })
}

if ('reason' in built) skip(test, 'behaviour', built.reason)
else tests(built.folder)

test.run()
