/** Options of the library: the rules and errors of configuration files, under the names of the options. */
import {
  ClosedError,
  ConfigError,
  createClient,
  createServer,
  createTunnel,
  generatePsk,
  NotAvailable,
  RefusedError,
  ResetError,
  StartError,
} from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { errorOf, psk, soon, textOf, withPair } from './pair.ts'

const test = suite('library/options')

test('the classes of errors and their codes', () => {
  const codes = [
    [new ConfigError('key', '', 'reason'), ConfigError, 'ERR_KCPTUN_CONFIG', 'ConfigError'],
    [new StartError('x'), StartError, 'ERR_KCPTUN_START', 'StartError'],
    [new ResetError('x'), ResetError, 'ERR_KCPTUN_RESET', 'ResetError'],
    [new RefusedError('x'), RefusedError, 'ERR_KCPTUN_REFUSED', 'RefusedError'],
    [new ClosedError('x'), ClosedError, 'ERR_KCPTUN_CLOSED', 'ClosedError'],
    [new NotAvailable('x'), NotAvailable, 'ERR_KCPTUN_NOT_AVAILABLE', 'NotAvailable'],
  ] as const
  for (const [error, type, code, name] of codes) {
    assert.instance(error, type)
    assert.instance(error, Error)
    assert.is(error.code, code)
    assert.is(error.name, name)
  }
})

const server = '127.0.0.1:4000'

/** Options of a client, the key that the error names, and its reason. */
const wrong: readonly (readonly [options: unknown, key: string, reason: RegExp])[] = [
  [{ server, psk, timeuot: 5 }, 'timeuot', /unknown option, did you mean timeout\?/],
  [{ servr: server, psk }, 'servr', /unknown option/],
  [{ server, psk, onStream: () => {} }, 'onStream', /unknown option/],
  [{ server, psk, kcp: { mtuu: 1400 } }, 'kcp.mtuu', /did you mean kcp\.mtu\?/],
  [{ server, psk, kcp: { mtu: 10 } }, 'kcp.mtu', /300/],
  [{ server, psk, kcp: 5 }, 'kcp', /object/],
  [{ server, psk, timeout: '5' }, 'timeout', /integer|number/],
  [{ server, psk, timeout: Number.NaN }, 'timeout', /integer|number/],
  [{ server, psk, timeout: 5n }, 'timeout', /integer|number/],
  [{ server, psk, memory: 1e9 }, 'memory', /./],
  [{ server: 4000, psk }, 'server', /string/],
  [{ server: 'nowhere', psk }, 'server', /host:port/],
  [{ server: [server, 'nowhere'], psk }, 'server', /host:port/],
  [{ server: [server, server], psk }, 'server', /twice/],
  [{ server: [], psk }, 'server', /empty/],
  [{ server, bind: 'x', psk }, 'bind', /host:port/],
  [{ psk }, 'server', /./],
  [{ server }, 'psk', /required/],
  [{ server, psk: 'short' }, 'psk', /./],
  [{ server, psk, password: 'x' }, 'psk', /password/],
  [{ server, psk, method: 'rot13' }, 'method', /./],
  [{ server, psk, method: null }, 'psk', /no use/],
  [{ server, psk, when_down: 'close' }, 'when_down', /hold or reset/],
  [{ server, psk, listen: ':1' }, 'listen', /createTunnel/],
  [{ server, psk, connect: ':1' }, 'connect', /createTunnel/],
  [{ server, psk, kcp_connect: server }, 'kcp_connect', /option server/],
  [{ server, psk, kcp_bind: server }, 'kcp_bind', /option bind/],
  [{ server, psk, tcp: {} }, 'tcp', /no TCP/],
  [{ server, psk, log: 'stdout' }, 'log', /option logger/],
  [{ server, psk, user: 'nobody' }, 'user', /program/],
  [{ server, psk, workers: 2 }, 'workers', /program/],
  [{ server, psk, logger: {} }, 'logger', /error, warn, info, debug/],
  [{ server, psk, logger: null }, 'logger', /methods/],
  [{ server, psk, signal: true }, 'signal', /methods/],
  [{ server, psk, transport: { open() {} } }, 'transport', /open, send, close/],
  [undefined, 'options', /object/],
  [null, 'options', /object/],
  ['127.0.0.1:4000', 'options', /object/],
]

for (const [options, key, reason] of wrong) {
  const name = typeof options === 'object' && options !== null ? Object.keys(options).join(' ') : String(options)
  test(`createClient refuses ${key} (${name})`, async () => {
    const error = (await errorOf(createClient(options as never))) as InstanceType<typeof ConfigError>
    assert.instance(error, ConfigError)
    assert.is(error.key, key)
    assert.match(error.reason, reason)
    assert.ok(error.message.includes(error.reason))
    assert.not.ok(error.message.includes(psk), 'the key is not shown')
  })
}

test('createServer has the same rules, and none of the options of clients', async () => {
  const handler = (): void => {}
  const cases = [
    [{ server, psk }, 'server', /clients/],
    [{ bind: ':0', psk, when_down: 'hold' }, 'when_down', /clients/],
    [{ bind: 'x', psk }, 'bind', /host:port/],
    [{ psk }, 'bind', /./],
    [{ bind: ':0', psk, kcp: { sndwnd: -1 } }, 'kcp.sndwnd', /./],
  ] as const
  for (const [options, key, reason] of cases) {
    const error = (await errorOf(createServer(options as never, handler))) as InstanceType<typeof ConfigError>
    assert.is(error.key, key, error.message)
    assert.match(error.reason, reason)
  }
  assert.instance(await errorOf(createServer({ bind: ':0', psk }, undefined as never)), TypeError)
})

test('createTunnel refuses what belongs into its configuration, and what it cannot do', async () => {
  const config = { kcp_connect: server, listen: '127.0.0.1:0', method: 'xchacha20poly1305_ietf', psk }
  const cases = [
    [{}, 'config', /name of a file/],
    [{ config: 5 }, 'config', /name of a file/],
    [{ config, psk }, 'psk', /belongs into config/],
    [{ config, color: 'red' }, 'color', /unknown option/],
    [{ config: { ...config, workers: 2 } }, 'workers', /program/],
    [{ config: { ...config, user: 'nobody' } }, 'user', /program/],
    [{ config: { ...config, kcp: { mtu: 1 } } }, 'kcp.mtu', /300/],
  ] as const
  for (const [options, key, reason] of cases) {
    const error = (await errorOf(createTunnel(options as never))) as InstanceType<typeof ConfigError>
    assert.is(error.key, key, error.message)
    assert.match(error.reason, reason)
  }
  assert.is((await errorOf(createTunnel({ config: '/nonexistent.json' }))).code, 'ERR_KCPTUN_START')
})

test('a port in use is a StartError', async () => {
  await using server = await createServer({ bind: '127.0.0.1:0', psk }, () => {})
  const error = await errorOf(createServer({ bind: server.address ?? '', psk }, () => {}))
  assert.is(error.code, 'ERR_KCPTUN_START')
})

const echo = (stream: { pipe(other: unknown): unknown }): unknown => stream.pipe(stream)

for (const [name, options] of [
  ['a password', { psk: undefined, password: 'correct horse battery staple' }],
  ['another method', { method: 'aes256gcm' }],
  ['no method', { psk: undefined, method: null }],
  ['undefined values', { timeout: undefined, kcp: undefined, udp: { path: undefined } }],
] as const)
  test(`both ends with ${name}`, () =>
    withPair(
      echo,
      async (client) => {
        const stream = await client.connect(soon())
        stream.end('x')
        assert.is(await textOf(stream), 'x')
      },
      { client: options, server: options },
    ))

test('http_listen opens the monitoring server, and close() closes it', async () => {
  const probe = await createTunnel({ config: { kcp_bind: '127.0.0.1:0', method: 'aes256gcm', psk: generatePsk() } })
  await probe.close()
  const port = 20_000 + Math.floor(Math.random() * 10_000)
  const client = await createClient({ server, psk, http_listen: `127.0.0.1:${port}` })
  const url = `http://127.0.0.1:${port}/stats.json`
  const response = await fetch(url)
  assert.is(response.status, 200)
  await response.json()
  await client.close()
  await errorOf(fetch(url))
})

test.run()
