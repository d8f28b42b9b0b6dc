/** Files with `tunnels` in the subcommands that need no running program, and several tunnels in `top` and the log. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { frame } from '../../host/cli/top/frame.ts'
import { ratesOf, readSample } from '../../host/cli/top/sample.ts'
import { Log } from '../../host/log/log.ts'
import { TunnelLog } from '../../host/log/tunnel-log.ts'
import { tryCommand } from './command-line.ts'

const PSK = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='
const CLIENT = { listen: '127.0.0.1:1080', kcp_connect: 'vpn.example:4000' }
const SERVER = { name: 'web', connect: '127.0.0.1:80', kcp_bind: '0.0.0.0:4000', keepalive: 9 }
const FILE = { method: 'aes256gcm', psk: PSK, http_listen: ':8080', kcp: { mtu: 1300 }, tunnels: [CLIENT, SERVER] }

const check = (file: object, ...words: string[]) =>
  tryCommand('check', ['-c', 'a.json', ...words], { files: new Map([['a.json', JSON.stringify(file)]]), mode: 0o600 })

const test = suite('tunnels in commands')

test('check explains every tunnel, with what it sets and what it inherits', async () => {
  const { status, stdout } = await check(FILE)
  assert.is(status, 0)
  assert.match(stdout, 'a.json: valid, 2 tunnels')
  assert.match(stdout, /^tunnel client-1080: client\napplications -> TCP 127\.0\.0\.1:1080 -> UDP vpn/m)
  assert.match(stdout, /^tunnel web: server\n/m)
  assert.match(stdout, /^\* keepalive +9$/m)
  assert.match(stdout, /^ {2}kcp\.mtu +1300$/m)
  assert.match(stdout, /^\* http_listen +:8080$/m)
  assert.match(stdout, /warnings:\n- config key http_listen = ":8080": not a loopback address/)
  assert.is(stdout.split('not a loopback').length, 2)
  assert.not.match(stdout, PSK)
  const { tunnels, mode, values } = JSON.parse((await check(FILE, '--json')).stdout)
  assert.is(mode, null)
  assert.is(values.http_listen, ':8080')
  assert.equal(
    tunnels.map(({ name, mode: role, values: own }: Record<string, Record<string, unknown>>) => [
      name,
      role,
      own?.['keepalive'],
      own?.['psk'],
    ]),
    [
      ['client-1080', 'client', 25, '(hidden)'],
      ['web', 'server', 9, '(hidden)'],
    ],
  )
})

test('check lists every error of every entry, and what they inherit once', async () => {
  const { status, stdout } = await check({
    method: 'rot13',
    tunnels: [
      { ...CLIENT, kcp: { mtu: 3 }, listen: 'x' },
      { ...SERVER, user: 'nobody', linger: 1 },
      { ...SERVER, name: 'twin' },
    ],
  })
  assert.is(status, 1)
  for (const key of ['[0].kcp.mtu', '[0].listen', '[1].user', '[1].linger', '[2].kcp_bind', '[0].method']) {
    assert.match(stdout, `config key tunnels${key}`)
  }
  assert.is(stdout.split('unknown method').length, 2, stdout)
})

test('import writes a file with tunnels as it is', async () => {
  const text = JSON.stringify(FILE)
  const { status, stdout, files } = await tryCommand('import', ['-'], { input: text })
  assert.is(status, 0)
  assert.is(files.get('tunnels.json'), `${text}\n`)
  assert.match(stdout, 'Wrote tunnels.json, 2 tunnels. It contains the key')
  const bad = await tryCommand('import', ['-'], { input: JSON.stringify({ tunnels: [{}] }) })
  assert.match(bad.stderr, 'config key tunnels[0].kcp_bind: missing')
  assert.is(bad.files.size, 0)
})

test('a command about one tunnel needs its name', async () => {
  const files = new Map([['a.json', JSON.stringify(FILE)]])
  const several = await tryCommand('doctor', ['-c', 'a.json'], { files })
  assert.is(several.status, 1)
  assert.match(several.stderr, 'has several tunnels, choose one with --tunnel: client-1080, web')
  const none = await tryCommand('top', ['-c', 'a.json', '--tunnel', 'x', '--once'], { files })
  assert.match(none.stderr, 'has no tunnel "x": client-1080, web')
})

test('top shows a line for each tunnel, those that do not work first', () => {
  const at = (seconds: number) =>
    readSample({
      version: 1,
      program: { name: 'kcptun-wasm', version: '0', runtime: 'node', runtime_version: '20', mode: 'tunnels' },
      uptime_ms: seconds * 1000,
      ready: false,
      health: 'home: peer unreachable',
      sessions: [{ tunnel: 'web', conv: '0A', state: 'established', peer: '192.0.2.1:9' }],
      tunnels: [
        { name: 'web', mode: 'server', ready: true, health: 'healthy', tcp_written_bytes: seconds * 125_000 },
        // as in /stats.json
        { name: 'home', mode: 'client', ready: false, health: 'peer unreachable', counters: { tcp_read_bytes: 5 } },
      ],
    })
  const sample = at(2)
  const view = { received: [], sent: [], order: 'rate', offset: 0, trouble: undefined, url: 'x' } as const
  const style = { color: false, blocks: true, keys: false }
  const lines = frame({ ...view, sample, rates: ratesOf(at(1), sample) }, 100, 24, style)
  const text = lines.join('\n')
  assert.match(text, /home +client .*peer unreachable\nweb +server +0 +1\.0+ Mbit\/s +0 bit\/s healthy/)
  assert.match(text, /CONV +STATE +TUNNEL/)
  assert.match(text, /0A +established +web/)
  for (let rows = 0; rows < 20; rows++) {
    assert.ok(frame({ ...view, sample, rates: undefined }, 40, rows, style).length <= rows, String(rows))
  }
})

test('lines of a tunnel carry its name; limits and recent lines are its own', () => {
  const printed: string[] = []
  const log = new Log((_, text) => printed.push(text))
  const first = new TunnelLog(log, 'one', () => new Date())
  const second = new TunnelLog(log, 'two', () => new Date())
  first.warning('[session:07C3522B] slow')
  second.debug('not shown')
  assert.is(printed.length, 1)
  assert.match(printed[0] ?? '', /^W \S+ \[one\] \[session:07C3522B\] slow\n$/)
  first.limited('x', 3, 'a')
  second.limited('x', 3, 'b')
  first.limited('x', 3, 'c')
  assert.equal(
    printed.slice(1).map((line) => line.slice(-8)),
    ['[one] a\n', '[two] b\n'].map((line) => line.slice(-8)),
  )
  assert.equal(
    second.recent.map(({ text }) => text),
    ['b'],
  )
  assert.equal(
    log.recent.map(({ text }) => text),
    ['[one] [session:07C3522B] slow', '[one] a', '[two] b'],
  )
  log.setFormat('json')
  log.setLevel(6)
  assert.ok(first.at(6))
  first.debug('[session:07C3522B] slow')
  const { tunnel, session, text } = JSON.parse(printed.at(-1) ?? '')
  assert.equal([tunnel, session, text], ['one', '07C3522B', '[session:07C3522B] slow'])
})

test.run()
