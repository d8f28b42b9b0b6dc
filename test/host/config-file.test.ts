/** The file format (protocol.md 10.1) and the rules between keys (protocol.md 10.3, 3.7 and 4). */

import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from '../../host/config/config.ts'
import { parseConfig } from '../../host/config/load.ts'
import { checkServiceId, kcpMtu } from '../../host/config/mtu.ts'
import { configWarnings, modeName } from '../../host/config/rules.ts'
import { checkStart, parsePsk } from '../../host/config/security.ts'
import { ConfigError } from '../../host/errors.ts'
import { parseHostPort } from '../../host/net/address.ts'

const METHODS = ['xchacha20poly1305_ietf', 'xsalsa20poly1305', 'chacha20poly1305_ietf', 'aes256gcm']
const PSK = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='

const utf8 = (text: string) => new TextEncoder().encode(text)
const parse = (document: object) => parseConfig(utf8(JSON.stringify(document)))

function refusal(action: () => unknown, key: string, reason: string): ConfigError {
  try {
    action()
  } catch (error) {
    if (error instanceof ConfigError) {
      assert.is(error.key, key)
      assert.match(error.message, reason)
      return error
    }
    throw error
  }
  throw new Error(`nothing was refused, expected: ${key}: ${reason}`)
}

/** A server configuration with additional members as raw bytes. */
function around(members: string | readonly number[]): Uint8Array {
  const middle = typeof members === 'string' ? utf8(members) : Uint8Array.from(members)
  const head = utf8('{"kcp_bind":":1",')
  const tail = utf8(',"connect":"a:1"}')
  return Uint8Array.from([...head, ...middle, ...tail])
}

const test = suite('config file')

test('the smallest configuration of each mode yields that mode', () => {
  const modes = [
    [{ connect: 'a:1', kcp_bind: ':1' }, MODE_SERVER, 'server'],
    [{ listen: 'a:1', kcp_connect: 'a:1' }, MODE_CLIENT, 'client'],
    [{ kcp_bind: ':1' }, 0, 'rendezvous server'],
    [{ kcp_bind: ':1', rendezvous_server: 'a:1' }, MODE_RENDEZVOUS, 'rendezvous server'],
    [{ connect: 'a:1', rendezvous_server: 'a:1' }, MODE_SERVER | MODE_RENDEZVOUS, 'server'],
    [{ listen: 'a:1', rendezvous_server: 'a:1' }, MODE_CLIENT | MODE_RENDEZVOUS, 'client'],
    [{ listen: '', kcp_connect: '' }, MODE_CLIENT, 'client'],
  ] as const
  for (const [document, mode, name] of modes) {
    assert.is(parse(document).mode, mode, JSON.stringify(document))
    assert.is(modeName(mode), name)
  }
})

test('several servers: an array of different addresses, with pings and a port of the system', () => {
  const client = (changes: object) => parse({ listen: 'a:1', kcp_connect: ['b:1', 'c:1'], ...changes })
  assert.equal(client({}).servers, ['b:1', 'c:1'])
  assert.is(client({}).strategy, 'failover')
  assert.equal(client({ kcp_connect: ['b:1'] }).servers, ['b:1'])
  assert.equal(client({ kcp_connect: 'b:1' }).servers, [])
  refusal(() => client({ kcp_connect: [] }), 'kcp_connect', 'must not be empty')
  refusal(() => client({ kcp_connect: ['b:1', 5] }), 'kcp_connect[1]', 'must be a string')
  refusal(() => client({ kcp_connect: [['b:1']] }), 'kcp_connect[0]', 'must be a string')
  refusal(() => client({ kcp_connect: 5 }), 'kcp_connect', 'array of strings')
  refusal(() => client({ kcp_connect: ['b:1', 'c:1', 'b:1'] }), 'kcp_connect', '"b:1": is in the list twice')
  refusal(() => client({ kcp_connect: Array.from({ length: 17 }, (_, i) => `b:${i}`) }), 'kcp_connect', 'at most 16')
  refusal(() => client({ strategy: 'fastest' }), 'strategy', 'failover, least_rtt, round_robin')
  refusal(() => client({ keepalive: 0 }), 'keepalive', 'several servers')
  refusal(() => client({ kcp_bind: ':5000' }), 'kcp_bind', 'set the port to 0')
  assert.is(client({ kcp_bind: '0.0.0.0:0' }).servers.length, 2)
  refusal(() => parse({ listen: 'a:1', rendezvous_server: ['b:1', 'c:1'] }), 'rendezvous_server', 'must be a string')
})

test('ranges of ports: for a client to hop in, for a server to bind', () => {
  const client = (kcp_connect: string, changes: object = {}) => parse({ listen: 'a:1', kcp_connect, ...changes })
  const server = (kcp_bind: string, changes: object = {}) => parse({ connect: 'a:1', kcp_bind, ...changes })
  const read = (key: string, text: string) => parseHostPort(key, text, key === 'kcp_bind' ? 'bind' : 'connect')
  assert.equal(read('kcp_connect', 'b:4000-4999').range, { first: 4000, last: 4999 })
  assert.equal(read('kcp_connect', '[::1]:1-65535').range, { first: 1, last: 65535 })
  assert.is(read('kcp_connect', 'my-host:http-alt').port, 8080)
  assert.is(read('kcp_connect', 'b:4000').range, undefined)
  for (const bad of ['4000-', '-4000', '4000-x', '4000-4001-4002', '0-5', '4000-65536', ' 4000-4001', '4000 -4001'])
    refusal(
      () => read('kcp_connect', `b:${bad}`),
      'kcp_connect',
      bad.includes('x') ? 'must be a number' : 'two numbers',
    )
  for (const bad of ['4999-4000', '4000-4000']) refusal(() => read('kcp_connect', `b:${bad}`), 'kcp_connect', 'greater')
  refusal(() => read('connect', 'b:4000-4001'), 'connect', 'kcp_connect and kcp_bind')
  refusal(() => read('kcp_bind', ':4000-4064'), 'kcp_bind', 'at most 64')
  assert.is(client('b:1-9').hop_interval, 30)
  refusal(() => client('b:1-9', { hop_interval: 4 }), 'hop_interval', 'from 5')
  refusal(() => client('b:1-9', { obfs: 'dpi/tcp' }), 'kcp_connect', 'obfs')
  refusal(() => client('b:1-9', { kcp_bind: ':7' }), 'kcp_bind', 'set the port to 0')
  assert.is(client('b:1-9', { kcp_bind: ':0' }).kcp_bind, ':0')
  assert.is(server(':4000-4063').kcp_bind, ':4000-4063')
  refusal(() => server(':4000-4001', { workers: 2 }), 'kcp_bind', 'workers')
  refusal(() => server(':4000-4001', { obfs: 'dpi/tcp' }), 'kcp_bind', 'obfs')
  refusal(() => server(':4000-4001', { rendezvous_server: 'b:1' }), 'kcp_bind', 'is for a server')
})

test('JSON white space is allowed around every token, other space characters are not', () => {
  assert.is(parseConfig(utf8(' \r\n\t{ "kcp_bind" :\n":1" }\r\n\t ')).kcp_bind, ':1')
  for (const space of ['\u000b', '\u000c', '\u00a0', '\u2028', '\u0000', '\ufeff']) {
    refusal(() => parseConfig(utf8(`{"kcp_bind":${space}":1"}`)), '', 'line 1, column 13')
    refusal(() => parseConfig(utf8(`{"kcp_bind":":1"}${space}`)), '', 'line 1')
  }
})

test('a byte order mark is rejected by name', () => {
  refusal(() => parseConfig(Uint8Array.from([0xef, 0xbb, 0xbf, ...utf8('{"kcp_bind":":1"}')])), '', 'BOM')
})

test('anything but one strict JSON object is rejected with line and column', () => {
  const wrong = [
    ['', 'expected a value'],
    ['  ', 'expected a value'],
    ['{"kcp_bind":":1"', 'closing brace'],
    ['{"kcp_bind":":1",}', 'a key in double quotes'],
    ['{"kcp_bind":":1"} {}', 'unexpected data after'],
    ['{"kcp_bind":":1"}}', 'unexpected data after'],
    ['{"kcp_bind":":1" "x":1}', 'comma'],
    ['{"kcp_bind" ":1"}', 'colon'],
    ['{,"kcp_bind":":1"}', 'line 1, column 2'],
    ['{"kcp_bind":}', 'value'],
    ["{'kcp_bind':':1'}", 'line 1, column 2'],
    ['{kcp_bind:":1"}', 'line 1, column 2'],
    ['{"kcp_bind":":1"} // x', 'comments'],
    ['{/* x */"kcp_bind":":1"}', 'comments'],
    ['{"kcp_bind":":1", # x\n}', 'line 1'],
    ['{"x":01,"kcp_bind":":1"}', 'comma'],
    ['{"x":+1,"kcp_bind":":1"}', 'unexpected'],
    ['{"x":.5,"kcp_bind":":1"}', 'unexpected'],
    ['{"x":1.,"kcp_bind":":1"}', 'number'],
    ['{"x":1e,"kcp_bind":":1"}', 'number'],
    ['{"x":-,"kcp_bind":":1"}', 'unexpected'],
    ['{"x":0x10,"kcp_bind":":1"}', 'line 1'],
    ['{"x":NaN,"kcp_bind":":1"}', 'unexpected'],
    ['{"x":True,"kcp_bind":":1"}', 'unexpected'],
    ['{"x":undefined,"kcp_bind":":1"}', 'unexpected'],
    ['{"x":[1,],"kcp_bind":":1"}', 'value'],
    ['{"x":[1 2],"kcp_bind":":1"}', 'comma'],
    ['{"x":[1}', 'comma'],
    ['{"x":"\\q","kcp_bind":":1"}', 'escape'],
    ['{"x":"\\u12g4","kcp_bind":":1"}', 'escape'],
    ['{"x":"abc', 'unterminated string'],
    ['{"kcp_bind":":1",\n\n  "timeout":07}', 'line 3, column 14'],
  ] as const
  for (const [text, reason] of wrong) {
    const error = refusal(() => parseConfig(utf8(text)), '', reason)
    assert.match(error.message, /^config file: line \d+, column \d+: /, text)
  }
  for (const text of ['[]', '1', '"x"', 'null', 'true']) {
    refusal(() => parseConfig(utf8(text)), '', 'must be a JSON object')
  }
})

test('invalid UTF-8, control characters and lone surrogates are accepted in the value of an unknown key', () => {
  const string = (...bytes: number[]) => [...utf8('"x":"'), ...bytes, 0x22]
  for (const value of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0x01], [0x0a], [0x00], [0x7f]]) {
    assert.is(parseConfig(around(string(...value))).mode, MODE_SERVER, String(value))
  }
  for (const value of ['\\ud800', '\\u0000', '\\udc00\\ud800', '\\\\', '\\"', '\\\\\\"']) {
    assert.is(parseConfig(around(`"x":"${value}"`)).mode, MODE_SERVER, value)
    assert.is(parseConfig(around(`"x":["${value}",{"y":"${value}"}]`)).mode, MODE_SERVER, value)
  }
})

test('invalid UTF-8 in the value of a known key is rejected', () => {
  for (const value of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
    refusal(() => parseConfig(around([...utf8('"netdev":"'), ...value, 0x22])), 'netdev', 'UTF-8')
  }
})

test('invalid UTF-8, control characters and lone surrogates are rejected in key names and outside strings', () => {
  for (const value of [[0xff], [0x01], [...utf8('\\ud800')]]) {
    refusal(() => parseConfig(around([0x22, ...value, ...utf8('":1')])), '', 'key name')
  }
  refusal(() => parseConfig(around([0xff, ...utf8('"x":1')])), '', 'line 1')
  assert.is(parseConfig(around('"listen\\u0000":1,"Listen":2,"é😀":3')).mode, MODE_SERVER)
})

test('256 nested levels are accepted, 257 and 200,000 are rejected', () => {
  for (const [open, close] of [
    ['[', ']'],
    ['{"a":', '}'],
  ] as const) {
    const nested = (levels: number) => around(`"x":${open.repeat(levels)}1${close.repeat(levels)}`)
    assert.is(parseConfig(nested(256)).mode, MODE_SERVER)
    refusal(() => parseConfig(nested(257)), '', 'nested')
    refusal(() => parseConfig(nested(200_000)), '', 'nested')
  }
})

test('a service id that does not fit into a datagram is an error that names both keys', () => {
  const configOf = (bytes: number): Config =>
    parse({
      connect: '127.0.0.1:1',
      rendezvous_server: '127.0.0.1:2',
      service_id: 'x'.repeat(bytes),
      method: 'xchacha20poly1305_ietf',
      psk: PSK,
      kcp: { mtu: 300 },
    })
  // 300 bytes minus the headers, 40 bytes of seal, 8 bytes of message header, and the address
  for (const [family, most] of [
    [4, 300 - 28 - 40 - 8 - 7],
    [6, 300 - 48 - 40 - 8 - 19],
  ] as const) {
    checkServiceId(configOf(most), family)
    const error = refusal(() => checkServiceId(configOf(most + 1), family), 'service_id', 'at most')
    assert.match(error.message, /kcp\.mtu = 300/)
  }
})

test('random bytes and random JSON throw nothing but ConfigError', () => {
  const only = (bytes: Uint8Array) => {
    try {
      parseConfig(bytes)
    } catch (error) {
      assert.instance(error, ConfigError)
    }
  }
  const token = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"',
    '"listen"',
    '"kcp"',
    '1',
    '-1',
    '1e9',
    'null',
    '\\',
    '\\u0',
    '\n',
    '/*',
    '//',
  )
  const known = fc.constantFrom(
    'listen',
    'connect',
    'kcp',
    'tcp',
    'udp',
    'psk',
    'timeout',
    'service_id',
    'mtu',
    'nodelay',
    '__proto__',
  )
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), only))
  fc.assert(fc.property(fc.json(), (json) => only(utf8(json))))
  fc.assert(fc.property(fc.array(token, { maxLength: 40 }), (tokens) => only(utf8(tokens.join('')))))
  fc.assert(fc.property(fc.dictionary(known, fc.jsonValue()), (document) => only(utf8(JSON.stringify(document)))))
})

test('the parser accepts and rejects the same texts as JSON.parse', () => {
  const accepts = (action: () => unknown) => {
    try {
      action()
      return true
    } catch {
      return false
    }
  }
  const piece = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"a"',
    '"\\n"',
    '0',
    '12',
    '-3',
    '4.5',
    '6e7',
    '1.',
    '01',
    '-',
    'true',
    'null',
    ' ',
    '\n',
  )
  const seen = { good: 0, bad: 0 }
  const same = (json: string) => {
    const strict = accepts(() => JSON.parse(json))
    seen[strict ? 'good' : 'bad'] += 1
    assert.is(
      accepts(() => parseConfig(around(`"x":${json}`))),
      strict,
      json,
    )
  }
  fc.assert(
    fc.property(
      fc.array(piece, { minLength: 1, maxLength: 6 }).map((pieces) => pieces.join('')),
      (json) => {
        // Commas and colons in the pieces may end the member and start another one: only whole values are compared.
        same(`[${json}]`)
      },
    ),
    { numRuns: 2000 },
  )
  fc.assert(fc.property(fc.json(), same))
  assert.ok(seen.good > 50 && seen.bad > 50, JSON.stringify(seen))
})

test('MUST 70: connect and listen together are an error', () => {
  refusal(() => parse({ connect: 'a:1', listen: 'b:1', kcp_bind: ':1', kcp_connect: 'c:1' }), 'listen', 'connect')
})

test('MUST 70: each mode requires its addresses', () => {
  refusal(() => parse({}), 'kcp_bind', 'missing')
  refusal(() => parse({ connect: 'a:1' }), 'kcp_bind', 'server')
  refusal(() => parse({ connect: 'a:1', kcp_connect: 'a:1' }), 'kcp_bind', 'server')
  refusal(() => parse({ listen: 'a:1' }), 'kcp_connect', 'client')
  refusal(() => parse({ listen: 'a:1', kcp_bind: 'a:1' }), 'kcp_connect', 'client')
  refusal(() => parse({ rendezvous_server: 'a:1' }), 'kcp_bind', 'missing')
})

test('MUST 70: rendezvous requires keepalive, and a keepalive above 25 yields a warning', () => {
  const base = { connect: 'a:1', rendezvous_server: 'b:1', method: 'x' }
  refusal(() => parse({ ...base, keepalive: 0 }), 'keepalive', 'rendezvous_server')
  assert.equal(configWarnings(parse({ ...base, keepalive: 25 })), [])
  assert.match(configWarnings(parse({ ...base, keepalive: 26 })).join(), 'keepalive = 26')
  assert.is(parse({ connect: 'a:1', kcp_bind: ':1', keepalive: 0 }).keepalive, 0)
})

test('MUST 70: service_id has at most 256 bytes, not characters', () => {
  const service = (service_id: string) => parse({ connect: 'a:1', kcp_bind: ':1', service_id })
  assert.is(service('é'.repeat(128)).service_id.length, 128)
  refusal(() => service(`${'é'.repeat(128)}x`), 'service_id', '257 bytes')
  refusal(() => service('x'.repeat(257)), 'service_id', '256')
})

test('MUST 70: the rules are checked in order', () => {
  const rules = [
    ['service_id', { service_id: 'é'.repeat(129) }],
    ['listen', { listen: 'a:1' }],
    ['keepalive', { rendezvous_server: 'a:1', keepalive: 0 }],
    ['psk', { psk: '', password: '' }],
  ] as const
  let document: object = { connect: 'a:1' }
  for (const [key, members] of rules.toReversed()) {
    document = { ...document, ...members }
    refusal(() => parse({ ...document, ...(key === 'psk' ? { kcp_bind: ':1' } : {}) }), key, '')
  }
  refusal(() => parse({ connect: 'a:1', psk: '', password: '' }), 'kcp_bind', '')
})

test('MUST 6: psk and password together are an error, even without a method', () => {
  refusal(() => parse({ connect: 'a:1', kcp_bind: ':1', psk: PSK, password: 'x' }), 'psk', 'password')
  refusal(() => parse({ connect: 'a:1', kcp_bind: ':1', psk: '', password: '' }), 'psk', 'password')
})

const server = (members: object): Config => parse({ connect: 'a:1', kcp_bind: ':1', ...members })

test('MUST 5: a psk is 44 characters of canonical standard Base64', () => {
  assert.equal(
    parsePsk(PSK),
    Uint8Array.from({ length: 32 }, (_, index) => index),
  )
  const url = `${'_-'.repeat(21)}8=`
  const standard = `${'/+'.repeat(21)}8=`
  assert.is(parsePsk(standard).length, 32)
  const wrong = [
    '',
    url,
    `${PSK}\n`,
    ` ${PSK}`,
    `${PSK} `,
    PSK.slice(0, -1),
    PSK.slice(1),
    `A${PSK}`,
    `${PSK.slice(0, -1)}A`,
    `${PSK.slice(0, -2)}9=`,
    `${PSK.slice(0, -2)}==`,
    `${PSK.slice(0, 20)}\n${PSK.slice(21)}`,
    PSK.replace('A', 'é'),
  ]
  for (const text of wrong) {
    const error = refusal(() => parsePsk(text), 'psk', 'Base64')
    assert.ok(text.trim() === '' || !error.message.includes(text.trim()), text)
  }
})

test('MUST 5: every 32-byte key round-trips through Base64', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (key) => {
      const text = btoa(String.fromCharCode(...key))
      assert.equal(parsePsk(text), key)
      // decodes to the same bytes in a lenient decoder, but is not canonical
      const last = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'.indexOf(text.charAt(42))
      const next = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'.charAt(last + 1)
      assert.throws(() => parsePsk(`${text.slice(0, 42)}${next}=`), /Base64/)
    }),
  )
})

test('method and key combine as in protocol.md 3.7, and a method without a key is rejected', () => {
  assert.is(checkStart(server({}), METHODS), undefined)
  assert.is(checkStart(server({ psk: 'not looked at' }), METHODS), undefined)
  assert.match(configWarnings(server({})).join(), 'not be encrypted')
  for (const method of METHODS) {
    assert.equal(checkStart(server({ method, psk: PSK }), METHODS)?.psk, parsePsk(PSK))
    assert.is(checkStart(server({ method, password: '' }), METHODS)?.password, '')
    refusal(() => checkStart(server({ method }), METHODS), 'method', 'key')
    refusal(() => checkStart(server({ method, psk: '' }), METHODS), 'psk', 'Base64')
  }
  for (const method of ['', 'none', 'AES256GCM', 'toString']) {
    refusal(() => checkStart(server({ method, psk: PSK }), METHODS), 'method', 'unknown method')
  }
})

test('several workers are allowed only for a plain server or client', () => {
  const [server, client] = [
    { connect: 'a:1', kcp_bind: ':1' },
    { listen: ':1', kcp_connect: 'a:1' },
  ]
  assert.is(parse(server).workers, 1)
  assert.is(parse({ ...server, workers: 4 }).workers, 4)
  assert.is(parse({ ...client, workers: 4, kcp_bind: '127.0.0.1:0' }).workers, 4)
  refusal(() => parse({ ...server, workers: 2, obfs: 'dpi/tcp-wnd' }), 'workers', 'obfs')
  refusal(() => parse({ ...server, workers: 2, rendezvous_server: 'b:1' }), 'workers', 'rendezvous_server')
  refusal(() => parse({ kcp_bind: ':1', workers: 2 }), 'workers', 'server')
  refusal(() => parse({ ...client, workers: 2, kcp_bind: ':5' }), 'workers', 'kcp_bind')
})

test('MUST 60: obfs is rejected without a method, in rendezvous mode, and with an unknown name', () => {
  const method = { method: 'aes256gcm', psk: PSK }
  refusal(() => checkStart(server({ ...method, obfs: '' }), METHODS), 'obfs', 'unknown')
  refusal(() => checkStart(server({ ...method, obfs: 'tcp' }), METHODS), 'obfs', 'unknown')
  refusal(
    () => checkStart(server({ ...method, obfs: 'dpi/tcp', rendezvous_server: 'a:1' }), METHODS),
    'obfs',
    'rendezvous',
  )
  refusal(() => checkStart(parse({ kcp_bind: ':1', ...method, obfs: 'dpi/tcp' }), METHODS), 'obfs', 'server or client')
  refusal(() => checkStart(server({ obfs: 'dpi/tcp' }), METHODS), 'obfs', 'method')
  for (const obfs of ['dpi/tcp', 'dpi/tcp-wnd']) {
    checkStart(server({ ...method, obfs }), METHODS)
    checkStart(parse({ listen: ':1', kcp_connect: 'a:1', ...method, obfs }), METHODS)
  }
})

test('socket buffers of 1..4095 bytes yield a warning', () => {
  const warned = (sndbuf: number) => configWarnings(server({ method: 'x', udp: { sndbuf } })).length
  assert.equal([0, 1, 4095, 4096].map(warned), [0, 1, 1, 0])
})

test('MUST 11: the datagram size follows the table of protocol.md 4', () => {
  const table = [
    [4, undefined, [1372, 1344, 1344, 1332, 1332]],
    [6, undefined, [1352, 1324, 1324, 1312, 1312]],
    [4, 'dpi/tcp', [1360, 1332, 1332, 1320, 1320]],
    [6, 'dpi/tcp-wnd', [1340, 1312, 1312, 1300, 1300]],
  ] as const
  const methods = [undefined, 'chacha20poly1305_ietf', 'aes256gcm', 'xchacha20poly1305_ietf', 'xsalsa20poly1305']
  for (const [family, obfs, sizes] of table) {
    assert.equal(
      methods.map((method) => kcpMtu(1400, family, method, obfs)),
      sizes,
    )
  }
  assert.is(kcpMtu(300, 6, 'xsalsa20poly1305', 'dpi/tcp'), 200)
  assert.throws(() => kcpMtu(1400, 4, 'none', undefined), RangeError)
})

test.run()
