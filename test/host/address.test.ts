/**
 * Addresses as text (protocol.md 10.4, 10.7) and as the engine's 24-byte record (abi.md). IP literals are compared with
 * the runtime's own parsers.
 */

import { isIPv4, isIPv6 } from 'node:net'
import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ConfigError } from '../../host/errors.ts'
import {
  ADDRESS_RECORD_BYTES,
  type AddressRole,
  canonicalIp,
  formatAddress,
  ipFamily,
  parseHostPort,
  readRecord,
  type SocketAddress,
  sameAddress,
  writeRecord,
} from '../../host/net/address.ts'

const test = suite('address')

const bind = (text: string) => parseHostPort('listen', text, 'bind')
const connect = (text: string) => parseHostPort('connect', text, 'connect')

function refused(text: string, role: AddressRole, reason: string): void {
  try {
    parseHostPort('kcp_bind', text, role)
  } catch (error) {
    assert.instance(error, ConfigError)
    assert.match(String(error), reason)
    assert.match(String(error), 'config key kcp_bind = "')
    return
  }
  throw new Error(`accepted as ${role}: ${text}`)
}

test('MUST 71: a bind address may omit the host or use *', () => {
  for (const text of [':5202', '*:5202', '[]:5202', '[*]:5202', '0.0.0.0:5202']) {
    assert.equal(bind(text), { host: '0.0.0.0', port: 5202 }, text)
  }
  assert.equal(bind('[::]:53'), { host: '::', port: 53 })
  assert.equal(bind(':'), { host: '0.0.0.0', port: 0 })
})

test('MUST 71: a connect address requires a host', () => {
  for (const text of [':5202', '*:5202', '[]:5202', '[*]:5202', ':']) {
    refused(text, 'connect', 'host is missing')
  }
  assert.equal(connect('example.org:80'), { host: 'example.org', port: 80 })
  assert.equal(connect('[::1]:80'), { host: '::1', port: 80 })
  assert.equal(connect('[127.0.0.1]:80'), { host: '127.0.0.1', port: 80 })
  assert.equal(connect('[fe80::1%eth0]:80'), { host: 'fe80::1%eth0', port: 80 })
})

for (const role of ['bind', 'connect'] as const) {
  test(`MUST 71: ${role}: an address without a colon or with unbracketed IPv6 is rejected`, () => {
    refused('', role, 'no colon')
    refused('127.0.0.1', role, 'no colon')
    refused('::1:53', role, 'brackets')
    refused('[::1]', role, 'brackets')
    refused('::', role, 'brackets')
    refused('[::1:53', role, 'brackets')
    refused('::1]:53', role, 'brackets')
    refused('[a:53', role, 'bracket')
    refused('a]:53', role, 'bracket')
    refused('[[::1]]:53', role, 'bracket')
    refused('a b:53', role, 'white space')
    refused(' a:53', role, 'white space')
  })

  test(`MUST 71: ${role}: the port is a number up to 65535 or a service name`, () => {
    const port = (text: string) => parseHostPort('listen', `a:${text}`, role).port
    assert.equal(
      ['', '0', '00080', '65535', 'http', 'https', 'ssh', 'domain'].map(port),
      [0, 0, 80, 65535, 80, 443, 22, 53],
    )
    for (const text of [
      '65536',
      '99999999999999999999',
      ' 80',
      '80 ',
      '+80',
      '-1',
      '8.0',
      '0x50',
      'HTTP',
      'no-such',
      '８０',
    ]) {
      refused(`a:${text}`, role, 'port')
    }
  })

  test(`MUST 71: ${role}: an address has at most 261 bytes`, () => {
    assert.is(parseHostPort('listen', `${'a'.repeat(258)}:80`, role).host.length, 258)
    refused(`${'a'.repeat(259)}:80`, role, '261')
    refused(`${'é'.repeat(130)}:8`, role, '261')
  })
}

test('arbitrary text is either parsed or rejected with ConfigError', () => {
  const piece = fc.constantFrom(':', '[', ']', '*', '1', 'http', '%', '.', 'a', ' ', '65535')
  const text = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
  )
  fc.assert(
    fc.property(text, fc.constantFrom('bind' as const, 'connect' as const), (value, role) => {
      try {
        const { host, port } = parseHostPort('connect', value, role)
        assert.ok(host !== '' && Number.isInteger(port) && port >= 0 && port <= 65535)
      } catch (error) {
        assert.instance(error, ConfigError)
      }
    }),
    { numRuns: 1000 },
  )
})

/**
 * Replaces a trailing dotted quad with two groups of hex digits: WebKit's URL parser rejects some valid addresses that
 * contain one.
 */
const hexTail = (text: string) =>
  text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_quad, ...parts) => {
    const [a = 0, b = 0, c = 0, d = 0] = parts.map(Number)
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  })

/**
 * The URL parser's canonical form of an IPv6 address. It writes v4-mapped addresses in hex; inet_ntop and RFC 5952
 * section 5 use a dotted quad.
 */
function urlCanonical(text: string): string {
  const hex = new URL(`http://[${hexTail(text)}]/`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(hex)
  if (mapped === null) {
    return hex
  }
  const [high, low] = [Number.parseInt(mapped[1] ?? '', 16), Number.parseInt(mapped[2] ?? '', 16)]
  return `::ffff:${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}

test('IP literals are classified exactly as the runtime classifies them', () => {
  const edge = [
    '::',
    '::1',
    '1::',
    '1:2:3:4:5:6:7::',
    '::2:3:4:5:6:7:8',
    '1:2:3:4:5:6:7:8',
    '::1.2.3.4',
    '1:2:3:4:5:6:1.2.3.4',
  ]
  const wrong = [
    '',
    ':',
    ':::',
    '1',
    '1:',
    ':1',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4::5:6:7:8',
    '12345::',
    '::g',
  ]
  wrong.push(
    '::1.2.3',
    '::1.2.3.256',
    '::01.2.3.4',
    '1.2.3.4::',
    '1:2:3:4:5:6:7:1.2.3.4',
    '::1.2.3.4:5',
    '1:2:3:4:5:6:7:',
    ':2:3:4:5:6:7:8',
  )
  wrong.push(
    '1.2.3',
    '1.2.3.4.',
    '.1.2.3',
    '1..2.3',
    '01.2.3.4',
    '1.2.3.1000',
    '256.1.1.1',
    '1.2.3.4 ',
    '0x1.2.3.4',
    '1:2:3:4:5:6:7:8::',
  )
  const piece = fc.constantFrom(
    ':',
    '::',
    '.',
    '0',
    '1',
    '00',
    'ffff',
    'Ab',
    '255',
    '256',
    '12345',
    '1.2.3.4',
    'g',
    '%',
    ' ',
  )
  const random = fc.array(piece, { maxLength: 17 }).map((pieces) => pieces.join(''))
  const check = (text: string) => {
    const expected = text.includes('%') ? 0 : isIPv4(text) ? 4 : isIPv6(text) ? 6 : 0
    assert.is(ipFamily(text), expected, JSON.stringify(text))
    const canonical = expected === 0 ? undefined : expected === 4 ? text : urlCanonical(text)
    assert.is(canonicalIp(text), canonical, JSON.stringify(text))
  }
  for (const text of edge) {
    assert.is(ipFamily(text), 6, text)
    check(text)
  }
  for (const text of wrong) {
    assert.is(ipFamily(text), 0, text)
    check(text)
  }
  fc.assert(fc.property(random, check), { numRuns: 5000 })
  fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), check), { numRuns: 2000 })
})

const group = fc.oneof(
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffff }) },
)
const ipv6 = fc.oneof(
  fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.map((value) => value.toString(16)).join(':')),
  fc.ipV4().map((text) => `::ffff:${text}`),
)
const port = fc.integer({ min: 0, max: 65535 })
const address: fc.Arbitrary<SocketAddress> = fc.oneof(
  fc.record({ family: fc.constant(4 as const), address: fc.ipV4(), port, scope: fc.constant(0) }),
  fc.record({ family: fc.constant(6 as const), address: ipv6, port, scope: fc.integer({ min: 0, max: 0xffffff }) }),
)

test('every address round-trips through its record in canonical form, and nothing around the record changes', () => {
  fc.assert(
    fc.property(address, fc.integer({ min: 0, max: 9 }), (value, offset) => {
      const memory = new Uint8Array(64).fill(0xee)
      const bytes = memory.subarray(8)
      writeRecord(value, bytes, offset)
      const canonical = value.family === 4 ? value.address : urlCanonical(value.address)
      assert.equal(readRecord(bytes, offset), { ...value, address: canonical })
      const outside = [...memory.subarray(0, 8 + offset), ...memory.subarray(8 + offset + ADDRESS_RECORD_BYTES)]
      assert.ok(outside.every((byte) => byte === 0xee))
    }),
    { numRuns: 2000 },
  )
})

test('a record has the layout of the ABI', () => {
  const bytes = new Uint8Array(24).fill(0xee)
  writeRecord({ family: 4, address: '192.0.2.1', port: 0x1234, scope: 0 }, bytes, 0)
  assert.is(Buffer.from(bytes).toString('hex'), '0400341200000000c0000201000000000000000000000000')
  writeRecord({ family: 6, address: 'fe80::1:203', port: 53, scope: 0x010203 }, bytes, 0)
  assert.is(Buffer.from(bytes).toString('hex'), '0600350003020100fe800000000000000000000000010203')
  assert.throws(() => writeRecord({ family: 6, address: 'fe80::1', port: 53, scope: 0x1000000 }, bytes, 0), /scope id/)
  writeRecord({ family: 6, address: '::ffff:192.0.2.1', port: 53, scope: 0 }, bytes, 0)
  assert.is(Buffer.from(bytes).toString('hex'), '060035000000000000000000000000000000ffffc0000201')
  assert.equal(readRecord(bytes, 0), { family: 6, address: '::ffff:192.0.2.1', port: 53, scope: 0 })
  assert.is(readRecord(new Uint8Array(24), 0), undefined)
  const asked = { family: 4, address: '192.0.2.1', port: 53, scope: 0, local: 255 } as const
  writeRecord(asked, bytes, 0)
  assert.equal(readRecord(bytes, 0), asked)
})

test('a text that is not an IP address of the given family yields no record', () => {
  const bytes = new Uint8Array(24)
  for (const [family, text] of [
    [4, 'example.org'],
    [4, '::1'],
    [4, '1.2.3.4 '],
    [6, '1.2.3.4'],
    [6, 'fe80::1%2'],
    [6, ''],
  ] as const) {
    assert.throws(() => writeRecord({ family, address: text, port: 1, scope: 0 }, bytes, 0), RangeError)
  }
})

test('addresses are equal when all fields are equal', () => {
  const base: SocketAddress = { family: 6, address: 'fe80::1', port: 1, scope: 2 }
  assert.ok(sameAddress(base, { ...base }))
  for (const change of [{ family: 4 as const }, { address: 'fe80::2' }, { port: 2 }, { scope: 3 }, { local: 1 }]) {
    assert.not(sameAddress(base, { ...base, ...change }), JSON.stringify(change))
  }
})

test('addresses are printed with IPv6 in brackets and the scope inside the brackets', () => {
  assert.is(formatAddress({ family: 4, address: '192.0.2.1', port: 80, scope: 0 }), '192.0.2.1:80')
  assert.is(formatAddress({ family: 6, address: '::', port: 0, scope: 0 }), '[::]:0')
  assert.is(formatAddress({ family: 6, address: 'FE80:0:0::1', port: 80, scope: 2 }), '[fe80::1%2]:80')
  assert.is(
    formatAddress({ family: 6, address: '2001:db8:0:0:1:0:0:1', port: 443, scope: 0 }),
    '[2001:db8::1:0:0:1]:443',
  )
  assert.is(
    formatAddress({ family: 6, address: '2001:db8:0:1:1:1:1:1', port: 443, scope: 0 }),
    '[2001:db8:0:1:1:1:1:1]:443',
  )
  assert.is(formatAddress({ family: 6, address: '::ffff:c000:201', port: 1, scope: 0 }), '[::ffff:192.0.2.1]:1')
})

test.run()
