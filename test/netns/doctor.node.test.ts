// time limit: 120 s
/**
 * `kcptun-wasm doctor` where loopback is not enough: through a rendezvous server and NATs, with a firewall, from
 * another source address.
 */
import { spawn } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Family, type Host, World } from '../../testkit/netns.ts'
import { type Config, commandOf, type Program, writeConfig } from '../../testkit/process.ts'
import { formatAddress } from '../../testkit/tcp.ts'
import { skip } from '../skip.ts'

const KEY: Config = { method: 'chacha20poly1305_ietf', psk: Buffer.alloc(32, 7).toString('base64') }
const PORT = 5200
const SERVICE = 'home'

interface Finding {
  readonly name: string
  readonly values: Readonly<Record<string, unknown>>
}

/** Runs the doctor on a host. */
async function doctor(host: Host, program: Program, config: Config) {
  const file = writeConfig(config)
  const args = ['netns', 'exec', host.namespace.name, ...commandOf(program), 'doctor', '-c', file.path]
  const child = spawn('ip', [...args, '--json', '--seconds', '1'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  await new Promise((done) => child.once('close', done))
  file.remove()
  const { verdict, findings }: { verdict: string; findings: Finding[] } = JSON.parse(text)
  const cause = findings.map(({ values }) => values['cause']).find((found) => found !== undefined)
  const valuesOf = (name: string) => findings.find((finding) => finding.name === name)?.values ?? {}
  return { verdict, cause, valuesOf, text }
}

const test = suite('netns: doctor')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addHost('server', world.addRouter('router-s', 1))
  const clientHost = world.addHost('client', world.addRouter('router-c', 2))
  const publicServer = world.addPublicHost('public-s', 50)
  const publicClient = world.addPublicHost('public-c', 60)
  test.after(() => world.close())

  for (const [family, program] of [
    [4, 'node'],
    [6, 'bun'],
  ] as const satisfies readonly (readonly [Family, Program])[]) {
    test(`a server behind NAT is reached through the rendezvous server and measured: ${program}, IPv${family}`, async () => {
      const target = await serverHost.target()
      void target.serve(() => undefined)
      const bind = formatAddress(family === 4 ? '0.0.0.0' : '::', PORT)
      const common = { ...KEY, rendezvous_server: world.net.at(family, PORT), keepalive: 3 }
      const relay = await world.net.start(program, { ...KEY, kcp_bind: bind })
      const config = { ...common, connect: target.address, service_id: SERVICE }
      const server = await serverHost.start(program, config)
      const client = { ...common, listen: '127.0.0.1:0' }
      const [met, unknown, own] = await Promise.all([
        doctor(clientHost, program, { ...client, service_id: SERVICE }),
        doctor(clientHost, program, { ...client, service_id: 'nobody' }),
        doctor(serverHost, program, config),
      ])
      await server.stop()
      await relay.stop()
      await target.close()
      assert.is(met.verdict, 'healthy', met.text)
      assert.is(met.valuesOf('size_back')['peer_mtu'], 1400, met.text)
      assert.is(unknown.verdict, 'broken')
      assert.is(unknown.cause, 'no service', unknown.text)
      assert.is(own.verdict, 'healthy', own.text)
      assert.match(String(own.valuesOf('peer')['addresses']), /:\d+ .*:\d+/)
    })
  }

  test('a firewall that drops everything is reported as silence, and an answer from another address is detected', async () => {
    // this path answers from the address that the system selects
    const udp = { path: 'portable' }
    const config = { ...KEY, kcp_bind: `0.0.0.0:${PORT}`, connect: '127.0.0.1:9', udp }
    const server = await publicServer.start('node', config)
    publicServer.namespace.ip('addr add 203.0.113.51/24 dev eth0')
    const client = { ...KEY, listen: '127.0.0.1:0' }
    const other = await doctor(publicClient, 'node', { ...client, kcp_connect: `203.0.113.51:${PORT}` })
    const drop = 'table inet wall { chain c { type filter hook input priority 0;\n meta l4proto udp drop\n}\n}\n'
    publicServer.namespace.run(['nft', '-f', '-'], drop)
    const [silent, nowhere] = await Promise.all([
      doctor(publicClient, 'bun', { ...client, kcp_connect: publicServer.at(4, PORT) }),
      doctor(publicClient, 'bun', { ...client, kcp_connect: `198.51.100.1:${PORT}` }),
    ])
    await server.stop()
    assert.is(other.cause, 'other address', other.text)
    assert.is(other.valuesOf('peer')['answer'], publicServer.at(4, PORT), other.text)
    assert.is(silent.cause, 'silence', silent.text)
    assert.is(nowhere.verdict, 'broken', nowhere.text)
  })
}

test.run()
