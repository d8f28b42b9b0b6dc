/** Files with `tunnels`: defaults and entries, names, keys of the process, and addresses that two tunnels have. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readJson } from '../../host/config/json.ts'
import { keyWarnings } from '../../host/config/lint.ts'
import { parseConfig } from '../../host/config/load.ts'
import { parseFile, tunnelOf } from '../../host/config/tunnels.ts'
import { examine } from '../../host/config/unknown-keys.ts'
import { ConfigError } from '../../host/errors.ts'

const utf8 = (value: object | string) =>
  new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
const parse = (file: object | string) => parseFile(utf8(file))
const entries = (file: object | string) => parse(file).tunnels ?? []

const CLIENT = { listen: ':1', kcp_connect: 'a:1' }
const SERVER = { connect: 'a:1', kcp_bind: ':1' }

function refusal(file: object | string): ConfigError {
  try {
    parse(file)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error(`accepted: ${JSON.stringify(file)}`)
}

const test = suite('tunnels in a config file')

test('a file without tunnels is one configuration without a name', () => {
  const { config, tunnels } = parse(CLIENT)
  assert.is(tunnels, undefined)
  assert.equal(config, parseConfig(utf8(CLIENT)))
  assert.is(config.name, undefined)
})

test('an entry is what the same keys are in a file, and has a name in addition', () => {
  const [first, second] = entries({ tunnels: [CLIENT, SERVER] })
  assert.equal({ ...first, name: undefined }, { ...parseConfig(utf8(CLIENT)), name: undefined })
  assert.equal({ ...second, name: undefined }, { ...parseConfig(utf8(SERVER)), name: undefined })
})

test('keys beside tunnels are defaults, kcp, tcp, udp and rate key by key', () => {
  const [first, second] = entries({
    keepalive: 7,
    kcp: { mtu: 900, sndwnd: 100 },
    udp: { gso: 'off' },
    rate: { up: 20, down: 0.5 },
    tunnels: [CLIENT, { ...SERVER, keepalive: 8, kcp: { sndwnd: 200 }, kcp_bind: ':2', udp: {}, rate: { up: 2 } }],
  })
  assert.is(first?.keepalive, 7)
  assert.is(first?.kcp.sndwnd, 100)
  assert.is(second?.keepalive, 8)
  assert.is(second?.kcp.mtu, 900)
  assert.is(second?.kcp.sndwnd, 200)
  assert.is(second?.udp.gso, 'off')
  assert.equal(second?.rate, { up: 2, down: 0.5, session_up: 0, session_down: 0 })
  assert.is(second?.timeout, 600)
})

test('an entry with password does not inherit psk, and so with the keys for TCP and UDP', () => {
  const [first, second, third] = entries({
    method: 'aes256gcm',
    psk: 'x',
    connect: 'a:1',
    tunnels: [
      { kcp_bind: ':1', password: 'y' },
      { kcp_bind: ':2', udp_connect: 'a:2' },
      { kcp_bind: ':3', psk: 'z' },
    ],
  })
  assert.equal([first?.psk, first?.password], [undefined, 'y'])
  assert.equal([second?.psk, second?.connect, second?.udp_connect], ['x', undefined, 'a:2'])
  assert.equal([third?.psk, third?.connect], ['z', 'a:1'])
})

test('of keys that are there twice the last one counts, as in a file', () => {
  const twice = '{"tunnels":5,"tunnels":[{"name":"a","listen":":1","listen":":2","kcp_connect":"a:1","name":"b"}]}'
  assert.is(entries(twice)[0]?.listen, ':2')
  assert.is(entries(twice)[0]?.name, 'b')
})

test('errors name the entry', () => {
  for (const [file, key, reason] of [
    [{ tunnels: [CLIENT, { ...SERVER, kcp: { mtu: 5 } }] }, 'tunnels[1].kcp.mtu', /= 5: must be an integer from 300/],
    [{ tunnels: [{ listen: ':1' }] }, 'tunnels[0].kcp_connect', /missing: required by a client/],
    [{ connect: 'a:1', tunnels: [CLIENT] }, 'tunnels[0].listen', /conflicts with connect/],
    [{ tunnels: [{ ...CLIENT, listen: 'x' }] }, 'tunnels[0].listen', /"x": an address must be host:port/],
    [{ tunnels: [5] }, 'tunnels[0]', /must be a JSON object/],
    [{ tunnels: [] }, 'tunnels', /must have 1 to 256 entries/],
    [{ tunnels: Array.from({ length: 257 }, () => CLIENT) }, 'tunnels', /must have 1 to 256 entries/],
    [{ tunnels: {} }, 'tunnels', /must be an array/],
    [{ kcp: { mtu: 5 }, tunnels: [CLIENT] }, 'kcp.mtu', /= 5/],
    [{ http_token: '1', tunnels: [CLIENT] }, 'http_token', /8 to 256/],
    [{ tunnels: [{ ...CLIENT, tunnels: [] }] }, 'tunnels[0].tunnels', /cannot have entries/],
  ] as const) {
    const error = refusal(file)
    assert.is(error.key, key)
    assert.match(error.message, reason)
    assert.ok(error.message.includes(key), error.message)
  }
})

test('keys of the process are refused in an entry, without showing a secret', () => {
  const keys = { http_listen: ':1', http_token: 'secret12', loglevel: 4, log: 'syslog', user: 'nobody', native: true }
  for (const [key, value] of Object.entries(keys)) {
    const error = refusal({ tunnels: [CLIENT, { ...SERVER, [key]: value }] })
    assert.is(error.key, `tunnels[1].${key}`)
    assert.match(error.message, 'belongs to the process')
    assert.not.match(error.message, 'secret12')
  }
})

test('names are checked, and unique', () => {
  for (const name of ['', 'a b', '-a', '.a', 'ä', 'a"b', 'a\n', 'a'.repeat(65)]) {
    assert.is(refusal({ tunnels: [{ ...CLIENT, name }] }).key, 'tunnels[0].name', name)
  }
  assert.is(refusal({ tunnels: [{ ...CLIENT, name: 5 }] }).key, 'tunnels[0].name')
  const error = refusal({ tunnels: [{ ...CLIENT, name: 'a' }, SERVER, { ...SERVER, kcp_bind: ':2', name: 'a' }] })
  assert.match(error.message, 'config key tunnels[2].name = "a": is the name of tunnels[0] too')
  assert.is(entries({ tunnels: [{ ...CLIENT, name: 'Az09._-' }] })[0]?.name, 'Az09._-')
})

test('names are derived from role and port, and avoid those that are given', () => {
  const meeting = { connect: 'a:1', rendezvous_server: 'r:1' }
  const names = entries({
    tunnels: [
      { ...CLIENT, listen: '127.0.0.2:1' },
      { ...CLIENT, listen: '127.0.0.1:1' },
      { ...SERVER, kcp_bind: '[::1]:9' },
      meeting,
      meeting,
      { kcp_bind: ':7' },
      { ...CLIENT, listen: ':0', name: 'client-1-2' },
    ],
  }).map(({ name }) => name)
  assert.equal(names, ['client-1', 'client-1-3', 'server-9', 'server', 'server-2', 'rendezvous-7', 'client-1-2'])
})

test('two sockets cannot have one address', () => {
  const at = (listen: string, more: object = {}) => ({ ...CLIENT, listen, ...more })
  const on = (kcp_bind: string, more: object = {}) => ({ ...SERVER, kcp_bind, ...more })
  const conflicts: [object, object, string][] = [
    [at('127.0.0.1:5'), at('127.0.0.1:5'), 'listen'],
    [at('127.0.0.1:5'), at(':5'), 'listen'],
    [at('localhost:5'), at('127.0.0.1:5'), 'listen'],
    [at('Host:5'), at('host:5'), 'listen'],
    [at('[::]:5'), at('127.0.0.1:5'), 'listen'],
    [at('[0::1]:5'), at('[::1]:5'), 'listen'],
    [on(':5'), on('*:5'), 'kcp_bind'],
    [on(':5', { udp: { reuseport: true } }), on(':5'), 'kcp_bind'],
    [on(':5', { netdev: 'a' }), on(':5', { netdev: 'a' }), 'kcp_bind'],
    [on(':4000-4010'), on(':4005'), 'kcp_bind'],
    [on(':4000-4010'), on(':4010-4020'), 'kcp_bind'],
  ]
  for (const [first, second, key] of conflicts) {
    const error = refusal({ tunnels: [first, second] })
    assert.is(error.key, `tunnels[1].${key}`, JSON.stringify([first, second]))
    assert.match(error.message, `tunnels[0].${key} has this address too`)
  }
  assert.match(refusal({ http_listen: ':5', tunnels: [at(':5')] }).message, 'http_listen has this address too')
  const [one, other] = ['unix:/run/a.sock', 'unix:/run/b.sock']
  const clients = (...places: string[]): object => ({
    tunnels: places.map((listen) => ({ listen, kcp_connect: 'a:1' })),
  })
  assert.match(refusal(clients(one, other, one)).message, 'tunnels[0].listen has this address too')
  const shared = { udp: { reuseport: true } }
  for (const [first, second] of [
    [at('127.0.0.1:5'), at('127.0.0.2:5')],
    [at('127.0.0.1:5'), at('127.0.0.1:6')],
    [at('127.0.0.1:5'), at('[::1]:5')],
    [at('127.0.0.1:0'), at('127.0.0.1:0')],
    [at(':5'), on(':5')],
    [on(':5', shared), on(':5', shared)],
    [on(':4000-4010'), on(':4011-4020')],
    [on(':5', { netdev: 'a' }), on(':5', { netdev: 'b' })],
  ] as const)
    assert.is(entries({ tunnels: [first, second] }).length, 2, JSON.stringify([first, second]))
})

test('one tunnel is expected where there can be no others', () => {
  assert.throws(() => parseConfig(utf8({ tunnels: [CLIENT] })), /config key tunnels: one tunnel is expected here/)
})

test('a command chooses a tunnel by its name', () => {
  const file = parse({ tunnels: [CLIENT, { ...SERVER, name: 'b' }] })
  assert.is(tunnelOf(file, 'b').connect, 'a:1')
  assert.throws(() => tunnelOf(file, 'c'), /has no tunnel "c": client-1, b/)
  assert.throws(() => tunnelOf(file, undefined), /several tunnels, choose one with --tunnel: client-1, b/)
  assert.is(tunnelOf(parse({ tunnels: [CLIENT] }), undefined).name, 'client-1')
  assert.is(tunnelOf(parse(CLIENT), undefined).listen, ':1')
  assert.throws(() => tunnelOf(parse(CLIENT), 'b'), /has no tunnels/)
})

test('unknown and repeated keys of an entry are warned about with their path', () => {
  const file = '{"tunnels":[{},{"name":"a","lisen":":1","kcp":{"mtuu":1},"target":"a","linger":5,"linger":6}]}'
  const warnings = keyWarnings(examine(readJson(utf8(file))))
  assert.equal(warnings, [
    'unknown key "tunnels[1].lisen" is ignored, did you mean listen?',
    'unknown key "tunnels[1].kcp.mtuu" is ignored, did you mean kcp.mtu?',
    'unknown key "tunnels[1].target" is ignored: a key of the Go kcptun, write connect, and its listen is kcp_bind here',
    'config key tunnels[1].linger is set more than once, the last value is used',
  ])
})

test.run()
