/** Keys by name in files: entries, until when they count, and what a reload may change. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { keepFixed } from '../../host/config/diff.ts'
import { readJson } from '../../host/config/json.ts'
import { expiryOf } from '../../host/config/keys.ts'
import { keyWarnings, lint, startFileWarnings } from '../../host/config/lint.ts'
import { parseConfig } from '../../host/config/load.ts'
import { configWarnings } from '../../host/config/rules.ts'
import { assertStartable, checkStart, keySource, namedKeys } from '../../host/config/security.ts'
import { parseFile } from '../../host/config/tunnels.ts'
import { examine } from '../../host/config/unknown-keys.ts'
import { methods } from '../../host/crypto/methods.ts'
import { ConfigError } from '../../host/errors.ts'

const utf8 = (value: object) => new TextEncoder().encode(JSON.stringify(value))
const psk = (first: string) => `${first.padEnd(43, 'A')}=`
const ALICE = { name: 'alice', psk: psk('a') }
const BOB = { name: 'bob', psk: psk('b') }
const SERVER = { connect: 'a:1', kcp_bind: ':4000', method: 'aes256gcm' }
const server = (...keys: unknown[]) => ({ ...SERVER, keys })
const parse = (file: object) => parseConfig(utf8(file))

function refusal(check: () => unknown): ConfigError {
  try {
    check()
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('accepted')
}

const test = suite('keys by name')

test('entries keep their order, and what they leave out', () => {
  const { keys } = parse(server(ALICE, { name: 'b.o-b_2', password: 'x', not_after: '2027-12-31', max_sessions: 9 }))
  assert.equal(keys, [
    { ...ALICE, password: undefined, not_after: undefined, max_sessions: 65535 },
    { name: 'b.o-b_2', psk: undefined, password: 'x', not_after: '2027-12-31', max_sessions: 9 },
  ])
  assert.equal(parse(SERVER).keys, [])
})

test('a malformed entry is refused with its key and reason, and without its secret', () => {
  for (const [keys, key, reason] of [
    [5, 'keys', /must be an array of at most 64 objects/],
    [{ alice: 'geheim' }, 'keys', /must be an array/],
    ['geheim', 'keys', /must be an array/],
    [['geheim'], 'keys[0]', /must be a JSON object/],
    [[ALICE, null], 'keys[1]', /must be a JSON object/],
    [[{ psk: 'geheim' }], 'keys[0].name', /missing/],
    [[{ ...ALICE, name: '' }], 'keys[0].name', /missing/],
    [[{ ...ALICE, name: 5 }], 'keys[0].name', /= 5: must be a string/],
    [[{ ...ALICE, name: 'a b' }], 'keys[0].name', /"a b": must be 1 to 64 letters/],
    [[{ ...ALICE, name: '-a' }], 'keys[0].name', /the first a letter or digit/],
    [[{ ...ALICE, name: 'ä' }], 'keys[0].name', /letters, digits/],
    [[{ ...ALICE, name: 'a'.repeat(65) }], 'keys[0].name', /1 to 64/],
    [[{ ...ALICE, name: 'a\n' }], 'keys[0].name', /1 to 64/],
    [[{ name: 'alice' }], 'keys[0].psk', /missing: set it to a key from --genpsk/],
    [[{ name: 'alice', psk: 5 }], 'keys[0].psk', /must be a string/],
    [[{ ...ALICE, password: 'geheim' }], 'keys[0].psk', /conflicts with password/],
    [[{ ...ALICE, max_sessions: 0 }], 'keys[0].max_sessions', /= 0: must be an integer from 1/],
    [[{ ...ALICE, not_after: 5 }], 'keys[0].not_after', /must be a string/],
    [[ALICE, { ...BOB, name: 'alice' }], 'keys[1].name', /"alice": is the name of keys\[0\] too/],
    [[ALICE, BOB, { ...BOB, name: 'carol' }], 'keys[2].psk', /\(hidden\): is the key of keys\[1\] too/],
    [
      [
        { name: 'a', password: 'geheim' },
        { name: 'b', password: 'geheim' },
      ],
      'keys[1].password',
      /is the key of keys\[0\] too/,
    ],
    [Array.from({ length: 65 }, (_, i) => ({ name: `n${i}`, psk: psk(String(i)) })), 'keys', /at most 64/],
  ] as const) {
    const error = refusal(() => parse({ ...SERVER, keys }))
    assert.is(error.key, key)
    assert.match(error.message, reason)
    assert.not.match(error.message, /geheim|AAAA/)
  }
  const most = Array.from({ length: 64 }, (_, i) => ({ name: `n${i}`, psk: psk(String(i)) }))
  assert.is(parse({ ...SERVER, keys: most }).keys.length, 64)
})

test('keys conflict with psk and password beside them', () => {
  for (const other of ['psk', 'password']) {
    const error = refusal(() => parse({ ...server(ALICE), [other]: 'geheim' }))
    assert.is(error.key, 'keys')
    assert.match(error.message, `conflicts with ${other}`)
  }
})

test('a psk that is no key is refused at the start, with its place', () => {
  const config = parse(server(ALICE, { name: 'bob', psk: 'geheim' }))
  const error = refusal(() => assertStartable(config, methods))
  assert.is(error.key, 'keys[1].psk')
  assert.match(error.message, /\(hidden\): must be 32 bytes in standard Base64/)
  assert.is(refusal(() => assertStartable(parse(server()), methods)).key, 'method', 'no keys are no key')
  assertStartable(parse({ connect: 'a:1', kcp_bind: ':1', keys: [{ name: 'bob', psk: 'not looked at' }] }), methods)
})

test('a date ends with its day in UTC, a time has a zone', () => {
  for (const [text, end] of [
    ['2027-12-31', '2028-01-01T00:00:00Z'],
    ['2028-02-29', '2028-03-01T00:00:00Z'],
    ['2027-12-31T18:00:00Z', '2027-12-31T18:00:00Z'],
    ['2027-12-31t18:00:00z', '2027-12-31T18:00:00Z'],
    ['2027-12-31T18:00:00.25+01:30', '2027-12-31T16:30:00.250Z'],
    ['2027-12-31T18:00:00-09:00', '2028-01-01T03:00:00Z'],
    ['2016-12-31T23:59:60Z', '2017-01-01T00:00:00Z'],
  ] as const)
    assert.is(expiryOf(text), Date.parse(end), text)
  for (const text of [
    ...[
      '',
      'never',
      '2027',
      '2027-12',
      '2027-13-01',
      '2027-02-29',
      '2027-02-30',
      '2027-00-10',
      '2027-1-1',
      '31.12.2027',
    ],
    ...[
      '12/31/2027',
      '20271231',
      '2027-12-31T18:00:00',
      '2027-12-31 18:00:00Z',
      '2027-12-31T18:00Z',
      '2027-12-31T24:00:00Z',
    ],
    ...[
      '2027-12-31T18:60:00Z',
      '2027-12-31T18:00:00+1',
      '2027-12-31T18:00:00+24:00',
      ' 2027-12-31',
      '2027-12-31\n',
      '1830297600',
    ],
  ]) {
    assert.is(expiryOf(text), undefined, text)
    const error = refusal(() => parse(server({ ...ALICE, not_after: text })))
    assert.is(error.key, 'keys[0].not_after')
    assert.match(error.message, /must be a date, 2027-12-31 .* or a time with its zone/)
  }
})

test('a key that has expired does not count, is reported at the start, and the last one is missed', () => {
  const config = parse(server({ ...ALICE, not_after: '2026-03-01' }, { ...BOB, not_after: '2026-03-02T12:00:00Z' }))
  const at = (text: string) => Date.parse(text)
  const names = (now: string) => namedKeys(config, methods, at(now))?.map(({ name }) => name)
  assert.equal(names('2026-03-01T23:59:59Z'), ['alice', 'bob'])
  assert.equal(names('2026-03-02T00:00:00Z'), ['bob'])
  const error = refusal(() => assertStartable(config, methods, at('2026-03-02T12:00:00Z')))
  assert.is(error.key, 'keys')
  assert.match(error.message, /all of them have expired: alice \(not_after 2026-03-01\), bob \(not_after 2026-03-02T/)
  assert.match(configWarnings(config).join('\n'), /keys\[0\]\.not_after = "2026-03-01": the key of alice has expired/)
  const future = parse(server({ ...ALICE, not_after: '9999-12-31' }))
  assert.not.match(configWarnings(future).join('\n'), 'expired')
})

test('a client uses the first key that counts', () => {
  const config = parse({
    listen: ':1080',
    kcp_connect: 'a:1',
    method: 'aes256gcm',
    keys: [
      { ...ALICE, not_after: '2020-01-01' },
      { name: 'bob', password: 'x' },
      { ...ALICE, name: 'c', psk: psk('c') },
    ],
  })
  assert.equal(checkStart(config, methods), { method: 'aes256gcm', psk: undefined, password: 'x' })
  assert.is(namedKeys(config, methods)?.length, 2)
})

test('psk and password are one key without a name', () => {
  for (const key of [{ psk: psk('a') }, { password: '' }]) {
    const [only, ...others] = namedKeys(parse({ ...SERVER, ...key }), methods) ?? []
    assert.equal([only?.name, only?.max_sessions, only?.expiry, others.length], ['', 65535, undefined, 0])
    assert.is(only && keySource(only).password, 'psk' in key ? undefined : '')
  }
})

test('an entry of tunnels has its own keys or those beside tunnels, never both', () => {
  const keys = [ALICE, BOB]
  const entry = (port: number, more: object) => ({ connect: 'a:1', kcp_bind: `:${port}`, ...more })
  const file = {
    method: 'aes256gcm',
    keys,
    tunnels: [entry(1, {}), entry(2, { keys: [BOB] }), entry(3, { psk: psk('z') })],
  }
  const { tunnels = [] } = parseFile(utf8(file))
  assert.equal(
    tunnels.map((tunnel) => [tunnel.psk, tunnel.keys.map(({ name }) => name).join()]),
    [
      [undefined, 'alice,bob'],
      [undefined, 'bob'],
      [psk('z'), ''],
    ],
  )
  const bad = { method: 'aes256gcm', psk: psk('z'), tunnels: [entry(1, { keys: [ALICE, ALICE] })] }
  assert.is(refusal(() => parseFile(utf8(bad))).key, 'tunnels[0].keys[1].name')
})

test('unknown and duplicate members of an entry are reported with its place', () => {
  const text = '{"keys":[{"name":"a"},{"name":"b","notafter":"x","key":"x","user":"y","_note":1,"name":"c"}]}'
  const warnings = keyWarnings(examine(readJson(new TextEncoder().encode(text))))
  assert.equal(warnings, [
    'unknown key "keys[1].notafter" is ignored, did you mean not_after?',
    'unknown key "keys[1].key" is ignored, did you mean psk?',
    'unknown key "keys[1].user" is ignored',
    'config key keys[1].name is set more than once, the last value is used',
  ])
})

test('check warns about passwords, keys that end soon, and a list that is none', () => {
  const soon = new Date(Date.now() + 5 * 86_400_000).toISOString()
  const found = (file: object) => lint(parse(file), examine(readJson(utf8(file))), true)
  const { warnings } = found(server({ ...ALICE, not_after: soon }, { name: 'bob', password: 'x' }))
  assert.match(warnings.join('\n'), /keys\[0\]\.not_after .*the key of alice expires within 5 days/)
  assert.match(warnings.join('\n'), /keys\[1\]\.password = \(hidden\): key stretching is minimal/)
  assert.match(found(server(ALICE)).notes.join('\n'), /with one entry there are no figures by user/)
  const client = { listen: ':1080', kcp_connect: 'a:1', method: 'aes256gcm', keys: [ALICE, BOB] }
  assert.match(found(client).notes.join('\n'), /opens its sessions with the first one, alice/)
  const open = { ...server(ALICE), method: undefined }
  assert.match(found(open).warnings.join('\n'), /config key keys is ignored: method is not set/)
  assert.match(startFileWarnings('f', 0o644, parse(server(ALICE))).join(), /other users can read the file with its key/)
})

test('a reload may change keys, and psk into keys and back', () => {
  const one = parse({ ...SERVER, psk: ALICE.psk })
  const both = parse(server(ALICE, BOB))
  for (const [old, fresh] of [
    [one, both],
    [both, one],
    [both, parse(server(BOB))],
  ] as const) {
    const { config, kept } = keepFixed(old, fresh)
    assert.equal([kept, config.psk, config.keys], [[], fresh.psk, fresh.keys])
  }
  const { config, kept } = keepFixed(one, parse({ ...SERVER, psk: BOB.psk }))
  assert.equal([kept, config.psk], [['psk'], ALICE.psk])
})

test.run()
