/** `kcptun-wasm init --add` in memory: an entry of `tunnels` in existing files. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { addTunnel } from '../../host/config/add-tunnel.ts'
import type { Config } from '../../host/config/config.ts'
import { readLink } from '../../host/config/link.ts'
import { parseFile } from '../../host/config/tunnels.ts'
import { hopFirewallOf } from '../../host/transport/hop-firewall.ts'
import { type Outcome, tryCommand } from './command-line.ts'
import { MemoryNetwork } from './memory-runtime.ts'

const test = suite('init --add')

const FIRST = ['--server', 'vpn.example:4000', '--listen', '1080', '--connect', '80']
const NEXT = ['--add', '--listen', '2222', '--connect', '22']

const tunnels = ({ files }: Outcome, path: string): readonly Config[] => {
  const file = parseFile(new TextEncoder().encode(files.get(path)))
  return file.tunnels ?? [file.config]
}

/** Adds tunnels to the files of `init`. */
async function added(...steps: readonly (readonly string[])[]): Promise<Outcome> {
  const files = new Map<string, string>()
  let outcome = await tryCommand('init', FIRST, { files })
  for (const words of steps) {
    outcome = await tryCommand('init', words, { files })
    assert.is(outcome.status, 0, outcome.stderr)
  }
  return outcome
}

async function assertRefused(words: readonly string[], pattern: RegExp, change?: (files: Map<string, string>) => void) {
  const files = new Map<string, string>()
  await tryCommand('init', FIRST, { files })
  change?.(files)
  const before = [...files]
  const { status, stderr } = await tryCommand('init', words, { files })
  assert.is(status, 1, words.join(' '))
  assert.match(stderr, pattern)
  assert.is(stderr.trim().split('\n').length, 1, stderr)
  assert.equal([...files], before, 'nothing is written')
}

test('the first addition makes the present tunnel the first entry, unchanged, and uses its server', async () => {
  const files = new Map<string, string>()
  await tryCommand('init', FIRST, { files })
  const before = parseFile(new TextEncoder().encode(files.get('client.json'))).config
  const outcome = await tryCommand('init', [...NEXT, '--name', 'ssh'], { files })
  assert.is(outcome.status, 0, outcome.stderr)
  const [one, two] = tunnels(outcome, 'client.json')
  const { name, ...rest } = one ?? {}
  assert.is(name, 'client-1080')
  assert.equal({ ...rest, http_listen: before.http_listen }, before)
  const file = parseFile(new TextEncoder().encode(files.get('client.json')))
  assert.is(file.config.http_listen, before.http_listen, 'the process keeps its monitoring server')
  assert.is(two?.name, 'ssh')
  assert.is(two?.listen, '127.0.0.1:2222')
  const port = /^vpn\.example:(\d+)$/.exec(two?.kcp_connect ?? '')?.[1]
  const server = tunnels(outcome, 'server.json')[1]
  assert.is(server?.kcp_bind, `[::]:${port}`)
  assert.is(server?.connect, '127.0.0.1:22')
  assert.is(server?.psk, two?.psk)
  assert.is.not(two?.psk, one?.psk, 'a key of its own')
  assert.not.ok(outcome.stdout.includes(two?.psk ?? ''), 'the key is not shown')
  assert.match(outcome.stdout, 'Added the tunnel ssh to server.json and client.json.')
  assert.match(outcome.stdout, /had one tunnel, .* start both programs again/)
  assert.match(outcome.stdout, `    scp server.json vpn.example:\n`)
  assert.match(outcome.stdout, `    sudo ufw allow ${port}/udp`)
  assert.match(outcome.stdout, 'doctor --tunnel ssh -c client.json')
})

test('further additions are entries, for a reload; other servers, UDP, proxies, sockets and ranges are possible', async () => {
  const outcome = await added(
    NEXT,
    ['--add', '--udp', '--server', 'b.example:5000', '--listen', '5353', '--connect', '53'],
    ['--add', '--listen', '1081', '--connect', 'socks5'],
    ['--add', '--listen', 'unix:/run/a', '--connect', 'unix:/run/b'],
    ['--add', '--server', 'c.example:6000-6100', '--server', 'd.example:6000-6100', '--listen', '9', '--connect', '9'],
  )
  const clients = tunnels(outcome, 'client.json')
  const servers = tunnels(outcome, 'server.json')
  assert.equal([clients.length, servers.length], [6, 6])
  assert.is(clients[2]?.udp_listen, '127.0.0.1:5353')
  assert.is(clients[2]?.kcp_connect, 'b.example:5000')
  assert.is(servers[3]?.connect, 'socks5')
  assert.is(clients[4]?.listen, 'unix:/run/a')
  assert.equal(clients[5]?.servers, ['c.example:6000-6100', 'd.example:6000-6100'])
  assert.is(servers[5]?.kcp_bind, '[::]:6000')
  for (const [index, { psk }] of clients.entries()) assert.is(psk, servers[index]?.psk)
  assert.match(outcome.stdout, 'kcptun-wasm --hop-firewall=6000-6100 -c server.json')
  const network = new MemoryNetwork()
  network.hosts.set('::', '::')
  const rule = await hopFirewallOf(network.runtime(), servers, '6000-6100')
  assert.match(rule, 'dport 6000-6100 redirect to :6000', 'the tunnel that has these ports')
  assert.not.match(rule, ':4000')
  assert.match(outcome.stdout, 'Then reload it where it runs')
  assert.not.match(outcome.stdout, 'again')
})

test('with --link the new client alone is given away', async () => {
  const outcome = await added([...NEXT, '--link'])
  const client = readLink(outcome.stdout.match(/kcptun-wasm:\/\/\S+/)?.[0] ?? '')
  assert.is(client['listen'], '127.0.0.1:2222')
  assert.is(client['psk'], tunnels(outcome, 'client.json')[1]?.psk)
  assert.is(client['tunnels'], undefined)
})

test('what does not fit is refused, with the file, and nothing is written', async () => {
  await assertRefused(
    [...NEXT, '--listen', '1080'],
    /client\.json: config key tunnels\[1\]\.listen = "127\.0\.0\.1:1080": /,
  )
  await assertRefused(
    [...NEXT, '--server', 'x:4000'],
    /server\.json: config key tunnels\[1\]\.kcp_bind = "\[::\]:4000"/,
  )
  await assertRefused([...NEXT, '--name', 'a b'], /--name a b: must be 1 to 64/)
  await assertRefused([...NEXT, '--name', 'client-1080', '--rendezvous', 'x'], /--rendezvous conflicts with --add/)
  await assertRefused([...NEXT, '--users', 'a'], /--users conflicts with --add/)
  await assertRefused([...NEXT, '--server', 'a:1', '--server', 'b:2'], /the servers need one port/)
  await assertRefused([...NEXT, '--dir', 'new'], /config file new\/server\.json: no such file/)
  await assertRefused(['--add'], /missing options: --listen <.*>, --connect <.*> \(no terminal/)
  await assertRefused([...FIRST, '--name', 'x', '--dir', 'new'], /--name requires --add/)
  await assertRefused(NEXT, /client\.json: config key kcp\.mtu = 10/, (files) =>
    files.set('client.json', '{"listen": ":1", "kcp_connect": "a:1", "kcp": {"mtu": 10}}'),
  )
  await assertRefused(NEXT, /config key psk.* is set more than once/, (files) =>
    files.set('client.json', (files.get('client.json') ?? '').replace('"psk"', '"psk": "x", "psk"')),
  )
})

test('the text of a file stays as it is written', () => {
  const after = (text: string): string => addTunnel(new TextEncoder().encode(text), { name: 'b', listen: ':2' }).text
  assert.is(
    after('{\n\t"log":  "syslog",\n\t"tunnels": [\n\t\t{ "listen":":1" }\n\t],\n\t"psk": "x" }\n'),
    '{\n\t"log":  "syslog",\n\t"tunnels": [\n\t\t{ "listen":":1" },\n\t\t{\n\t\t\t"name": "b",\n\t\t\t"listen": ":2"\n\t\t}\n\t],\n\t"psk": "x" }\n',
  )
  assert.is(after('{"tunnels": [{"listen":":1"}]}'), '{"tunnels": [{"listen":":1"}, {"name":"b","listen":":2"}]}')
  assert.is(
    after('{\r\n    "$schema":   "x",\r\n    "listen": ":1",\r\n    "_note": "mine"\r\n}\r\n'),
    '{\r\n    "$schema":   "x",\r\n    "_note": "mine",\r\n    "tunnels": [\r\n        {\r\n            "listen": ":1"\r\n        },\r\n        {\r\n            "name": "b",\r\n            "listen": ":2"\r\n        }\r\n    ]\r\n}\r\n',
  )
  const bare = JSON.parse(after('{"listen": ":1", "kcp": {"mtu": 1400}, "psk": "}"}'))
  assert.equal(bare, {
    tunnels: [
      { listen: ':1', kcp: { mtu: 1400 }, psk: '}' },
      { name: 'b', listen: ':2' },
    ],
  })
  assert.equal(JSON.parse(after('{"tunnels": [\n]}'.replace('\n', '{}'))), {
    tunnels: [{}, { name: 'b', listen: ':2' }],
  })
})

test.run()
