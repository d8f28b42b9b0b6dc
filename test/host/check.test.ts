/** `kcptun-wasm check` in memory: validity, effective values, warnings and notes. */

import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { didYouMean, editDistance, KEYS } from '../../host/config/unknown-keys.ts'
import { type Outcome, tryCommand } from './command-line.ts'

const test = suite('check')

const PSK = btoa('\x07'.repeat(32))
const SECURITY = { method: 'xchacha20poly1305_ietf', psk: PSK }
const CLIENT = { listen: '127.0.0.1:1080', kcp_connect: 'vpn.example:4000', ...SECURITY }
const SERVER = { connect: '127.0.0.1:80', kcp_bind: '0.0.0.0:4000', ...SECURITY }
const RELAY = { kcp_bind: '[::]:4000', ...SECURITY }

/** The output of --json. */
interface Report {
  readonly errors: readonly { readonly key: string }[]
  readonly valid: boolean
  readonly error: { readonly key: string; readonly reason: string; readonly message: string } | null
  readonly mode: string | null
  readonly method: string | null
  readonly key: string | null
  readonly datagrams: readonly Readonly<Record<string, number>>[]
  readonly values: Readonly<Record<string, unknown>>
  readonly set: readonly string[]
  readonly warnings: readonly string[]
  readonly notes: readonly string[]
}

function check(config: object | string, words: readonly string[] = [], mode = 0o600): Promise<Outcome> {
  const text = typeof config === 'string' ? config : JSON.stringify(config)
  return tryCommand('check', ['-c', 'a.json', ...words], { files: new Map([['a.json', text]]), mode })
}

async function report(config: object | string, mode?: number): Promise<Report> {
  const { status, stdout, stderr } = await check(config, ['--json'], mode)
  assert.is(stderr, '')
  const found: Report = JSON.parse(stdout)
  assert.is(found.valid, status === 0)
  return found
}

/** The warnings of a configuration. */
const warnings = async (config: object | string, mode?: number) => (await report(config, mode)).warnings

async function assertWarns(config: object, pattern: RegExp): Promise<void> {
  const found = await report(config)
  assert.ok(found.valid, found.error?.message)
  assert.is(found.warnings.length, 1, found.warnings.join('\n'))
  assert.match(found.warnings[0] ?? '', pattern)
}

test('a good file is valid without warnings', async () => {
  for (const [config, mode] of [
    [CLIENT, 'client'],
    [SERVER, 'server'],
    [RELAY, 'rendezvous server'],
    [{ connect: 'a:1', rendezvous_server: 'b:2', service_id: 'x', ...SECURITY }, 'server'],
  ] as const) {
    const found = await report(config)
    assert.is(found.mode, mode)
    assert.equal(found.warnings, [])
    assert.equal([...found.set].sort(), Object.keys(config).sort())
    const { status, stdout } = await check(config)
    assert.is(status, 0)
    assert.match(stdout, new RegExp(`^a\\.json: valid, ${mode}\n`))
    assert.not.match(stdout, PSK, 'the key is not shown')
  }
})

test('a configuration that would not start is invalid, and key and reason are named', async () => {
  const bad: readonly (readonly [object | string, string])[] = [
    [{}, 'kcp_bind'],
    ['{"listen": ', ''],
    [{ ...CLIENT, kcp: { mtu: 299 } }, 'kcp.mtu'],
    [{ ...CLIENT, connect: 'a:1' }, 'listen'],
    [{ ...CLIENT, method: 'rot13' }, 'method'],
    [{ ...CLIENT, psk: 'short' }, 'psk'],
    [{ ...CLIENT, listen: 'nowhere' }, 'listen'],
    [{ ...CLIENT, kcp_connect: ':1' }, 'kcp_connect'],
    [{ ...CLIENT, http_listen: '::1:80' }, 'http_listen'],
    [{ ...SERVER, kcp_bind: 'x' }, 'kcp_bind'],
    [{ ...SERVER, user: ':' }, 'user'],
  ]
  for (const [config, key] of bad) {
    const { valid, error } = await report(config)
    assert.not.ok(valid)
    assert.is(error?.key, key)
    const { status, stdout } = await check(config)
    assert.is(status, 1)
    assert.match(stdout, error?.message ?? 'no message')
  }
})

test('all errors of a file are listed, and what follows from another one is not', async () => {
  const keysOf = async (config: object | string): Promise<string[]> =>
    (await report(config)).errors.map(({ key }) => key)
  const bad = { ...CLIENT, kcp: { mtu: 299, sndwnd: -1, rcvwnd: 256 }, timeout: 'x', psk: 'short', loglevel: 99 }
  assert.equal((await keysOf(bad)).sort(), ['kcp.mtu', 'kcp.sndwnd', 'loglevel', 'psk', 'timeout'])
  const { stdout, status } = await check(bad)
  assert.is(status, 1)
  for (const key of ['kcp.mtu', 'kcp.sndwnd', 'loglevel', 'psk', 'timeout']) assert.match(stdout, `${key} `)
  assert.equal(await keysOf({ ...CLIENT, listen: 'nowhere' }), ['listen'])
  const addresses = {
    ...CLIENT,
    listen: 'a:99999',
    kcp_connect: 'nowhere',
    http_listen: 5,
    method: 'aes',
    psk: 'short',
  }
  assert.equal((await keysOf(addresses)).sort(), ['http_listen', 'kcp_connect', 'listen', 'method', 'psk'])
  assert.equal((await keysOf({ ...CLIENT, kcp_connect: undefined, psk: 'short' })).sort(), ['kcp_connect', 'psk'])
  assert.equal((await keysOf({ ...CLIENT, connect: 'a:1', psk: 'short' })).sort(), ['listen', 'psk'])
  assert.equal((await keysOf({ ...CLIENT, psk: undefined, obfs: 'dpi/tcp', kcp: 5 })).sort(), ['kcp', 'method'])
  assert.equal((await keysOf({ ...CLIENT, password: 'x', workers: 0 })).sort(), ['psk', 'workers'])
  assert.equal(await keysOf('{"listen": '), [''])
  assert.equal(await keysOf({}), ['kcp_bind'])
  assert.equal(await keysOf('{"kcp_bind": "a:1", "timeout": 60, "timeout": "x"}'), ['timeout'])
})

test('a file may name its schema', async () => {
  const { status, stdout } = await check({ $schema: 'https://example.org/schema.json', ...CLIENT })
  assert.is(status, 0)
  assert.not.match(stdout, 'unknown')
})

test('a missing or unreadable file yields one line on stderr and status 1', async () => {
  for (const words of [[], ['-c', 'none.json'], ['--json', '-c', 'none.json']]) {
    const { status, stdout, stderr } = await tryCommand('check', words)
    assert.is(status, 1)
    assert.is(stdout, '')
    assert.match(
      stderr,
      /^kcptun-wasm check: (config file none\.json: no such file \(ENOENT\)|no config file: start with).*\n$/,
    )
  }
})

test('the values are the effective ones, with secrets hidden', async () => {
  const { values, key, method } = await report({ ...CLIENT, timeout: 77, kcp: { mtu: 1300 } })
  assert.equal(Object.keys(values), KEYS)
  assert.is(values['timeout'], 77)
  assert.is(values['kcp.mtu'], 1300)
  assert.is(values['linger'], 30)
  assert.is(values['kcp.sndwnd'], null)
  assert.is(values['psk'], '(hidden)')
  assert.is(values['password'], null)
  assert.equal([key, method], ['psk', 'xchacha20poly1305_ietf'])
  assert.is((await report({ ...RELAY, psk: undefined, password: 'x' })).key, 'password')
  assert.is((await report({ kcp_bind: ':1' })).key, null)
})

test('datagram sizes follow protocol.md 4 and add up', async () => {
  // MSS for kcp.mtu = 1400, by seal and family
  for (const [method, v4, v6] of [
    [undefined, 1348, 1328],
    ['chacha20poly1305_ietf', 1320, 1300],
    ['aes256gcm', 1320, 1300],
    ['xchacha20poly1305_ietf', 1308, 1288],
    ['xsalsa20poly1305', 1308, 1288],
  ] as const) {
    const { datagrams } = await report({ ...CLIENT, method })
    assert.equal(
      datagrams.map(({ family, data }) => [family, data]),
      [
        [4, v4],
        [6, v6],
      ],
    )
    for (const { packet, headers = 0, seal = 0, segment = 0, data = 0 } of datagrams) {
      assert.is(packet, 1400)
      assert.is(headers + seal + segment + data, packet)
    }
  }
})

test('UDP and TCP exclude each other in a tunnel, and each role has its own keys', async () => {
  const message = async (config: object): Promise<string> => (await report(config)).error?.message ?? ''
  const [udp_listen, udp_connect] = ['127.0.0.1:5353', '127.0.0.1:53']
  assert.match(
    await message({ ...CLIENT, udp_listen }),
    /^config key udp_listen = "127.0.0.1:5353": conflicts with listen/,
  )
  assert.match(await message({ ...SERVER, udp_connect }), /^config key udp_connect = .*: conflicts with connect/)
  assert.match(await message({ ...SERVER, udp_listen }), /^config key udp_listen = .*: conflicts with connect/)
  assert.match(await message({ kcp_bind: ':1', udp_connect, udp_listen }), /^config key udp_connect = .* of a server/)
  assert.match(await message({ kcp_bind: ':1', udp_connect: 'unix:/x' }), /^config key udp_connect = "unix:\/x"/)
  assert.match(await message({ kcp_connect: 'a:1', udp_listen: 'nowhere' }), /^config key udp_listen = "nowhere"/)
  assert.match(await message({ udp_listen }), /^config key kcp_connect: missing/)
  assert.match(await message({ udp_connect }), /^config key kcp_bind: missing/)
  await assertWarns({ ...CLIENT, udp_timeout: 60 }, /udp_timeout is ignored/)
  await assertWarns({ ...CLIENT, hop_interval: 60 }, /hop_interval is ignored: kcp_connect has no range of ports/)
  await assertWarns({ ...CLIENT, strategy: 'round_robin' }, /strategy is ignored: kcp_connect names one server/)
  const { listen: _, ...client } = CLIENT
  assert.equal(await warnings({ ...client, udp_listen, udp_timeout: 60 }), [])
  const { notes } = await report({ ...client, udp_listen: ':53' })
  for (const what of ['any host that can reach', 'CAP_NET_BIND_SERVICE'])
    assert.ok(
      notes.some((text: string) => text.startsWith('config key udp_listen') && text.includes(what)),
      what,
    )
})

test('the family is reported as far as the file determines it', async () => {
  const families = async (config: object) => (await report(config)).datagrams.map(({ family }) => family)
  assert.equal(await families({ ...CLIENT, kcp_connect: '192.0.2.7:1' }), [4])
  assert.equal(await families({ ...CLIENT, kcp_connect: '[2001:db8::7]:1' }), [6])
  assert.equal(await families({ ...CLIENT, kcp_connect: '[fe80::7%eth0]:1' }), [6])
  assert.equal(await families({ ...CLIENT, kcp_bind: '0.0.0.0:0' }), [4])
  assert.equal(await families({ ...CLIENT, kcp_bind: '[::]:0' }), [4, 6])
  assert.equal(await families(SERVER), [4])
  assert.equal(await families(RELAY), [6])
  const met = { connect: 'a:1', ...SECURITY }
  assert.equal(await families({ ...met, rendezvous_server: '192.0.2.7:1' }), [4])
  assert.equal(await families({ ...met, rendezvous_server: '192.0.2.7:1', kcp_bind: '[::]:0' }), [6])
  assert.equal(await families({ ...met, rendezvous_server: 'b:1' }), [4, 6])
})

test('keys of other programs are reported with what to write instead; notes are not reported', async () => {
  const old = await report({ ...CLIENT, udp_connect: 'a:1' })
  assert.match(old.error?.message ?? '', /udp_connect = "a:1": is the target of a server; .* old .* is kcp_connect$/)
  const { warnings } = await report({
    localaddr: ':1',
    remoteaddr: 'a:1-9',
    key: 'k',
    crypt: 'aes',
    mode: 'fast3',
    conn: 1,
    sndwnd: 1024,
    datashard: 10,
    $schema: './schema.json',
    '//': 'a note',
  })
  for (const pattern of [
    /"localaddr" is ignored: .* write listen$/,
    /"remoteaddr" .* write kcp_connect/,
    /"key" .* write psk/,
    /"crypt" .* write method/,
    /"mode" .* leave it out/,
    /"conn" .* leave it out/,
    /"sndwnd" .* kcp\.sndwnd/,
    /"datashard" .* leave it out/,
    /protocol is another one/,
  ]) {
    assert.is(warnings.filter((text) => pattern.test(text)).length, 1, `${pattern}: ${warnings.join('\n')}`)
  }
  assert.not.match(warnings.join('\n'), /schema|note/)
  const server = await report({ listen: ':4000', target: '127.0.0.1:80', crypt: 'aes' })
  assert.match(server.warnings.join('\n'), /"listen" is the UDP address .* write kcp_bind/)
})

test('unknown keys are reported with the most similar known key', async () => {
  for (const [unknown, meant] of [
    ['lisen', 'listen'],
    ['Listen', 'listen'],
    ['kcp-connect', 'kcp_connect'],
    ['kcpconnect', 'kcp_connect'],
    ['mtu', 'kcp.mtu'],
    ['kcp.timeout', 'timeout'],
    ['kcp.sndwind', 'kcp.sndwnd'],
    ['passwrod', 'password'],
    ['remoteaddr', 'kcp_connect'],
    ['crypt', 'method'],
    ['comment', undefined],
    ['x', undefined],
  ] as const) {
    assert.is(didYouMean(unknown), meant, unknown)
  }
  await assertWarns({ ...CLIENT, timout: 5 }, /^unknown key "timout" is ignored, did you mean timeout\?$/)
  await assertWarns({ ...CLIENT, kcp: { comment: [1, { a: 2 }] } }, /^unknown key "kcp\.comment" is ignored$/)
  // they are also reported when the file is invalid
  const { error, warnings } = await report({ listen: ':1', kcp_conect: 'a:1' })
  assert.is(error?.key, 'kcp_connect')
  assert.match(warnings.join('\n'), 'did you mean kcp_connect?')
})

test('the edit distance is symmetric and counts edits', () => {
  const pairs = [
    ['', 'abc', 3],
    ['abc', 'abc', 0],
    ['abc', 'acb', 1],
    ['abc', 'axc', 1],
    ['abc', 'ab', 1],
  ] as const
  for (const [a, b, edits] of pairs) assert.is(editDistance(a, b), edits, `${a} ${b}`)
  const word = fc.string({ maxLength: 12 })
  fc.assert(
    fc.property(word, word, (a, b) => {
      const edits = editDistance(a, b)
      assert.is(edits, editDistance(b, a))
      assert.is(edits === 0, a === b)
      assert.ok(edits <= Math.max(a.length, b.length))
    }),
  )
})

test('a file with a key that other users can read yields a warning with the remedy', async () => {
  assert.equal(await warnings(CLIENT, 0o600), [])
  assert.equal(await warnings(CLIENT, 0o400), [])
  assert.match((await warnings(CLIENT, 0o644))[0] ?? '', /users can read the file .*\(mode 0644\): chmod 600 a\.json$/)
  assert.match((await warnings(CLIENT, 0o640))[0] ?? '', 'can read the file')
  assert.match((await warnings(CLIENT, 0o622))[0] ?? '', 'can change the file')
  assert.match((await warnings(CLIENT, 0o666))[0] ?? '', 'can read and change the file')
  const open = { kcp_bind: ':1' }
  assert.not.match((await warnings(open, 0o666)).join('\n'), 'other users')
})

test('each doubtful setting yields one warning', async () => {
  await assertWarns({ ...CLIENT, psk: undefined, password: 'x' }, /^config key password = \(hidden\): .*psk/)
  await assertWarns({ ...CLIENT, keepalive: 0 }, /^config key keepalive = 0: .*NAT/)
  await assertWarns({ ...CLIENT, keepalive: 60 }, /^config key keepalive = 60: .*NAT/)
  await assertWarns({ ...CLIENT, kcp: { mtu: 1500 } }, /^config key kcp\.mtu = 1500: /)
  await assertWarns({ ...CLIENT, udp: { rcvbuf: 65536 } }, /^config key udp\.rcvbuf = 65536: .*4 MiB/)
  await assertWarns({ ...CLIENT, tcp: { sndbuf: 100 } }, /^config key tcp\.sndbuf = 100: /)
  await assertWarns({ ...CLIENT, log: '/var/log/kcptun' }, /^config key log = "\/var\/log\/kcptun": unknown/)
  await assertWarns({ ...CLIENT, http_listen: ':8080' }, /^config key http_listen = ":8080": .*set http_token/)
  await assertWarns({ ...CLIENT, service_id: 'x' }, /^config key service_id is ignored/)
  const meeting = { rendezvous_server: '127.0.0.1:4000', service_id: 'x', ...SECURITY }
  await assertWarns({ connect: 'a:1', ...meeting }, /^config key rendezvous_server = "127\.0\.0\.1:4000": .*loopback/)
  assert.equal(await warnings({ connect: 'a:1', ...meeting, kcp_bind: '10.0.0.1:0' }), [])
  await assertWarns({ ...SERVER, kcp_connect: 'a:1' }, /^config key kcp_connect is ignored/)
  const open = await warnings({ ...CLIENT, method: undefined })
  assert.match(open.join('\n'), /not be encrypted(.|\n)*config key psk is ignored/)
  const twice = '{"kcp_bind": ":1", "kcp_bind": ":2", "method": "aes256gcm", "password": "x"}'
  assert.match((await warnings(twice)).join('\n'), 'config key kcp_bind is set more than once')
  // settings that are fine for a server or equal to a default
  assert.equal(await warnings({ ...SERVER, keepalive: 0, udp: { rcvbuf: 1 << 20 }, log: 'syslog' }), [])
})

test('remarkable settings yield notes', async () => {
  const notes = async (config: object) => (await report(config)).notes.join('\n')
  assert.is(await notes(CLIENT), '')
  assert.match(await notes({ ...CLIENT, listen: ':1080' }), 'any host that can reach this machine')
  assert.match(await notes({ ...CLIENT, listen: '127.0.0.1:80' }), 'CAP_NET_BIND_SERVICE')
  assert.match(await notes({ ...CLIENT, kcp: { sndwnd: 256, nc: 1 } }), 'config keys kcp.sndwnd, kcp.nc: ')
  assert.is(
    await notes({ ...CLIENT, memory: 64, max_sessions: 9 }),
    'keys ignored by kcptun-libev: memory, max_sessions',
  )
})

test('any JSON yields a verdict that agrees with the parser at start', async () => {
  const value = fc.oneof(fc.json(), fc.constantFrom('":80"', '"a:1"', '1', 'true', '{"mtu": 1}', '""'))
  const key = fc.constantFrom(...KEYS.filter((name) => !name.includes('.')), 'kcp', 'tcp', 'x')
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(key, value), { maxLength: 4 }), async (members) => {
      const text = `{${members.map(([name, json]) => `"${name}": ${json}`).join(',')}}`
      const { valid } = await report(text)
      if (valid) assert.ok(parseConfig(new TextEncoder().encode(text)))
    }),
    { numRuns: 500 },
  )
})

test('a wildcard address of a socket that cannot choose its source address is noted', async () => {
  // this environment has no system calls
  for (const [config, isNoted] of [
    [SERVER, true],
    [{ ...SERVER, udp: { path: 'portable' } }, true],
    [{ ...SERVER, udp: { path: 'fast' } }, false],
    [RELAY, true],
    [{ ...SERVER, kcp_bind: '192.0.2.1:4000' }, false],
    [{ ...CLIENT, kcp_bind: '0.0.0.0:4000' }, false],
    [{ ...SERVER, obfs: 'dpi/tcp' }, false],
  ] as const) {
    const { notes } = await report(config)
    const found = notes.filter((note) => /kcp_bind = .*portable UDP path.*bind to the one/.test(note))
    assert.is(found.length, isNoted ? 1 : 0, JSON.stringify(config))
  }
})

test('a name in kcp_bind of an obfuscated server is noted', async () => {
  for (const [config, isNoted] of [
    [{ ...SERVER, kcp_bind: 'server.example:4000', obfs: 'dpi/tcp' }, true],
    [{ ...SERVER, kcp_bind: 'server.example:4000' }, false],
    [{ ...SERVER, kcp_bind: '[2001:db8::1]:4000', obfs: 'dpi/tcp' }, false],
    [{ ...SERVER, kcp_bind: ':4000', obfs: 'dpi/tcp' }, false],
  ] as const) {
    const found = (await report(config)).notes.filter((note) => /kcp_bind = .*only one address of a name/.test(note))
    assert.is(found.length, isNoted ? 1 : 0, JSON.stringify(config))
  }
})

test.run()
