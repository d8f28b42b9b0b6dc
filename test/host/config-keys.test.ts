/**
 * Every key of protocol.md 10.2 against an independent table (not the schema): type, range, default, wrong types, null,
 * duplicates.
 */

import { spawnSync } from 'node:child_process'
import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { PROPERTIES, type Properties } from '../../host/config/validate.ts'
import { ConfigError } from '../../host/errors.ts'

interface IntegerKey {
  readonly key: string
  readonly min: number
  readonly max: number
  /** undefined: the engine chooses the value. */
  readonly initial: number | undefined
}

const integer = (key: string, min: number, max: number, initial?: number): IntegerKey => ({ key, min, max, initial })

const INTEGERS: readonly IntegerKey[] = [
  integer('kcp.mtu', 300, 1500),
  integer('kcp.sndwnd', 16, 65536),
  integer('kcp.rcvwnd', 16, 65536),
  integer('kcp.nodelay', 0, 2),
  integer('kcp.interval', 10, 500),
  integer('kcp.resend', 0, 100),
  integer('kcp.nc', 0, 1),
  integer('kcp.flush', 0, 2),
  integer('tcp.sndbuf', 0, 33554432, 0),
  integer('tcp.rcvbuf', 0, 33554432, 0),
  integer('udp.sndbuf', 0, 33554432, 0),
  integer('udp.rcvbuf', 0, 33554432, 0),
  integer('proxy_protocol', 1, 2),
  integer('timeout', 60, 86400, 600),
  integer('linger', 5, 600, 30),
  integer('keepalive', 0, 600, 25),
  integer('time_wait', 5, 3600, 120),
  integer('loglevel', 0, 8, 4),
  integer('memory', 16, 2048, 512),
  integer('max_sessions', 1, 65535, 65535),
  integer('workers', 1, 64, 1),
  integer('fwmark', 0, 4294967295, 0),
  integer('dscp', 0, 63, 0),
  integer('hop_interval', 5, 86400, 30),
  integer('udp_timeout', 1, 86400, 120),
]

const BOOLEANS: readonly (readonly [string, boolean])[] = [
  ['kcp.redundancy', true],
  ['tcp.reuseport', false],
  ['tcp.keepalive', false],
  ['tcp.nodelay', true],
  ['udp.reuseport', false],
  ['native', true],
]

/** String keys; the flag says whether the key may be set alone, that is, without changing the mode or a conflict. */
const STRINGS: readonly (readonly [string, boolean])[] = [
  ['udp_listen', false],
  ['udp_connect', false],
  ['listen', false],
  ['listen_mode', false],
  ['connect', true],
  ['kcp_bind', true],
  ['kcp_connect', true],
  ['rendezvous_server', true],
  ['service_id', true],
  ['http_listen', true],
  ['http_token', false],
  ['netdev', true],
  ['method', true],
  ['psk', true],
  ['password', true],
  ['obfs', true],
  ['log', true],
  ['user', true],
]

/** Keys with a fixed set of values; the first is the default. */
const CHOICES: readonly (readonly [string, readonly string[]])[] = [
  ['udp.path', ['auto', 'fast', 'portable']],
  ['udp.gso', ['auto', 'off']],
  ['udp.gro', ['auto', 'off']],
  ['when_down', ['reset', 'hold', 'close']],
  ['strategy', ['failover', 'least_rtt', 'round_robin']],
  ['replay', ['auto', 'strict']],
]

/** Keys whose values are lists or maps: host/proxy.test.ts, host/keys-config.test.ts. */
const COLLECTIONS = ['proxy_rules', 'proxy_users', 'proxy_protocol_from', 'keys']

/** Numbers with a fraction, in Mbit/s. */
const RATES = ['rate.up', 'rate.down', 'rate.session_up', 'rate.session_down'] as const

const utf8 = (text: string) => new TextEncoder().encode(text)

/** A server configuration with one more key, its value given as JSON text. */
function withKey(key: string, json: string): Uint8Array {
  const [outer = '', inner] = key.split('.')
  const member = inner === undefined ? `"${outer}":${json}` : `"${outer}":{"${inner}":${json}}`
  return utf8(`{"connect":"127.0.0.1:1","kcp_bind":"127.0.0.1:2",${member}}`)
}

/** The value of a dotted key in a parsed configuration. */
function lookUp(config: object, key: string): unknown {
  let value: unknown = config
  for (const name of key.split('.')) {
    value =
      typeof value === 'object' && value !== null ? Object.entries(value).find(([k]) => k === name)?.[1] : undefined
  }
  return value
}

function refusal(bytes: Uint8Array): ConfigError {
  try {
    parseConfig(bytes)
  } catch (error) {
    if (error instanceof ConfigError) {
      return error
    }
    throw error
  }
  throw new Error(`accepted: ${new TextDecoder().decode(bytes)}`)
}

const read = (key: string, json: string) => lookUp(parseConfig(withKey(key, json)), key)

function schemaKeys(prefix: string, properties: Properties): string[] {
  return Object.entries(properties).flatMap(([name, property]) =>
    property.properties === undefined ? [prefix + name] : schemaKeys(`${prefix}${name}.`, property.properties),
  )
}

const test = suite('config keys')

test('MUST 69: the schema has exactly the keys of the protocol plus http_token, memory, max_sessions, native, replay, workers, fwmark, dscp, udp.path, udp.gso and udp.gro', () => {
  const known = INTEGERS.map(({ key }) => key).concat(
    COLLECTIONS,
    RATES,
    [...BOOLEANS, ...STRINGS, ...CHOICES].map(([key]) => key),
  )
  assert.equal(schemaKeys('', PROPERTIES).sort(), known.sort())
})

for (const key of RATES) {
  test(`${key}: 0, or 0.008 to 100000 with fractions, default 0`, () => {
    assert.is(lookUp(parseConfig(withKey('unknown', '0')), key), 0)
    for (const [text, value] of Object.entries({
      '0': 0,
      '0.008': 0.008,
      '2.5': 2.5,
      '20': 20,
      '1e3': 1000,
      '100000': 1e5,
    }))
      assert.is(read(key, text), value)
    const range = 'must be a number from 0 to 100000'
    const low = 'must be 0 (unlimited) or at least 0.008 Mbit/s'
    const wrong = {
      '-1': range,
      '100001': range,
      '"20 Mbit/s"': range,
      true: range,
      null: range,

      '0.007': low,
    }
    for (const [text, reason] of Object.entries(wrong)) {
      const error = refusal(withKey(key, text))
      assert.equal([error.key, error.value, error.reason], [key, text, reason])
    }
    assert.is(refusal(withKey(key, '[]')).reason, range)
  })
}

test('rate must be an object', () => {
  for (const text of ['20', '"20"', 'null', '[]']) {
    const error = refusal(withKey('rate', text))
    assert.equal([error.key, error.reason], ['rate', 'must be a JSON object'])
  }
})

for (const [key, [initial, ...others]] of CHOICES) {
  test(`${key} accepts one of its words and nothing else`, () => {
    assert.is(lookUp(parseConfig(withKey('unknown', '0')), key), initial)
    for (const word of [initial, ...others]) assert.is(read(key, JSON.stringify(word)), word)
    for (const wrong of ['"slow"', '""', '"Auto"']) {
      const error = refusal(withKey(key, wrong))
      assert.is(error.key, key)
      assert.match(error.message, new RegExp(`must be one of ${[initial, ...others].join(', ')}$`))
    }
    for (const wrong of ['null', 'true', '1', '[]', '{}']) assert.is(refusal(withKey(key, wrong)).key, key)
  })
}

for (const { key, min, max, initial } of INTEGERS) {
  test(`MUST 69: ${key} accepts ${min}..${max} and nothing else`, () => {
    assert.is(lookUp(parseConfig(withKey('unknown', '0')), key), initial)
    assert.is(read(key, String(min)), min)
    assert.is(read(key, String(max)), max)
    const middle = Math.floor((min + max) / 2)
    const wrong = [
      'null',
      'true',
      'false',
      '""',
      `"${middle}"`,
      '[]',
      `[${middle}]`,
      '{}',
      '-0',
      '-1',
      `${middle}.0`,
      `${middle}e0`,
    ]
    wrong.push(String(max + 1), `${max}0000000000000000000000000`, `-${max}`)
    if (min > 0) {
      wrong.push(String(min - 1), '0')
    }
    for (const json of wrong) {
      const error = refusal(withKey(key, json))
      assert.is(error.key, key, json)
      assert.match(error.message, `config key ${key} = `)
      assert.match(error.message, `${min} to ${max}`)
    }
  })
}

for (const [key, initial] of BOOLEANS) {
  test(`MUST 69: ${key} accepts true and false and nothing else`, () => {
    assert.is(lookUp(parseConfig(withKey('unknown', '0')), key), initial)
    assert.is(read(key, 'true'), true)
    assert.is(read(key, 'false'), false)
    for (const json of ['null', '0', '1', '"true"', '""', '[]', '{}']) {
      const error = refusal(withKey(key, json))
      assert.is(error.key, key, json)
      assert.match(error.message, 'true or false')
    }
  })
}

for (const [key, alone] of STRINGS) {
  test(`MUST 69: ${key} accepts a string and nothing else`, () => {
    if (alone) {
      assert.is(read(key, '"a\\u00e9\\ud83d\\ude00\\u0001\\n/\\/"'), 'aé😀\u0001\n//')
      assert.is(read(key, '""'), '')
    }
    for (const json of [
      'null',
      '0',
      'true',
      '[]',
      '{}',
      '"\\u0000"',
      '"a\\u0000b"',
      '"\\ud800"',
      '"\\udc00a"',
      '"a\u0001"',
      '"a\tb"',
      '"a\nb"',
    ]) {
      assert.is(refusal(withKey(key, json)).key, key, json)
    }
  })
}

test('http_token accepts exactly what can be sent as a bearer token', () => {
  for (const good of ['12345678', 'aZ0-._~+/==', 'x'.repeat(256)]) assert.is(read('http_token', `"${good}"`), good)
  for (const bad of ['', '1234567', 'with space', 'semi;colon', '=leading', 'ümlautümlaut', 'x'.repeat(257)]) {
    const { key, message } = refusal(withKey('http_token', `"${bad}"`))
    assert.is(key, 'http_token', bad)
    assert.match(message, 'config key http_token = (hidden): must be 8 to 256 letters')
  }
})

for (const key of ['kcp', 'tcp', 'udp']) {
  test(`MUST 69: ${key} accepts an object and nothing else`, () => {
    parseConfig(withKey(key, '{}'))
    for (const json of ['null', '0', 'true', '""', '[]']) {
      assert.is(refusal(withKey(key, json)).key, key, json)
    }
  })
}

test('MUST 69: unset strings are undefined, and service_id is empty', () => {
  const config = parseConfig(utf8('{"kcp_bind":":1"}'))
  for (const [key] of STRINGS) {
    const expected: Record<string, string> = { service_id: '', kcp_bind: ':1', listen_mode: '0600' }
    assert.is(lookUp(config, key), expected[key], key)
  }
})

test('MUST 69: the last of duplicate keys wins, and every occurrence is checked', () => {
  assert.is(read('timeout', '70,"timeout":80'), 80)
  assert.is(refusal(withKey('timeout', '1,"timeout":80')).key, 'timeout')
  assert.is(refusal(withKey('timeout', '80,"timeout":null')).key, 'timeout')
  assert.is(read('timeout', '70,"time\\u006fut":80'), 80)
})

test('MUST 69: a repeated nested object starts from the defaults', () => {
  const config = parseConfig(withKey('kcp', '{"mtu":500,"sndwnd":20},"kcp":{"rcvwnd":30}'))
  assert.equal([config.kcp.mtu, config.kcp.sndwnd, config.kcp.rcvwnd], [undefined, undefined, 30])
  assert.is(refusal(withKey('kcp', '{"mtu":1},"kcp":{}')).key, 'kcp.mtu')
})

test('MUST 69: unknown keys are ignored at every level, including known keys in the wrong object', () => {
  const member =
    '{"mtu":600,"x":null,"timeout":"no","__proto__":1,"toString":2,"kcp":{"mtu":1}},"mtu":null,"constructor":[]'
  const config = parseConfig(withKey('kcp', member))
  assert.is(config.kcp.mtu, 600)
  assert.is(config.timeout, 600)
})

test('messages never contain secrets', () => {
  for (const key of ['psk', 'password']) {
    for (const json of ['123456', '"geheim\\u0000"', '["geheim"]', '"geheim\\ud800"']) {
      const error = refusal(withKey(key, json))
      assert.is(error.key, key)
      assert.not.match(`${error.message}${error.value}`, /geheim|123456/)
    }
  }
  assert.not.match(refusal(withKey('http_token', '"geheim"')).message, 'geheim')
  const both = refusal(withKey('psk', '"geheim","password":"geheim"'))
  assert.not.match(`${both.message}${both.value}`, 'geheim')
})

const kcpKeys = INTEGERS.filter(({ key }) => key.startsWith('kcp.'))
const topKeys = INTEGERS.filter(({ key }) => !key.includes('.'))
const name = (key: string) => key.replace(/^.*\./, '')
const record = (keys: readonly IntegerKey[]) => {
  const model: Record<string, fc.Arbitrary<number>> = {}
  for (const { key, min, max } of keys) {
    model[name(key)] = fc.integer({ min, max })
  }
  return fc.record(model, { requiredKeys: [] })
}

test('any configuration built from valid values round-trips', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 20 }).filter((value) => !value.includes('\0'))
  fc.assert(
    fc.property(
      record(topKeys),
      record(kcpKeys),
      fc.record({ nodelay: fc.boolean(), keepalive: fc.boolean() }, { requiredKeys: [] }),
      fc.record({ netdev: text, user: text, log: text, method: text, psk: text }, { requiredKeys: [] }),
      fc.boolean(),
      (top, kcp, tcp, strings, pretty) => {
        const document = { connect: 'a:1', kcp_bind: ':2', ...top, kcp, tcp, ...strings }
        const config = parseConfig(utf8(JSON.stringify(document, null, pretty ? 2 : 0)))
        const expected: [string, unknown][] = [
          ...Object.entries({ ...top, ...strings }),
          ...Object.entries(kcp).map(([key, value]): [string, unknown] => [`kcp.${key}`, value]),
          ...Object.entries(tcp).map(([key, value]): [string, unknown] => [`tcp.${key}`, value]),
        ]
        for (const [key, value] of expected) {
          assert.is(lookUp(config, key), value, key)
        }
        for (const { key, initial } of INTEGERS) {
          if (!expected.some(([set]) => set === key)) {
            assert.is(lookUp(config, key), initial, key)
          }
        }
      },
    ),
    { numRuns: 300 },
  )
})

test('docs/configuration.md and the man page of the file have the keys of the schema', () => {
  const result = spawnSync('node', ['build/config-docs.mjs', '--check'], { encoding: 'utf8' })
  assert.is(result.status, 0, result.stderr)
})

test.run()
