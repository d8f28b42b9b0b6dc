/** The environment of a SIP003 plugin as a configuration: options, escapes, addresses, a file with further keys. */
import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseArgs } from '../../host/cli/args.ts'
import { pluginSource } from '../../host/cli/plugin.ts'
import type { Config, ConfigFile } from '../../host/config/config.ts'
import { explainPlugin, parsePluginOptions, pluginConfig, readPlugin } from '../../host/config/sip003.ts'
import { parseFile } from '../../host/config/tunnels.ts'
import { messageOf } from '../../host/errors.ts'
import { Log } from '../../host/log/log.ts'
import type { OperatingSystem } from '../../host/runtime.ts'
import { MemoryNetwork } from './memory-runtime.ts'

const test = suite('sip003')

const PSK = `${'A'.repeat(43)}=`
const ENV: Readonly<Record<string, string>> = {
  SS_REMOTE_HOST: 'ss.example',
  SS_REMOTE_PORT: '8388',
  SS_LOCAL_HOST: '127.0.0.1',
  SS_LOCAL_PORT: '40001',
}

interface Scene {
  readonly env?: Readonly<Record<string, string>>
  /** Content of the file that `config` names. */
  readonly file?: object | string
}

/** What the program makes of options. @throws the error that it would log */
function start(
  options: string,
  { env = {}, file }: Scene = {},
): ConfigFile & { readonly overridden: string | undefined } {
  const all: Readonly<Record<string, string>> = { ...ENV, SS_PLUGIN_OPTIONS: options, ...env }
  const plugin = readPlugin((name) => all[name])
  const text = typeof file === 'string' ? file : JSON.stringify(file)
  try {
    const { bytes, overridden } = pluginConfig(plugin, text === undefined ? undefined : new TextEncoder().encode(text))
    return { ...parseFile(bytes), overridden }
  } catch (error) {
    throw explainPlugin(plugin, error)
  }
}

const configOf = (options: string, scene?: Scene): Config => start(options, scene).config

function refused(options: string, message: string, scene?: Scene): void {
  try {
    start(options, scene)
  } catch (error) {
    assert.match(messageOf(error), message, options)
    return
  }
  throw new Error(`accepted: ${options}`)
}

test('a client listens where shadowsocks sends, and its server is the one of shadowsocks', () => {
  const config = configOf(`psk=${PSK}`)
  assert.is(config.listen, '127.0.0.1:40001')
  assert.is(config.kcp_connect, 'ss.example:8388')
  assert.is(config.connect, undefined)
  assert.is(config.kcp_bind, undefined)
  assert.is(config.psk, PSK)
  assert.is(config.method, 'xchacha20poly1305_ietf', 'a key is never without effect')
})

test('a server binds to the address of shadowsocks, and its target is shadowsocks', () => {
  const env = { SS_REMOTE_HOST: '0.0.0.0' }
  for (const server of ['server', 'server=', 'server=true', ' server ']) {
    const config = configOf(`${server};password=secret;method=aes256gcm`, { env })
    assert.is(config.connect, '127.0.0.1:40001')
    assert.is(config.kcp_bind, '0.0.0.0:8388')
    assert.is(config.listen, undefined)
    assert.is(config.method, 'aes256gcm')
  }
  assert.is(configOf('server=false').listen, '127.0.0.1:40001')
})

test('IPv6 addresses are in brackets, with a zone too, and may come in brackets', () => {
  const env = { SS_REMOTE_HOST: '2001:db8::1', SS_LOCAL_HOST: '::1' }
  assert.is(configOf('', { env }).kcp_connect, '[2001:db8::1]:8388')
  assert.is(configOf('', { env }).listen, '[::1]:40001')
  assert.is(configOf('', { env: { SS_REMOTE_HOST: 'fe80::1%eth0' } }).kcp_connect, '[fe80::1%eth0]:8388')
  assert.is(configOf('', { env: { SS_REMOTE_HOST: '[2001:db8::1]' } }).kcp_connect, '[2001:db8::1]:8388')
  assert.is(configOf('server', { env }).connect, '[::1]:40001')
})

test('several hosts are servers of a client, and sockets of a server', () => {
  const hosts = (text: string): Scene => ({ env: { SS_REMOTE_HOST: text } })
  assert.equal(configOf('', hosts('a.example|::1|a.example')).servers, ['a.example:8388', '[::1]:8388'])
  const bound = (text: string): (string | undefined)[] => {
    const { config, tunnels = [config] } = start(`server;psk=${PSK};kcp.mtu=1300`, hosts(text))
    for (const one of tunnels) {
      assert.is(one.connect, '127.0.0.1:40001')
      assert.is(one.psk, PSK)
      assert.is(one.kcp.mtu, 1300)
    }
    return tunnels.map(({ kcp_bind }) => kcp_bind)
  }
  assert.equal(bound('127.0.0.1|::1'), ['127.0.0.1:8388', '[::1]:8388'])
  assert.equal(bound('::0|0.0.0.0'), ['[::]:8388'], 'one socket serves both families')
  assert.equal(bound('0.0.0.0|127.0.0.1'), ['0.0.0.0:8388'])
  assert.equal(bound('127.0.0.1|127.0.0.1'), ['127.0.0.1:8388'])
})

test('port is in place of the port of shadowsocks, and may be a range', () => {
  assert.is(configOf('port=4000').kcp_connect, 'ss.example:4000')
  assert.is(configOf('port=4000-4999').kcp_connect, 'ss.example:4000-4999')
  const env = { SS_REMOTE_HOST: '0.0.0.0' }
  assert.is(configOf('server;port=4000-4063', { env }).kcp_bind, '0.0.0.0:4000-4063')
  refused('port=', 'option port = "": must be a port')
  refused('port=http', 'option port = "http"')
  refused('port=0-9', 'SS_REMOTE_HOST, SS_REMOTE_PORT = "ss.example:0-9": a range of ports')
  refused('server;port=4000-4999', 'at most 64 ports', { env })
})

test('every type of key is read, and checked as in a file', () => {
  const config = configOf(
    'kcp.mtu=1300;rate.up=2.5;rate.session_down=1;tcp.nodelay=false;tcp.reuseport;loglevel=6;obfs=dpi/tcp;psk=x;strategy=least_rtt',
  )
  assert.equal(config.rate, { up: 2.5, down: 0, session_up: 0, session_down: 1 })
  assert.is(config.kcp.mtu, 1300)
  assert.is(config.tcp.nodelay, false)
  assert.is(config.tcp.reuseport, true)
  assert.is(config.loglevel, 6)
  assert.is(config.obfs, 'dpi/tcp')
  assert.is(config.strategy, 'least_rtt')
  assert.is(config.tcp.keepalive, configOf('').tcp.keepalive, 'other keys of an object have their defaults')
  const from = configOf('proxy_protocol_from=10.0.0.0/8;proxy_protocol_from=::1').proxy_protocol_from
  assert.equal(from, ['10.0.0.0/8', '::1'])
})

test('a bad option is named with its value and the reason', () => {
  refused('kcp.mtu=10', 'SS_PLUGIN_OPTIONS: option kcp.mtu = 10: must be an integer from 300 to 1500')
  refused('rate.up=fast', 'option rate.up = "fast": must be a number from 0 to 100000')
  refused('kcp.mtu=big', 'option kcp.mtu = "big": must be an integer')
  refused('kcp.mtu', 'option kcp.mtu: the value is missing')
  refused('tcp.nodelay=maybe', 'option tcp.nodelay = "maybe": must be true or false')
  refused('loglevel=info', 'option loglevel = "info": must be an integer')
  refused('loglevel=1;loglevel=2', 'option loglevel is set more than once')
  for (const key of ['proxy_users', 'keys']) refused(`${key}=a`, 'config=FILE')
  refused('udp.path=slow', 'option udp.path = "slow": must be one of')
  refused('workers=2;obfs=dpi/tcp;psk=x', 'option workers = 2: conflicts with obfs')
})

test('unknown options are errors, with the key that was meant', () => {
  refused('mtu=1300', 'option mtu is unknown, did you mean kcp.mtu?')
  refused('crypt=aes', 'option crypt is unknown')
  refused('key=secret-text', 'did you mean psk?')
  refused('constructor=1', 'option constructor is unknown')
  refused('__proto__=1', 'option __proto__ is unknown')
  refused('kcp=1', 'option kcp is unknown')
  refused('listen=:1', 'option listen: shadowsocks gives this address')
  refused('connect=:1', 'option connect: shadowsocks gives this address')
  refused('tunnels=1', 'a plugin is one tunnel')
  refused('server=ss.example', 'option server = "ss.example"')
})

test('no message has a secret', () => {
  for (const options of [
    'psk=s3cret',
    'psk=s3cret;password=s3cret',
    'pks=s3cret',
    'psk=s3cret;psk=s3cret',
    'http_token=s3cret',
  ]) {
    try {
      start(options)
    } catch (error) {
      assert.not.match(messageOf(error), 's3cret', options)
    }
  }
})

test('shadowsocks-android: its VPN mode is refused, fast open has no effect', () => {
  refused('__android_vpn', 'VPN mode of shadowsocks-android is not supported')
  assert.equal(readPlugin((name) => ({ ...ENV, SS_PLUGIN_OPTIONS: 'fast-open;fastOpen=1' })[name]).ignored, [
    'fast-open',
    'fastOpen',
  ])
})

test('missing and malformed variables are named', () => {
  for (const name of Object.keys(ENV)) refused('', `${name}: missing`, { env: { [name]: '' } })
  refused('', 'SS_REMOTE_PORT = "0"', { env: { SS_REMOTE_PORT: '0' } })
  refused('', 'SS_LOCAL_PORT = "65536"', { env: { SS_LOCAL_PORT: '65536' } })
  refused('', 'SS_LOCAL_PORT = "-1"', { env: { SS_LOCAL_PORT: '-1' } })
  for (const host of ['a||b', '|', 'a b', 'a|', '[::1'])
    refused('', 'SS_REMOTE_HOST', { env: { SS_REMOTE_HOST: host } })
  refused('', 'SS_LOCAL_HOST, SS_LOCAL_PORT', { env: { SS_LOCAL_HOST: 'a b' } })
})

test('a file has further keys: options replace them, and shadowsocks its own addresses', () => {
  const file = {
    $schema: 'x',
    listen: '127.0.0.1:1080',
    method: 'aes256gcm',
    psk: PSK,
    kcp: { mtu: 1400, sndwnd: 100 },
    http_listen: '127.0.0.1:9000',
  }
  const config = configOf('config=/etc/k.json;kcp.mtu=1300;loglevel=3', { file })
  assert.is(config.listen, '127.0.0.1:40001')
  assert.is(config.kcp_connect, 'ss.example:8388')
  assert.is(config.kcp.mtu, 1300)
  assert.is(config.kcp.sndwnd, 100)
  assert.is(config.loglevel, 3)
  assert.is(config.method, 'aes256gcm')
  assert.is(config.http_listen, '127.0.0.1:9000')
})

test('the keys of users come from a file, with a method, and only a server has them', () => {
  const file = { keys: [{ name: 'alice', psk: PSK }] }
  assert.is(configOf('server;config=x', { file, env: { SS_REMOTE_HOST: '::' } }).method, 'xchacha20poly1305_ietf')
})

test('a set remote address wins, and is reported', () => {
  const file = { listen: ':1', kcp_connect: 'other.example:4000', psk: PSK }
  const { config, overridden } = start('config=x', { file })
  assert.is(config.kcp_connect, 'other.example:4000')
  assert.is(overridden, 'kcp_connect')
  assert.equal(configOf('kcp_connect=a:1;kcp_connect=b:1').servers, ['a:1', 'b:1'])
  const met = start('rendezvous_server=r.example:4000;service_id=ss')
  assert.is(met.config.kcp_connect, undefined)
  assert.is(met.overridden, 'rendezvous_server')
  assert.is(start('server', {}).overridden, undefined)
  assert.is(configOf('kcp_bind=127.0.0.1:0').kcp_connect, 'ss.example:8388', 'a client may bind')
})

test('a file of the wrong end, of several tunnels, of UDP or without JSON is refused', () => {
  refused('config=x', 'option config = "x": is for a server (connect)', { file: { connect: ':1' } })
  refused('server;config=x', 'is for a client (listen)', { file: { listen: ':1' } })
  refused('config=x', 'has tunnels', { file: { tunnels: [] } })
  refused('config=x', 'forwards UDP', { file: { udp_listen: ':1' } })
  refused('config=x', 'must be a JSON object', { file: '[]' })
  refused('config=x', 'line 1', { file: '{' })
  refused('config=x', 'config key kcp.mtu = 10', { file: { kcp: { mtu: 10 } } })
  refused('config=x;kcp.mtu=1300', 'config key kcp = 5: must be a JSON object', { file: { kcp: 5 } })
  refused('config=x', 'in plain decimal digits', { file: '{"kcp": {"mtu": 1e3}}' })
  refused('config=', 'option config: the path of a file is missing')
})

test('escapes: semicolons, equal signs and backslashes; anything else after a backslash stays', () => {
  const of = (text: string): unknown => parsePluginOptions(text).map(({ name, value }) => [name, value])
  assert.equal(of('a=1;b;c=;'), [
    ['a', '1'],
    ['b', undefined],
    ['c', ''],
  ])
  assert.equal(of(String.raw`a\=b=c\;d\\e\=f`), [['a=b', String.raw`c;d\e=f`]])
  assert.equal(of(String.raw`config=C:\Users\me\k.json`), [['config', String.raw`C:\Users\me\k.json`]])
  assert.equal(of('psk=AA==;;;'), [['psk', 'AA==']])
  refused('a\\', 'a backslash at the end')
  refused('=x', 'no name')
  const escaped = (text: string): string => text.replace(/[;=\\]/g, '\\$&')
  const name = fc.string({ minLength: 1 }).map((text) => `x${text}y`)
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.string())), (pairs) => {
      const text = pairs.map((pair) => pair.map(escaped).join('=')).join(';')
      assert.equal(of(text), pairs)
    }),
  )
})

test('a UDP port in use: what to do about the UDP relay is said on a server alone', () => {
  const error = new Error('udp: cannot open 0.0.0.0:8388: bind EADDRINUSE 0.0.0.0:8388')
  const explained = (options: string): string =>
    messageOf(
      explainPlugin(
        readPlugin((name) => ({ ...ENV, SS_PLUGIN_OPTIONS: options })[name]),
        error,
      ),
    )
  assert.match(explained('server'), /EADDRINUSE.*UDP relay.*"mode": "tcp_only".*port=/)
  assert.is(explained(''), error.message)
})

test('command line: a file or a command wins over the environment, a plugin does not become a daemon', () => {
  const kind = (...words: string[]): string => parseArgs(words, true).kind
  assert.is(parseArgs([]).kind, 'error', 'without the environment')
  assert.equal(parseArgs(['-v', '-V', '-fast-open', '--fast-open'], true), {
    kind: 'run',
    config: undefined,
    verbosity: 1,
    user: undefined,
    daemonize: false,
    logFormat: 'plain',
  })
  assert.is((parseArgs(['-c', 'x.json'], true) as { config?: string }).config, 'x.json')
  assert.is(kind('check', 'x.json'), 'command')
  assert.is(kind('--version'), 'version')
  assert.is(kind('-d'), 'error')
  assert.is(kind('--nonsense'), 'error')
  assert.is(parseArgs(['-V']).kind, 'error', 'the words of Android mean nothing elsewhere')
})

test('-V of shadowsocks-android is refused', () => {
  const os: Partial<OperatingSystem> = { env: (name) => ENV[name] }
  const runtime = Object.assign(new MemoryNetwork().runtime(), { os: os as OperatingSystem })
  const log = new Log(
    () => {},
    () => new Date(0),
  )
  assert.throws(() => pluginSource(runtime, log, ['-V'], 1), /argument -V: the VPN mode/)
  assert.is(pluginSource(runtime, log, ['-fast-open'], 1).path, undefined)
})

test.run()
