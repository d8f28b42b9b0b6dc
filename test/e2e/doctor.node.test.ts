// time limit: 180 s
/** `kcptun-wasm doctor` as run by a user: its verdict on paths that are good, bad or broken in known ways. */
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { examine as examineConfig } from '../../host/cli/doctor/run.ts'
import { parseConfig } from '../../host/config/load.ts'
import type { Runtime } from '../../host/runtime.ts'
import { crypto } from '../../runtime-node/crypto.ts'
import { nodeRuntime } from '../../runtime-node/runtime.ts'
import { type LinkOptions, openLink } from '../../testkit/link.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, freePort, libevPath, type Program, run, start, writeConfig } from '../../testkit/process.ts'
import { echoTarget, sinkTarget } from '../../testkit/tcp.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const KEY: Config = { method: 'xchacha20poly1305_ietf', psk: Buffer.alloc(32, 7).toString('base64') }
const OTHER_KEY: Config = { ...KEY, psk: Buffer.alloc(32, 8).toString('base64') }
/** Longest UDP payload that passes the black hole, bytes. */
const HOLE_BYTES = 1200
const UDP_HEADERS_BYTES = 28
const MTU_DEFAULT = 1400
/** Time within which a server reports a session that was reset, ms. */
const RESET_MS = 2000

interface Finding {
  readonly name: string
  readonly status: string
  readonly text: string
  readonly remedies: readonly string[]
  readonly values: Readonly<Record<string, number | string | boolean | null>>
}

interface Diagnosis {
  readonly status: number | null
  readonly verdict: string
  readonly text: string
  finding(name: string): Finding
}

const test = suite('doctor')

/** Runs the doctor with a configuration. */
async function doctor(program: Program, config: Config, seconds = 1): Promise<Diagnosis> {
  const file = writeConfig(config)
  const args = ['doctor', '-c', file.path, '--json', '--seconds', String(seconds)]
  const { code, stdout, stderr } = await run(program, args).finally(() => file.remove())
  assert.is(stderr, '', 'nothing but the report')
  assert.not.ok(stdout.includes(String(KEY['psk']).slice(0, 20)), 'the key is not shown')
  const { verdict, findings }: { verdict: string; findings: Finding[] } = JSON.parse(stdout)
  assert.is(code, { healthy: 0, broken: 1, degraded: 2 }[verdict], stdout)
  return {
    status: code,
    verdict,
    text: stdout,
    finding(name) {
      const found = findings.find((finding) => finding.name === name)
      if (found === undefined) throw new Error(`no finding ${name} in ${stdout}`)
      return found
    },
  }
}

interface Setting {
  readonly server: Program
  readonly link?: Omit<LinkOptions, 'target'>
  readonly serverConfig?: Config
}

/** Starts a server behind a link and returns the doctor's report on it. */
async function examine(program: Program, setting: Setting, clientConfig: Config, seconds?: number): Promise<Diagnosis> {
  const target = await sinkTarget()
  const port = await freePort()
  const config = { ...KEY, ...setting.serverConfig }
  const server = await start(setting.server, { ...config, kcp_bind: `127.0.0.1:${port}`, connect: target.address })
  const link = await openLink({ ...setting.link, target: { host: '127.0.0.1', port } })
  try {
    return await doctor(
      program,
      { listen: '127.0.0.1:0', kcp_connect: `127.0.0.1:${link.port}`, ...clientConfig },
      seconds,
    )
  } finally {
    await server.stop()
    await link.close()
    await target.close()
  }
}

function assertHealthy(diagnosis: Diagnosis): void {
  const { finding, text } = diagnosis
  assert.is(diagnosis.verdict, 'healthy', text)
  assert.is(finding('peer').status, 'ok')
  assert.is(finding('path').values['loss'], 0, text)
  assert.ok(Number(finding('path').values['rtt_median_ms']) > 0)
  assert.is(finding('size_out').values['passed_bytes'], 1472, text)
  assert.is(finding('size_back').values['peer_mtu'], MTU_DEFAULT, text)
  assert.is(finding('server').status, 'ok', text)
}

const peers: readonly Program[] = libevPath === undefined ? [] : ['libev']

/** Runs the body for several programs concurrently: an examination mostly waits. */
const withAll = (programs: readonly Program[], body: (program: Program) => Promise<void>): Promise<unknown> =>
  Promise.all(programs.map(body))

/** The same with either UDP path. */
const withPaths = (programs: readonly Program[], body: (program: Program, udp: Config) => Promise<void>) =>
  Promise.all(['auto', 'portable'].map((path) => withAll(programs, (program) => body(program, { path }))))

test('a healthy tunnel is reported healthy and is not disturbed by the doctor', async () => {
  const target = await echoTarget()
  await withTunnel({ server: 'node', client: 'bun', target: target.address }, async ({ client, server, dial }) => {
    const end = await dial()
    await end.send('before')
    await waitFor('the echo of a connection', () => end.text() === 'before')
    await withPaths(RUNTIMES, async (program, udp) => {
      const diagnosis = await doctor(program, { ...client.config, udp })
      assertHealthy(diagnosis)
      assert.is(diagnosis.finding('listen').values['running'], 'client', diagnosis.text)
    })
    await end.send(' after')
    await waitFor('its echo after the examination', () => end.text() === 'before after')
    end.destroy()
    // a server asks back before it believes a RESET
    await delay(RESET_MS)
    assert.not.match(server.log(), /^W .*session/m, 'the connections of the doctor end like others')
  })
  await target.close()
})

test('a port without a listener is distinguished from silence', async () => {
  await withAll(RUNTIMES, async (program) => {
    const config = { ...KEY, listen: '127.0.0.1:0', kcp_connect: `127.0.0.1:${await freePort()}` }
    const { verdict, finding, text } = await doctor(program, config)
    assert.is(verdict, 'broken')
    assert.is(finding('peer').values['cause'], 'refused', text)
  })
})

test('a wrong key is distinguished from a missing server', async () => {
  await withAll(RUNTIMES, async (program) => {
    const { verdict, finding, text } = await examine(program, { server: program }, OTHER_KEY)
    assert.is(verdict, 'broken')
    assert.is(finding('peer').values['cause'], 'silent listener', text)
    assert.match(finding('peer').remedies.join(), /psk/)
  })
})

test('MUST 10: with 20 % loss each way sizes are still measured, and the path is degraded', async () => {
  const diagnosis = await examine('node', { server: 'bun', link: { loss: 0.2, delay: 5, seed: 7 } }, KEY, 2)
  const { verdict, finding, text } = diagnosis
  assert.is(verdict, 'degraded', text)
  assert.is(finding('path').status, 'warning')
  const loss = Number(finding('path').values['loss'])
  assert.ok(loss > 0.15 && loss < 0.6, text)
  assert.ok(
    Number(finding('path').values['rtt_min_ms']) > 8,
    'twice the delay of the link, which is good to a millisecond',
  )
  assert.is(finding('size_out').status, 'ok', text)
  assert.is(finding('size_back').status, 'ok', text)
})

test(`a black hole for datagrams above ${HOLE_BYTES} bytes is found, both ways and in one direction`, async () => {
  const isShort = (datagram: Buffer): boolean => datagram.length <= HOLE_BYTES
  const both = async (server: Program): Promise<void> => {
    const tap = (_: unknown, datagram: Buffer): boolean => isShort(datagram)
    const { verdict, finding, text } = await examine('node', { server, link: { tap } }, KEY)
    assert.is(verdict, 'degraded', text)
    assert.is(finding('size_out').values['passed_bytes'], HOLE_BYTES, text)
    const back = Number(finding('size_back').values['passed_bytes'])
    assert.ok(back <= HOLE_BYTES && back > HOLE_BYTES - 40, text)
    const advice = /set kcp\.mtu to (\d+) at both ends/.exec(finding('size_out').remedies.join())?.[1]
    assert.is(Number(advice), back + UDP_HEADERS_BYTES, 'the advised size passes both ways')
  }
  const backAlone = async (): Promise<void> => {
    const tap = (way: string, datagram: Buffer): boolean => way === 'up' || isShort(datagram)
    const { verdict, finding, text } = await examine('bun', { server: 'bun', link: { tap } }, KEY)
    assert.is(verdict, 'degraded', text)
    assert.is(finding('size_out').status, 'ok', text)
    assert.is(finding('size_back').status, 'warning', text)
  }
  await Promise.all([withAll(['node', ...peers], both), backAlone()])
})

test('a server with another method and the same key, or without a method, is identified', async () => {
  const none = async (): Promise<Diagnosis> => {
    const server = await start('node', { kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9' })
    const client = { ...KEY, listen: '127.0.0.1:0', kcp_connect: String(server.config['kcp_bind']) }
    return doctor('bun', client).finally(() => server.stop())
  }
  const aes: Setting = { server: 'node', serverConfig: { method: 'aes256gcm' } }
  const [other, plain] = await Promise.all([examine('node', aes, KEY), none()])
  assert.is(other.finding('peer').values['cause'], 'other method', other.text)
  assert.match(String(other.finding('peer').values['peer_method']), /aes256gcm/)
  assert.is(plain.finding('peer').values['peer_method'], 'no method', plain.text)
})

test('a target that refuses is reported by the client and at the server', async () => {
  const target = `127.0.0.1:${await freePort()}`
  const config = { ...KEY, kcp_bind: `127.0.0.1:${await freePort()}`, connect: target }
  const before = await doctor('bun', config)
  assert.is(before.verdict, 'broken')
  assert.is(before.finding('bind').values['free'], true, before.text)
  assert.is(before.finding('target').status, 'failure', before.text)
  const server = await start('node', config)
  const [after, client, otherKey] = await Promise.all([
    doctor('node', config),
    doctor('node', { ...KEY, listen: '127.0.0.1:0', kcp_connect: String(config.kcp_bind) }),
    doctor('node', { ...config, ...OTHER_KEY }),
  ])
  await server.stop()
  assert.is(after.finding('bind').values['answers'], true, after.text)
  assert.is(client.verdict, 'degraded', client.text)
  assert.is(client.finding('server').values['answer'], 'eof', client.text)
  assert.is(otherKey.finding('bind').status, 'failure', otherKey.text)
})

test('a peer that is not a server is reported as such', async () => {
  const relay = await start('bun', { ...KEY, kcp_bind: `127.0.0.1:${await freePort()}` })
  const client = { ...KEY, listen: '127.0.0.1:0', kcp_connect: String(relay.config['kcp_bind']) }
  const { verdict, finding, text } = await doctor('node', client)
  await relay.stop()
  assert.is(verdict, 'broken', text)
  assert.match(finding('server').text, /is not a server/)
})

if (libevPath === undefined) skip(test, 'a healthy kcptun-libev is called healthy', 'KCPTUN_LIBEV is not set')
else {
  test('a healthy kcptun-libev server is reported healthy', async () => {
    await withPaths(RUNTIMES, async (program, udp) => {
      assertHealthy(await examine(program, { server: 'libev' }, { ...KEY, udp }))
    })
  })
}

test('an answer from the second address of a name is distinguished from a missing server', async () => {
  const port = await freePort('::1')
  const server = await start('node', { ...KEY, kcp_bind: `[::1]:${port}`, connect: '127.0.0.1:9' })
  const runtime: Runtime = {
    ...nodeRuntime(),
    resolve: async () => [
      { family: 4, address: '127.0.0.1', scope: 0 },
      { family: 6, address: '::1', scope: 0 },
    ],
  }
  const text = JSON.stringify({ ...KEY, listen: '127.0.0.1:0', kcp_connect: `twofold.example:${port}` })
  const config = parseConfig(new TextEncoder().encode(text))
  const { findings } = await examineConfig({ runtime, config, crypto, seconds: 1, progress: () => {} })
  await server.stop()
  const peer = findings.find(({ name }) => name === 'peer')
  assert.is(peer?.values['cause'], 'other address', JSON.stringify(findings))
  assert.is(peer?.values['answer'], `[::1]:${port}`)
})

test('the text report ends with the verdict, and bad options exit with status 1', async () => {
  const file = writeConfig({ ...KEY, listen: '127.0.0.1:0', kcp_connect: `127.0.0.1:${await freePort()}` })
  const { code, stdout } = await run('node', ['doctor', '-c', file.path])
  assert.is(code, 1)
  assert.match(stdout, /\nfailure {2}peer .*\n(.*\n)*broken: .*refused/)
  for (const line of stdout.split('\n')) assert.ok(line.length <= 100, line)
  for (const wrong of [['-c', '/nonexistent'], ['-c', file.path, '--seconds', '0'], []]) {
    const { code, stderr } = await run('node', ['doctor', ...wrong])
    assert.is(code, 1)
    assert.match(stderr, /^kcptun-wasm doctor: /)
  }
  file.remove()
})

test.run()
