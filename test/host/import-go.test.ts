/** `kcptun-wasm import` of settings of the Go kcptun, in memory: what the pair of files contains and what is reported. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, MODE_CLIENT, MODE_SERVER } from '../../host/config/config.ts'
import { readJson } from '../../host/config/json.ts'
import { parseConfig } from '../../host/config/load.ts'
import { checkStart } from '../../host/config/security.ts'
import { splitCommands } from '../../host/config/shell-words.ts'
import { examine } from '../../host/config/unknown-keys.ts'
import { methods } from '../../host/crypto/methods.ts'
import { type Outcome, tryCommand, type World } from './command-line.ts'

const test = suite('import/go')

const SECRET = 'the passphrase'
const CLIENT = { localaddr: ':12948', remoteaddr: '203.0.113.9:29900', key: SECRET, crypt: 'aes' }
const SERVER = { listen: ':29900', target: '127.0.0.1:8388', key: SECRET, crypt: 'aes' }
const CONNECT = ['--connect', '8388']

function paste(input: string | object, words: readonly string[] = [], world: World = {}): Promise<Outcome> {
  return tryCommand('import', ['-', ...words], {
    ...world,
    input: typeof input === 'string' ? input : JSON.stringify(input),
  })
}

/** The two files, checked as at start. */
function pairOf({ status, stdout, stderr, files }: Outcome): { client: Config; server: Config } {
  assert.is(status, 0, stderr)
  assert.equal([...files.keys()].filter((path) => /(client|server)\.json$/.test(path)).length, 2)
  const [client, server] = ['client.json', 'server.json'].map((name) => {
    const bytes = new TextEncoder().encode([...files].find(([path]) => path.endsWith(name))?.[1] ?? '')
    const config = parseConfig(bytes)
    checkStart(config, methods)
    assert.equal(examine(readJson(bytes)).unknown, [])
    return config
  })
  if (client === undefined || server === undefined) throw new Error('no pair')
  assert.is(client.mode, MODE_CLIENT)
  assert.is(server.mode, MODE_SERVER)
  const security = ({ method, psk, password }: Config): unknown => ({ method, psk, password })
  assert.equal(security(client), security(server), 'the two ends understand each other')
  assert.not.ok((stdout + stderr).includes(SECRET), 'the key is not shown')
  return { client, server }
}

/** What was reported of a setting. */
function reported({ stdout }: Outcome, name: string): { taken: string | undefined; left: string | undefined } {
  const [, taken = '', left = ''] = /taken over:\n(.*?)\n\n(?:not taken over:\n(.*?)\n\n)?/s.exec(stdout) ?? []
  const line = (text: string): string | undefined =>
    text.split('\n').find((candidate) => new RegExp(`^- (the default )?${name}\\b`).test(candidate))
  return { taken: line(taken), left: line(left) }
}

function assertRefused({ status, stderr, files }: Outcome, pattern: RegExp): void {
  assert.is(status, 1)
  assert.match(stderr, pattern)
  assert.is(stderr.trim().split('\n').length, 1, stderr)
  assert.not.ok(stderr.includes('passphrase'), 'the key is not shown')
  assert.is(files.size, 0, 'nothing is written')
}

const SAMPLE = {
  ...CLIENT,
  mode: 'fast2',
  conn: 4,
  autoexpire: 60,
  scavengettl: 600,
  mtu: 1350,
  sndwnd: 1024,
  rcvwnd: 2048,
  datashard: 70,
  parityshard: 30,
  dscp: 46,
  nocomp: false,
  acknodelay: true,
  sockbuf: 16777217,
  ratelimit: 1250000,
  smuxver: 2,
  keepalive: 10,
  closewait: 30,
  log: '/var/log/kcptun.log',
  snmplog: './snmp.log',
  snmpperiod: 60,
  quiet: true,
  tcp: true,
  pprof: false,
  'qpp-count': 61,
  color: 'red',
}

test('a client file becomes a pair, and what has no counterpart is named with the reason', async () => {
  const outcome = await paste(SAMPLE, CONNECT)
  const { client, server } = pairOf(outcome)
  assert.equal([client.listen, client.kcp_connect], ['[::]:12948', '203.0.113.9:29900'])
  assert.equal([server.kcp_bind, server.connect], ['0.0.0.0:29900', '127.0.0.1:8388'])
  assert.equal([client.method, client.password], ['aes256gcm', SECRET])
  assert.equal([client.kcp.mtu, server.kcp.mtu], [1378, 1378], 'of the path, so at both ends')
  assert.equal([client.keepalive, client.linger, client.dscp, server.dscp], [10, 30, 46, 0])
  assert.equal([client.udp.rcvbuf, client.udp.sndbuf], [16777217, 16777217])
  assert.equal([client.rate.up, client.rate.down, server.rate.up], [10, 0, 0], 'of one end, in Mbit/s')
  assert.equal([client.log, server.log], ['file:/var/log/kcptun.log', undefined])
  for (const key of ['sndwnd', 'rcvwnd', 'nodelay', 'interval', 'resend', 'nc'] as const) {
    assert.is(client.kcp[key], undefined, 'automatic')
  }
  for (const name of 'localaddr remoteaddr crypt key mtu dscp sockbuf ratelimit keepalive closewait log'.split(' ')) {
    assert.ok(reported(outcome, name).taken, name)
    assert.not.ok(reported(outcome, name).left, name)
  }
  const reasons: Readonly<Record<string, RegExp>> = {
    mode: /fast2: .*automatically .--tuning/,
    sndwnd: /1024: chosen automatically .--tuning/,
    rcvwnd: /2048/,
    conn: /4: each connection has a conversation/,
    autoexpire: /60: each connection/,
    scavengettl: /each connection/,
    datashard: /70: there is no forward error correction/,
    parityshard: /30: there is no forward/,
    compression: /there is none/,
    acknodelay: /automatically/,
    smuxver: /not multiplexed/,
    snmplog: /\/metrics/,
    snmpperiod: /\/metrics/,
    quiet: /not logged by default/,
    tcp: /obfs/,
    color: /unknown/,
  }
  for (const [name, pattern] of Object.entries(reasons)) {
    assert.match(reported(outcome, name).left ?? '', pattern, name)
    assert.not.ok(reported(outcome, name).taken, name)
  }
  for (const name of ['pprof', 'QPPCount']) assert.not.ok(reported(outcome, name).left, `${name} was not in use`)
  assert.match(outcome.stdout, /another protocol, so both ends must be changed together/)
  assert.match(outcome.stdout, / {4}kcptun-wasm -c server\.json\n.* {4}kcptun-wasm -c client\.json\n/s)
})

test('--tuning takes windows, buffers and the settings of the mode over', async () => {
  const { client, server } = pairOf(
    await paste({ ...SAMPLE, nodelay: 0, nc: 0, sockbuf: 4194304 }, [...CONNECT, '--tuning']),
  )
  const { sndwnd, rcvwnd, nodelay, interval, resend, nc } = client.kcp
  assert.equal([sndwnd, rcvwnd, nodelay, interval, resend, nc], [1024, 2048, 1, 20, 2, 1])
  assert.is(client.udp.rcvbuf, 4194304)
  assert.is(server.kcp.sndwnd, undefined, "the server's are not in the client's file")
  const manual = { ...CLIENT, mode: 'manual', nodelay: 1, interval: 20, resend: 3, nc: 0 }
  const { kcp } = pairOf(await paste(manual, [...CONNECT, '--tuning'])).client
  assert.equal([kcp.nodelay, kcp.interval, kcp.resend, kcp.nc], [1, 20, 3, 0])
})

test('a server file becomes a pair', async () => {
  const outcome = await paste({ ...SERVER, keepalive: 10, dscp: 46 }, ['--server', 'vpn.example', '--listen', ':1080'])
  const { client, server } = pairOf(outcome)
  assert.equal([client.listen, client.kcp_connect], [':1080', 'vpn.example:29900'])
  assert.equal([server.kcp_bind, server.connect, server.dscp], ['[::]:29900', '127.0.0.1:8388', 46])
  assert.is(client.keepalive, 25)
  assert.match(reported(outcome, 'keepalive').left ?? '', /only the client sends pings/)
  const behind = pairOf(await paste(SERVER, ['--server', '[2001:db8::7]:443', '--listen', '1080']))
  assert.equal([behind.client.kcp_connect, behind.server.kcp_bind], ['[2001:db8::7]:443', '[::]:29900'])
})

test('the files of both ends need nothing else', async () => {
  const files = new Map([
    ['server-config', JSON.stringify({ ...SERVER, sndwnd: 512 })],
    ['client-config', `./client -r 203.0.113.9:4000 -l 127.0.0.1:1080 --crypt aes --key '${SECRET}' --sndwnd 64`],
  ])
  const words = ['client-config', 'server-config', '--dir', 'new', '--tuning']
  const { client, server } = pairOf(await tryCommand('import', words, { files }))
  assert.equal([client.listen, client.kcp_connect, client.kcp.sndwnd], ['127.0.0.1:1080', '203.0.113.9:4000', 64])
  assert.equal([server.kcp_bind, server.connect, server.kcp.sndwnd], ['[::]:29900', '127.0.0.1:8388', 512])
  const refused = async (one: object, two: object, pattern: RegExp): Promise<void> => {
    const given = new Map([
      ['a', JSON.stringify(one)],
      ['b', JSON.stringify(two)],
    ])
    const { status, stderr, files: after } = await tryCommand('import', ['a', 'b'], { files: given })
    assert.equal([status, after.size], [1, 2])
    assert.match(stderr, pattern)
    assert.not.ok(stderr.includes('passphrase'))
  }
  await refused(CLIENT, CLIENT, /both are settings of a client/)
  await refused(CLIENT, { ...SERVER, key: 'another passphrase' }, /key = \(hidden\): differs between client and server/)
  await refused(CLIENT, { ...SERVER, crypt: 'sm4' }, /crypt = "aes" and "sm4": differs/)
  await refused(CLIENT, { kcp_bind: ':1' }, /two files can only be the two ends/)
})

test('command lines are read as a shell and the Go kcptun read them', async () => {
  for (const line of [
    `client_linux_amd64 -l :12948 -r 203.0.113.9:29900 --key "${SECRET}" -mode fast2 -nocomp -ds 0 --dscp=46`,
    `#!/bin/sh\n# my tunnel\ncd /opt\nnohup ./client --remoteaddr=203.0.113.9:29900 --key='${SECRET}' \\\n  --dscp 46 >> log 2>&1 &`,
    `ExecStart=/usr/bin/kcptun-client -r 203.0.113.9:29900 -key the\\ passphrase -dscp 46 -nocomp=true`,
    `KCPTUN_KEY="${SECRET}" client -r 203.0.113.9:29900 -dscp 46`,
  ]) {
    const { client } = pairOf(await paste(line, CONNECT))
    assert.equal(
      [client.listen, client.kcp_connect, client.password, client.dscp],
      ['[::]:12948', '203.0.113.9:29900', SECRET, 46],
      line,
    )
  }
  const line = `kcptun-server -l 192.0.2.1:4000 -t db.example:5432 -key "${SECRET}" --crypt salsa20`
  const { server } = pairOf(await paste(line, ['--server', '192.0.2.1', '--listen', '5432']))
  assert.equal(
    [server.kcp_bind, server.connect, server.method],
    ['192.0.2.1:4000', 'db.example:5432', 'xsalsa20poly1305'],
  )
})

test('words of a shell', () => {
  const texts = (text: string): string[][] => splitCommands(text).map((words) => words.map((word) => word.text))
  assert.equal(texts(`a 'b c' "d \\"e" f\\ g`), [['a', 'b c', 'd "e', 'f g']])
  assert.equal(texts('a; b && c | d & e\nf'), [['a'], ['b'], ['c'], ['d'], ['e'], ['f']])
  assert.equal(texts('a \\\n b \\\r\n c # d\n#e'), [['a', 'b', 'c']])
  assert.equal(texts('a "" > b 2>&1'), [['a', '']])
  const [words = []] = splitCommands(`$a "\`b\`" '$c' \\$d`)
  assert.equal(
    words.map(({ expands }) => expands),
    [true, true, false, false],
  )
})

test('the key becomes the password, a public or missing one a random psk', async () => {
  const fresh = /a random psk replaces it/
  for (const key of [undefined, '', "it's a secrect"]) {
    const outcome = await paste({ ...CLIENT, key }, CONNECT)
    const { client } = pairOf(outcome)
    assert.ok(client.psk !== undefined && client.password === undefined)
    assert.match(reported(outcome, 'key').left ?? '', fresh)
  }
  const random = await paste(CLIENT, [...CONNECT, '--new-key'])
  assert.ok(pairOf(random).client.psk)
  assert.match(reported(random, 'key').left ?? '', fresh)
  const open = await paste({ ...CLIENT, crypt: 'none' }, CONNECT)
  const { client } = pairOf(open)
  assert.equal([client.method, client.psk, client.password], [undefined, undefined, undefined])
  assert.match(reported(open, 'crypt').taken ?? '', /nothing is encrypted/)
  assert.not.match(open.stdout, /contain the key/)
  const ciphers = { 'aes-128': 'aes256gcm', xor: 'xchacha20poly1305_ietf', sm4: 'xchacha20poly1305_ietf' }
  for (const [crypt, method] of Object.entries(ciphers)) {
    assert.is(pairOf(await paste({ ...CLIENT, crypt }, CONNECT)).client.method, method)
  }
})

test('kcp.mtu counts the headers of the address family', async () => {
  for (const [remoteaddr, mtu, packet] of [
    ['203.0.113.9:1', 1200, 1228],
    ['vpn.example:1', 1200, 1228],
    ['[2001:db8::7]:1', 1200, 1248],
    ['203.0.113.9:1', 1500, 1500],
  ] as const) {
    assert.is(pairOf(await paste({ ...CLIENT, remoteaddr, mtu }, CONNECT)).client.kcp.mtu, packet)
  }
})

test('what the settings do not say is asked for, or named', async () => {
  assertRefused(await paste(CLIENT), /missing options: --connect <.*> \(no terminal/)
  assertRefused(await paste(SERVER), /missing options: --server <.*>, --listen <.*> \(no terminal/)
  assertRefused(await paste('client --key passphrase'), /is neither of a client|--server/)
  const files = new Map([['go.json', JSON.stringify(SERVER)]])
  const asked = await tryCommand('import', ['go.json', '--dir', 'x'], { files, answers: ['vpn.example', '1080'] })
  assert.equal(
    asked.questions.map((question) => question.split(' ')[0]),
    ['Address', 'TCP'],
  )
  assert.is(pairOf(asked).client.kcp_connect, 'vpn.example:29900')
  const other = pairOf(await paste(CLIENT, [...CONNECT, '--server', 'b:2', '--listen', '3']))
  assert.equal([other.client.kcp_connect, other.client.listen], ['b:2', '127.0.0.1:3'])
})

test('paths are Unix sockets', async () => {
  const { client } = pairOf(await paste({ ...CLIENT, localaddr: '/run/kcptun.sock' }, CONNECT))
  assert.is(client.listen, 'unix:/run/kcptun.sock')
})

test('bad settings are refused with key, value and reason', async () => {
  const cases: readonly (readonly [string | object, RegExp])[] = [
    [{ ...CLIENT, remoteaddr: 'vps:3000-3010' }, /remoteaddr = "vps:3000-3010": a range of ports: .* choose one/],
    [{ ...CLIENT, localaddr: 'run/kcptun.sock' }, /localaddr = .*the absolute path of a Unix socket/],
    [{ ...CLIENT, localaddr: ':x' }, /localaddr = ":x": the port must be/],
    [{ ...CLIENT, remoteaddr: ':29900' }, /remoteaddr = ":29900": the host is missing/],
    [{ ...CLIENT, crypt: 'rot13' }, /crypt = "rot13": unknown cipher, must be one of aes/],
    [{ ...CLIENT, mode: 'faster' }, /mode = "faster": unknown mode/],
    [{ ...CLIENT, mtu: 9000 }, /mtu = 9000: must be an integer from 272 to 1500/],
    [{ ...CLIENT, mtu: '1350' }, /mtu: must be an integer/],
    [{ ...CLIENT, keepalive: -1 }, /keepalive = "-1": must be an integer/],
    [{ ...CLIENT, keepalive: 900 }, /keepalive = 900: must be an integer from 0 to 600/],
    [{ ...CLIENT, dscp: 64 }, /dscp = 64: must be an integer from 0 to 63/],
    [{ ...CLIENT, tcp: 1 }, /tcp: must be true or false/],
    [{ ...CLIENT, key: 5 }, /key: must be a string/],
    [{ ...CLIENT, target: 'a:1' }, /settings of a client and of a server/],
    [{ key: SECRET, crypt: 'aes' }, /neither of a client .* nor of a server/],
    [`client -r a:1 --key the passphrase`, /no flag follows --key|belongs to no flag follows --key: quote/],
    ['client -r a:1 --key $KEY', /key = \(hidden\): is replaced by a shell/],
    ['client -r a:1 --mtu', /--mtu has no value/],
    ['client -r a:1 --fec', /--fec is no flag of the Go kcptun/],
    ['client -r a:1 --mtu x', /mtu = "x": must be an integer/],
    ['client -r a:1 --nocomp=x', /nocomp = "x": must be true or false/],
    ['client -c /etc/kcptun.json', /-c \/etc\/kcptun\.json: import that file instead/],
    ['client -r a:1\nclient -r b:1', /several command lines: give one file for each end/],
  ]
  for (const [input, pattern] of cases) assertRefused(await paste(input, CONNECT), pattern)
  assertRefused(await paste({ ...CLIENT, sndwnd: 8 }, [...CONNECT, '--tuning']), /sndwnd = 8: must be .* 16 to 65536/)
  assertRefused(await paste(CLIENT, [...CONNECT, '-o', 'x']), /--output is for one file, and this makes two: use --dir/)
})

test('either both files are written or none, and --force replaces both', async () => {
  const files = new Map([['client.json', 'mine']])
  const refused = await paste(CLIENT, [], { files, answers: ['8388'] })
  assert.equal(refused.questions, [], 'refused before the first question')
  assert.match(refused.stderr, /client\.json: already exists: replace it with --force/)
  assert.equal([...files], [['client.json', 'mine']])
  assertRefused(await paste(CLIENT, CONNECT, { broken: { 'client.json': 'ENOSPC' } }), /ENOSPC.*nothing was written/)
  pairOf(await paste(CLIENT, [...CONNECT, '--force'], { files }))
})

test.run()
