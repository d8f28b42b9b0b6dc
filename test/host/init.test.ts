/** `kcptun-wasm init` in memory: the files it writes, its questions, and what it rejects. */

import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Config } from '../../host/config/config.ts'
import { readJson } from '../../host/config/json.ts'
import { readLink } from '../../host/config/link.ts'
import { parseConfig } from '../../host/config/load.ts'
import { modeName } from '../../host/config/rules.ts'
import { checkStart } from '../../host/config/security.ts'
import { examine } from '../../host/config/unknown-keys.ts'
import { methods } from '../../host/crypto/methods.ts'
import { type Outcome, tryCommand, type World } from './command-line.ts'

const test = suite('init')

const GIVEN = ['--server', 'vpn.example:4000', '--listen', '1080', '--connect', '127.0.0.1:80']

const init = (words: readonly string[], world?: World): Promise<Outcome> => tryCommand('init', words, world)

/** A written file, checked as at start. */
function written({ files }: Outcome, path: string, others: readonly string[] = []): Config {
  const bytes = new TextEncoder().encode(files.get(path) ?? '')
  const config = parseConfig(bytes)
  checkStart(config, methods)
  const { unknown, duplicate, ours } = examine(readJson(bytes))
  assert.equal([unknown, duplicate, ours], [[], [], others], 'only keys that kcptun-libev knows')
  return config
}

function assertRefused({ status, stderr, files }: Outcome, pattern: RegExp): void {
  assert.is(status, 1)
  assert.match(stderr, pattern)
  assert.is(stderr.trim().split('\n').length, 1, stderr)
  assert.is(files.size, 0, 'nothing is written')
}

test('the server and client files match each other', async () => {
  const outcome = await init(GIVEN)
  assert.is(outcome.status, 0, outcome.stderr)
  assert.equal([...outcome.files.keys()].sort(), ['client.json', 'server.json'])
  const client = written(outcome, 'client.json')
  const server = written(outcome, 'server.json')
  assert.is(modeName(client.mode), 'client')
  assert.is(modeName(server.mode), 'server')
  assert.is(client.listen, '127.0.0.1:1080')
  assert.is(client.kcp_connect, 'vpn.example:4000')
  assert.is(server.kcp_bind, '[::]:4000')
  assert.is(server.connect, '127.0.0.1:80')
  assert.is(client.psk, server.psk)
  assert.is(client.method, 'xchacha20poly1305_ietf')
  assert.is(server.method, client.method)
  const ports = [client.http_listen, server.http_listen].map((text) => /^127\.0\.0\.1:(\d+)$/.exec(text ?? '')?.[1])
  assert.is(new Set([...ports, undefined]).size, 3, 'each has a monitoring server of its own, on loopback')
  const { psk = '' } = client
  assert.not.ok((outcome.stdout + outcome.stderr).includes(psk), 'the key is not shown')
  assert.is.not(written(await init(GIVEN), 'client.json').psk, psk, 'the next key is another one')
})

test('with a rendezvous server, the three files match each other', async () => {
  const words = ['--rendezvous', '192.0.2.7:4000', '--listen', ':1080', '--connect', '22', '--service-id', 'home']
  const outcome = await init(words)
  assert.is(outcome.status, 0, outcome.stderr)
  const [relay, server, client] = ['rendezvous', 'server', 'client'].map((role) => written(outcome, `${role}.json`))
  assert.is(relay && modeName(relay.mode), 'rendezvous server')
  assert.is(relay?.kcp_bind, '0.0.0.0:4000')
  assert.is(server?.connect, '127.0.0.1:22')
  assert.is(client?.listen, ':1080')
  for (const end of [server, client]) {
    assert.is(end?.rendezvous_server, '192.0.2.7:4000')
    assert.is(end?.service_id, 'home')
    assert.is(end?.psk, relay?.psk)
  }
  assert.match(outcome.stdout, /Any host that can reach this port can use the tunnel/)
})

test('with --udp, the keys are those of UDP, and only addresses are accepted', async () => {
  const words = ['--udp', '--server', '192.0.2.7:4000', '--listen', '5353', '--connect']
  const outcome = await init([...words, '53'])
  assert.is(outcome.status, 0, outcome.stderr)
  const server = written(outcome, 'server.json', ['udp_connect'])
  const client = written(outcome, 'client.json', ['udp_listen'])
  assert.equal([server.udp_connect, server.connect], ['127.0.0.1:53', undefined])
  assert.equal([client.udp_listen, client.listen], ['127.0.0.1:5353', undefined])
  assert.match(
    outcome.stdout,
    'Applications that send UDP to 127.0.0.1:5353 are forwarded to 127.0.0.1:53 on the server',
  )
  for (const target of ['socks5', 'unix:/run/x']) assertRefused(await init([...words, target]), /--connect/)
})

test("the bind address follows from the server's public address", async () => {
  for (const [server, bind, connect = server] of [
    ['192.0.2.7:4000', '0.0.0.0:4000'],
    ['[2001:db8::7]:4000', '[::]:4000'],
    ['vpn.example:4000', '[::]:4000'],
    ['127.0.0.1:4000', '127.0.0.1:4000'],
    ['[::1]:4000', '[::1]:4000'],
    ['localhost:4000', 'localhost:4000'],
    ['vpn.example:domain', '[::]:53', 'vpn.example:53'],
  ] as const) {
    const outcome = await init(['--server', server, ...GIVEN.slice(2)])
    assert.is(written(outcome, 'server.json').kcp_bind, bind)
    assert.is(written(outcome, 'client.json').kcp_connect, connect)
    assert.is(/firewall/.test(outcome.stdout), /^(0\.0\.0\.0|\[::\]):/.test(bind), server)
  }
})

test('a server without a port gets one above the service ports', async () => {
  for (const host of ['vpn.example', '192.0.2.7', '[2001:db8::7]']) {
    const { kcp_connect = '' } = written(await init(['--server', host, ...GIVEN.slice(2)]), 'client.json')
    assert.ok(kcp_connect.startsWith(`${host}:`), kcp_connect)
    const port = Number(kcp_connect.slice(host.length + 1))
    assert.ok(port >= 61_000 && port <= 65_535, kcp_connect)
  }
})

test('without a terminal every missing flag is named', async () => {
  assertRefused(await init([]), /missing options: --server <.*>, --listen <.*>, --connect <.*> \(no terminal/)
  assertRefused(await init(GIVEN.slice(2)), /missing options: --server <host\[:port\]> \(/)
  assertRefused(await init(['--rendezvous', 'x']), /missing options: --listen <.*>, --connect/)
})

test('missing flags are prompted for until the answer is valid', async () => {
  const all = await init([], { answers: ['vpn.example:0', '', 'vpn.example:4000', '', 'nowhere', ' db.example:5432 '] })
  assert.is(all.status, 0, all.stderr)
  assert.equal(
    all.questions.map((question) => question.split(/[ ,]/)[0]),
    ['Address', 'Address', 'Address', 'TCP', 'Target', 'Target'],
  )
  assert.match(all.stderr, /vpn\.example:0.*port/)
  assert.match(all.stderr, /nowhere.*colon/)
  assert.is(written(all, 'client.json').kcp_connect, 'vpn.example:4000')
  assert.is(written(all, 'client.json').listen, '127.0.0.1:1080')
  assert.is(written(all, 'server.json').connect, 'db.example:5432')

  const one = await init(GIVEN.slice(0, 4), { answers: ['80'] })
  assert.is(one.questions.length, 1)
  assert.is(written(one, 'server.json').connect, '127.0.0.1:80')

  assert.is((await init(GIVEN, { answers: [] })).questions.length, 0)
})

test('at end of input nothing is written', async () => {
  const { status, stderr, files } = await init([], { answers: ['vpn.example'] })
  assert.is(status, 1)
  assert.match(stderr, /no answer: use the option --listen/)
  assert.is(files.size, 0)
})

test('nothing is overwritten, and either all files are written or none', async () => {
  for (const taken of ['client.json', 'server.json', 'rendezvous.json']) {
    const files = new Map([[taken, 'mine']])
    const words = taken.startsWith('r') ? ['--rendezvous', 'x:1', ...GIVEN.slice(2)] : GIVEN
    const { status, stderr, questions } = await init(words.slice(0, 2), { files, answers: [] })
    assert.is(status, 1)
    assert.is(questions.length, 0, 'rejected before the first question')
    assert.match(stderr, `${taken}: already exists`)
    assert.equal([...files], [[taken, 'mine']])
  }
  assertRefused(await init([...GIVEN, '--dir', 'new'], { broken: { new: 'EACCES' } }), /--dir new: EACCES.*nothing was/)
  // another process creates the file first
  assertRefused(await init(GIVEN, { broken: { 'client.json': 'EEXIST' } }), /client\.json: already exists.*nothing was/)
  assertRefused(await init(GIVEN, { broken: { 'client.json': 'ENOSPC' } }), /client\.json: ENOSPC.*nothing was written/)
})

test('an invalid flag is named with its value and the reason', async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['--server', 'a:b:c', ...GIVEN.slice(2)], /--server a:b:c: .*brackets/],
    [['--server', ':4000', ...GIVEN.slice(2)], /--server :4000: the host is missing/],
    [['--server', 'a:0', ...GIVEN.slice(2)], /--server a:0: .*port/],
    [[...GIVEN, '--listen', 'a'], /--listen a: .*colon/],
    [[...GIVEN, '--listen', '99999'], /--listen 99999: .*port/],
    [[...GIVEN, '--connect', ':80'], /--connect :80: the host is missing/],
    [[...GIVEN, '--connect', 'a:'], /--connect a:: the port must not be 0/],
    [[...GIVEN, '--method', 'rot13'], /--method rot13: unknown method, must be one of xchacha/],
    [[...GIVEN, '--strategy', 'failover'], /--strategy requires several servers: repeat --server/],
    [[...GIVEN, '--server', 'b', '--strategy', 'best'], /--strategy best: must be one of failover, least_rtt/],
    [[...GIVEN, '--server', 'vpn.example:4000'], /is in the list twice/],
    [[...GIVEN, '--server', 'b:0'], /--server b:0: .*port/],
    [[...GIVEN.slice(2), ...Array.from({ length: 17 }, (_, i) => `--server=h${i}`)], /at most 16/],
    [['--server', 'a:5-4', ...GIVEN.slice(2)], /--server a:5-4: the last port of a range/],
    [['--server', '127.0.0.1:4000-4999', ...GIVEN.slice(2)], /at most 64 ports on this machine/],
    [['--rendezvous', 'x:1-9', ...GIVEN.slice(2)], /--rendezvous x:1-9: a rendezvous server has one port/],
    [['--rendezvous', 'x', '--rendezvous', 'y', ...GIVEN.slice(2)], /there is one rendezvous server/],
    [[...GIVEN, '--rendezvous', 'x'], /--server and --rendezvous are mutually exclusive/],
    [[...GIVEN, '--service-id', 'x'], /--service-id requires --rendezvous/],
    [['--rendezvous', 'x', ...GIVEN.slice(2), '--service-id', 'x'.repeat(257)], /service_id/],
    [[...GIVEN, '--force'], /unknown option "--force"/],
  ]
  for (const [words, pattern] of cases) assertRefused(await init(words), pattern)
})

test('the printed commands start the files with the command that was used', async () => {
  const commands = (text: string): string[] => text.split('\n').filter((line) => line.startsWith('    '))
  const dir = ['--dir', "my tunnel's/"]
  assert.equal(commands((await init(GIVEN)).stdout), [
    '    scp server.json vpn.example:',
    '    npm install -g kcptun-wasm',
    '    sudo ufw allow 4000/udp    # or open this UDP port in its firewall',
    '    kcptun-wasm -c server.json',
    '    kcptun-wasm -c client.json',
  ])
  assert.equal(commands((await init(['--server', '127.0.0.1:4000', ...GIVEN.slice(2)])).stdout), [
    '    kcptun-wasm -c server.json',
    '    kcptun-wasm -c client.json',
  ])
  assert.equal(commands((await init(['--rendezvous', '[2001:db8::7]:4000', ...GIVEN.slice(2)])).stdout), [
    "    scp rendezvous.json '[2001:db8::7]':",
    '    npm install -g kcptun-wasm',
    '    sudo ufw allow 4000/udp    # or open this UDP port in its firewall',
    '    kcptun-wasm -c rendezvous.json',
    '    scp server.json SERVER:',
    '    npm install -g kcptun-wasm',
    '    kcptun-wasm -c server.json',
    '    kcptun-wasm -c client.json',
  ])
  // who gives the client away is at the server, which cannot be reached from elsewhere
  assert.equal(commands((await init(['--rendezvous', 'x.example:4000', ...GIVEN.slice(2), '--link'])).stdout), [
    '    scp rendezvous.json x.example:',
    '    npm install -g kcptun-wasm',
    '    sudo ufw allow 4000/udp    # or open this UDP port in its firewall',
    '    kcptun-wasm -c rendezvous.json',
    '    kcptun-wasm -c server.json',
    '    npm install -g kcptun-wasm',
    '    kcptun-wasm import -    # paste the link; never write it on a command line',
  ])
  const started = { command: 'bun', script: '/home/me/dist/bun/cli.js' }
  const outcome = await init([...GIVEN, ...dir], { started })
  assert.equal(commands(outcome.stdout), [
    `    scp 'my tunnel'\\''s/server.json' vpn.example:`,
    '    npm install -g kcptun-wasm',
    '    sudo ufw allow 4000/udp    # or open this UDP port in its firewall',
    '    kcptun-wasm -c server.json',
    `    bun dist/bun/cli.js -c 'my tunnel'\\''s/client.json'`,
  ])
  const deno = { command: 'deno', words: ['run', '-A'], script: '/home/me/dist/deno/cli.js' }
  assert.is(
    commands((await init(GIVEN, { started: deno })).stdout).at(-1),
    '    deno run -A dist/deno/cli.js -c client.json',
  )
  assert.equal([...outcome.files.keys()], ["my tunnel's/server.json", "my tunnel's/client.json"])
})

test('all accepted input yields files that start', async () => {
  const host = fc.constantFrom('vpn.example', '192.0.2.7', '[2001:db8::7]', 'localhost', '127.0.0.1')
  const port = fc.integer({ min: 1, max: 65535 })
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(host, port),
      fc.tuple(fc.constantFrom('', '*', '[::]', '127.0.0.1'), port),
      fc.tuple(host, port),
      fc.constantFrom(...methods),
      fc.boolean(),
      async (server, listen, connect, method, rendezvous) => {
        const words = [rendezvous ? '--rendezvous' : '--server', server.join(':')]
        const rest = ['--listen', listen.join(':'), '--connect', connect.join(':'), '--method', method]
        const outcome = await init([...words, ...rest])
        assert.is(outcome.status, 0, outcome.stderr)
        for (const path of outcome.files.keys()) assert.is(written(outcome, path).method, method)
        assert.is(outcome.files.size, rendezvous ? 3 : 2)
      },
    ),
    { numRuns: 100 },
  )
})

const commandsOf = ({ stdout }: Outcome): string[] => stdout.split('\n').filter((line) => line.startsWith('    '))

test('several servers with one port share a file, and the client has all of them', async () => {
  const words = ['--server', '192.0.2.7:4000', '--server', 'b.example:4000', ...GIVEN.slice(2)]
  const outcome = await init([...words, '--strategy', 'least_rtt'])
  assert.is(outcome.status, 0, outcome.stderr)
  assert.equal([...outcome.files.keys()].sort(), ['client.json', 'server.json'])
  const client = written(outcome, 'client.json', ['strategy'])
  assert.equal(client.servers, ['192.0.2.7:4000', 'b.example:4000'])
  assert.is(client.strategy, 'least_rtt')
  assert.is(written(outcome, 'server.json').kcp_bind, '[::]:4000', 'both families')
  assert.match(outcome.stdout, 'The servers are 192.0.2.7, b.example. Copy their file there:')
  assert.equal(commandsOf(outcome).slice(0, 5), [
    '    scp server.json 192.0.2.7:',
    '    scp server.json b.example:',
    '    npm install -g kcptun-wasm',
    '    sudo ufw allow 4000/udp    # or open this UDP port in its firewall',
    '    kcptun-wasm -c server.json',
  ])
  const random = await init(['--server', 'a.example', '--server', 'b.example', ...GIVEN.slice(2)])
  const ports = written(random, 'client.json').servers.map((server) => server.split(':')[1])
  assert.is(new Set(ports).size, 1, 'servers without a port have the same one')
})

test('servers that bind different addresses have files of their own, with one key', async () => {
  for (const [servers, binds, commands] of [
    [['127.0.0.1:4000', '127.0.0.1:4001'], ['127.0.0.1:4000', '127.0.0.1:4001'], 'kcptun-wasm -c server-2.json'],
    [['a.example:4000', 'b.example:5000'], ['[::]:4000', '[::]:5000'], 'scp server-2.json b.example:'],
  ] as const) {
    const outcome = await init([...servers.flatMap((server) => ['--server', server]), ...GIVEN.slice(2)])
    assert.is(outcome.status, 0, outcome.stderr)
    const [one, two] = ['server-1.json', 'server-2.json'].map((path) => written(outcome, path))
    assert.equal([one?.kcp_bind, two?.kcp_bind], [...binds])
    assert.is(one?.psk, two?.psk)
    assert.is(one?.psk, written(outcome, 'client.json').psk)
    assert.is.not(one?.http_listen, two?.http_listen)
    assert.ok(commandsOf(outcome).includes(`    ${commands}`), outcome.stdout)
    assert.match(outcome.stdout, `${one?.http_listen}/ (server-1), http://${two?.http_listen}/ (server-2)`)
  }
})

test('several servers with --users: all have the keys of all', async () => {
  const servers = ['--server', 'a.example:4000', '--server', 'b.example:5000']
  const outcome = await init([...servers, ...GIVEN.slice(2), '--users', 'alice,bob'])
  assert.is(outcome.status, 0, outcome.stderr)
  const [one, two] = ['server-1.json', 'server-2.json'].map((path) => written(outcome, path, ['keys']))
  assert.equal(one?.keys, two?.keys)
  assert.is(written(outcome, 'client-bob.json').servers.length, 2)
  assert.match(outcome.stdout, 'change keys in server-1.json, server-2.json')
})

test('a range of ports: the client hops, and what the server requires is printed', async () => {
  const hop = (server: string): Promise<Outcome> => init(['--server', server, ...GIVEN.slice(2)])
  const wide = await hop('vpn.example:4000-4999')
  assert.is(wide.status, 0, wide.stderr)
  assert.is(written(wide, 'client.json').kcp_connect, 'vpn.example:4000-4999')
  assert.is(written(wide, 'server.json').kcp_bind, '[::]:4000')
  const [, , open = '', rule = ''] = commandsOf(wide)
  assert.match(open, 'sudo ufw allow 4000/udp ')
  assert.match(rule, 'kcptun-wasm --hop-firewall=4000-4999 -c server.json ')
  const narrow = await hop('192.0.2.7:4000-4063')
  assert.is(written(narrow, 'server.json').kcp_bind, '0.0.0.0:4000-4063')
  assert.match(narrow.stdout, 'sudo ufw allow 4000:4063/udp')
  assert.not.match(narrow.stdout, 'hop-firewall', 'the server binds all ports')
  const here = await hop('127.0.0.1:4000-4010')
  assert.is(written(here, 'server.json').kcp_bind, '127.0.0.1:4000-4010')
  const link = await init(['--server', 'vpn.example:4000-4999', ...GIVEN.slice(2), '--link'])
  const [text = ''] = link.stdout.match(/kcptun-wasm:\/\/\S+/) ?? []
  assert.is(readLink(text)['kcp_connect'], 'vpn.example:4000-4999')
})

test('with --users each has a key and a file of his own, and the server has all keys', async () => {
  const outcome = await init([...GIVEN, '--users', 'alice, bob-2'])
  assert.is(outcome.status, 0, outcome.stderr)
  assert.equal([...outcome.files.keys()].sort(), ['client-alice.json', 'client-bob-2.json', 'server.json'])
  const server = written(outcome, 'server.json', ['keys'])
  const clients = ['alice', 'bob-2'].map((name) => written(outcome, `client-${name}.json`))
  assert.equal(
    server.keys.map(({ name, psk }) => [name, psk]),
    [
      ['alice', clients[0]?.psk],
      ['bob-2', clients[1]?.psk],
    ],
  )
  assert.is.not(clients[0]?.psk, clients[1]?.psk)
  assert.is(server.psk, undefined)
  for (const { psk = '' } of clients) assert.not.ok(outcome.stdout.includes(psk), 'no key is shown')
  assert.match(outcome.stdout, /Wrote server\.json, client-alice\.json, client-bob-2\.json\. They contain the keys/)
  assert.match(outcome.stdout, /give each user the file with his name/)
})

test('with --users and --link each user has a link with his key', async () => {
  const outcome = await init([...GIVEN, '--users', 'alice,bob', '--link'])
  const links = outcome.stdout.match(/kcptun-wasm:\/\/\S+/g) ?? []
  assert.equal(
    links.map((link) => readLink(link)['psk']),
    ['alice', 'bob'].map((name) => written(outcome, `client-${name}.json`).psk),
  )
  assert.match(outcome.stdout, /alice:\n\nkcptun-wasm:[\s\S]*bob:\n\nkcptun-wasm:/)
})

test('bad names of users are refused before anything is asked or written', async () => {
  for (const [names, reason] of [
    ['', /--users : must be 1 to 64/],
    ['alice,', /must be 1 to 64/],
    ['a b', /must be 1 to 64/],
    ['../x', /must be 1 to 64/],
    ['alice,alice', /is there twice/],
    [Array.from({ length: 65 }, (_, i) => `n${i}`).join(), /at most 64 users/],
  ] as const)
    assertRefused(await init([...GIVEN, `--users=${names}`]), reason)
  const relayed = ['--rendezvous', 'r.example', ...GIVEN.slice(2), '--users', 'alice']
  assertRefused(await init(relayed), /--users conflicts with --rendezvous/)
})

test.run()
