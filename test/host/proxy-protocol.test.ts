/** The PROXY protocol: headers as haproxy's document writes them, and the order of bytes around them. */
import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readJson } from '../../host/config/json.ts'
import { lint } from '../../host/config/lint.ts'
import { parseConfig } from '../../host/config/load.ts'
import { examine } from '../../host/config/unknown-keys.ts'
import { HeldBytes } from '../../host/driver/held-bytes.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { encodeHeader, parseHeader } from '../../host/proxy-protocol/header.ts'
import { HEADER_MS, Visitors } from '../../host/proxy-protocol/visitors.ts'
import type { Clock, TcpConnection, TcpHandlers } from '../../host/runtime.ts'

const test = suite('PROXY protocol')

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0))
const text = (data: Uint8Array): string => String.fromCharCode(...data)
const v4 = (address: string, port: number): SocketAddress => ({ family: 4, address, port, scope: 0 })
const v6 = (address: string, port: number): SocketAddress => ({ family: 6, address, port, scope: 0 })
const SIGNATURE = '\r\n\r\n\0\r\nQUIT\n'
const hex = (data: Uint8Array): string => Array.from(data, (byte) => byte.toString(16).padStart(2, '0')).join('')

test('headers are those of the document', () => {
  const one = (...ends: SocketAddress[]): string => text(encodeHeader(1, ...ends))
  assert.is(one(v4('192.168.0.1', 56324), v4('192.168.0.11', 443)), 'PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n')
  assert.is(one(v6('2001:DB8:0:0::1', 1), v6('::1', 65535)), 'PROXY TCP6 2001:db8::1 ::1 1 65535\r\n')
  assert.is(one(), 'PROXY UNKNOWN\r\n')
  // at [::] an IPv4 visitor has mapped addresses
  assert.is(one(v6('::ffff:10.0.0.9', 7), v6('::ffff:10.0.0.1', 80)), 'PROXY TCP4 10.0.0.9 10.0.0.1 7 80\r\n')
  assert.is(one(v4('10.0.0.9', 7), v6('::1', 80)), 'PROXY TCP4 10.0.0.9 0.0.0.0 7 80\r\n')
  assert.is(one(v6('2001:db8::1', 7)), 'PROXY TCP6 2001:db8::1 :: 7 0\r\n')
  const two = (...ends: SocketAddress[]): string => hex(encodeHeader(2, ...ends))
  const signature = hex(bytes(SIGNATURE))
  assert.is(two(v4('192.168.0.1', 56324), v4('192.168.0.11', 443)), `${signature}2111000cc0a80001c0a8000bdc0401bb`)
  assert.is(
    two(v6('2001:db8::1', 1), v6('::1', 2)),
    `${signature}2121002420010db8000000000000000000000001${'0'.repeat(31)}100010002`,
  )
  assert.is(two(), `${signature}20000000`)
})

test('what is written is read, however it is cut, and what follows is left', () => {
  const ends = [[v4('1.2.3.4', 5), v4('6.7.8.9', 65535)], [v6('2001:db8::1', 0), v6('::1', 443)], []]
  for (const pair of ends)
    for (const version of [1, 2] as const) {
      const header = encodeHeader(version, ...pair)
      for (let cut = 0; cut < header.length; cut++)
        assert.is(parseHeader(header.subarray(0, cut)).kind, 'more', `${cut}`)
      const [source, destination] = pair
      const visit = source && destination && { source, destination }
      const whole = Uint8Array.of(...header, 1, 2, 3)
      assert.equal(parseHeader(whole), { kind: 'header', bytes: header.length, visit })
    }
})

test('LOCAL, UNKNOWN, other families and additional fields', () => {
  const visitOf = (header: string): unknown => {
    const parsed = parseHeader(bytes(`${header}rest`))
    assert.ok(parsed.kind === 'header', JSON.stringify(parsed))
    assert.is(parsed.bytes, header.length)
    return parsed.visit
  }
  const addresses = '\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0a'
  assert.is(visitOf('PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n'), undefined)
  assert.is(visitOf(`${SIGNATURE}\x20\0\0\0`), undefined)
  assert.is(visitOf(`${SIGNATURE}\x20\x11\0\x0c${addresses}`), undefined, 'LOCAL with addresses')
  assert.is(visitOf(`${SIGNATURE}\x21\x31\0\x03abc`), undefined, 'AF_UNIX')
  assert.is(visitOf(`${SIGNATURE}\x21\0\0\0`), undefined)
  const visit = { source: v4('1.2.3.4', 9), destination: v4('5.6.7.8', 10) }
  assert.equal(visitOf(`${SIGNATURE}\x21\x11\0\x11${addresses}\x04\0\x02ab`), visit)
})

test('anything else is malformed', () => {
  for (const wrong of [
    'GET / HTTP/1.1\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n',
    'PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n',
    'PROXY TCP4 ::1 ::1 1 2\r\n',
    'PROXY TCP6 1.2.3.4 ::1 1 2\r\n',
    'PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n',
    'PROXY\r\n',
    'PROXY UNKNOWNx\r\n',
    `PROXY ${'x'.repeat(200)}`,
    `${SIGNATURE}\x11\x11\0\0`,
    `${SIGNATURE}\x22\x11\0\0`,
    `${SIGNATURE}\x21\x11\0\x0b${'x'.repeat(11)}`,
    `${SIGNATURE}\x21\x11\xff\xff`,
    '\r\n\r\nx',
  ])
    assert.is(parseHeader(bytes(wrong)).kind, 'bad', JSON.stringify(wrong))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (data) => {
      const parsed = parseHeader(data)
      return parsed.kind !== 'header' || parsed.bytes <= data.length
    }),
  )
})

/** A connection that a test feeds. */
class Fed implements TcpConnection {
  readonly remote = v4('10.0.0.1', 1000)
  readonly local = v4('10.0.0.2', 80)
  handlers: TcpHandlers | undefined
  isReading = false
  isReset = false
  readonly #waiting: Uint8Array[] = []
  attach(handlers: TcpHandlers): void {
    this.handlers = handlers
  }
  writeBuffer(): Uint8Array {
    return new Uint8Array(65536)
  }
  write(_: Uint8Array, length: number): number {
    return length
  }
  pause(): void {
    this.isReading = false
  }
  resume(): void {
    this.isReading = true
    for (const part of this.#waiting.splice(0)) this.feed(part)
  }
  end(): void {}
  reset(): void {
    this.isReset = true
  }
  close(): void {}
  feed(data: Uint8Array): void {
    if (this.isReading) this.handlers?.onData(data)
    else this.#waiting.push(data)
  }
}

/** A client that requires headers of 10.0.0.0/8. */
function client(more: object = {}) {
  const timers: { callback: () => void; ms: number }[] = []
  const clock: Clock = {
    monotonic: () => 0,
    wall: () => 0,
    setTimer: (callback, ms) => timers[timers.push({ callback, ms }) - 1] ?? {},
    clearTimer: (timer) => void timers.splice(timers.indexOf(timer as (typeof timers)[number]), 1),
    defer: () => ({}),
    clearDeferred() {},
  }
  const config = { listen: ':1', kcp_connect: 'a:1', proxy_protocol_from: ['10.0.0.0/8'], ...more }
  const counters = { proxy_header_errors: 0 }
  const opened: TcpConnection[] = []
  const seen: string[] = []
  const handlers: TcpHandlers = {
    onData: (data) => seen.push(text(data)),
    onEnd: () => seen.push('end'),
    onDrain() {},
    onClose() {},
  }
  const log = new Log(
    () => true,
    () => new Date(0),
    () => () => {},
  )
  /** Whether connections wait before they are read, as while the peer is silent. */
  const admission = { isWaiting: false }
  const visitors = new Visitors(
    {
      clock,
      log,
      held: new HeldBytes(),
      counters,
      accept(connection) {
        opened.push(connection)
        if (!admission.isWaiting) connection.resume()
        return handlers
      },
    },
    parseConfig(bytes(JSON.stringify(config))),
  )
  const connect = (): Fed => {
    const connection = new Fed()
    const own = visitors.accept(connection)
    if (own !== null) connection.attach(own)
    return connection
  }
  return { visitors, connect, opened, seen, counters, timers, handlers, admission }
}

const HEADER = 'PROXY TCP4 192.0.2.7 192.0.2.8 7000 443\r\n'

test('the visitor of a listed proxy is that of the header, and no byte after it is lost', () => {
  for (const size of [1, 5, HEADER.length, 1000]) {
    const { connect, opened, seen, timers } = client()
    const connection = connect()
    const all = bytes(`${HEADER}hello`)
    for (let at = 0; at < all.length; at += size) connection.feed(all.subarray(at, at + size))
    assert.is(seen.join(''), 'hello')
    assert.equal(opened[0]?.remote, v4('192.0.2.7', 7000))
    assert.is(timers.length, 0)
  }
})

test('bytes wait while the connection may not be read', () => {
  const { connect, seen, opened, handlers, admission } = client({ proxy_protocol: 1 })
  admission.isWaiting = true
  const connection = connect()
  connection.feed(bytes(`${HEADER}hello `))
  connection.feed(bytes('world'))
  assert.equal(seen, [])
  // the peer answers: a session is opened
  opened[0]?.resume()
  opened[0]?.attach(handlers)
  assert.equal(seen, [`${HEADER}hello `, 'world'])
})

test('the address of the connection itself is written where there is no header', () => {
  for (const [from, first] of [
    [[], 'PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n'],
    [['10.0.0.1'], HEADER],
  ] as const) {
    const { connect, seen } = client({ proxy_protocol: 1, proxy_protocol_from: from })
    const connection = connect()
    connection.feed(bytes(from.length === 0 ? 'hello' : `${HEADER}hello`))
    assert.is(seen.join(''), `${first}hello`)
  }
})

test('a connection without a valid header is reset and counted, and so is one that takes too long', () => {
  const { connect, opened, counters, timers } = client()
  const one = connect()
  one.feed(bytes('GET / HTTP/1.1\r\n'))
  assert.ok(one.isReset)
  const two = connect()
  two.feed(bytes(HEADER.slice(0, 20)))
  assert.is(timers[0]?.ms, HEADER_MS)
  timers[0]?.callback()
  assert.ok(two.isReset)
  const three = connect()
  three.handlers?.onEnd()
  assert.ok(three.isReset)
  assert.is(counters.proxy_header_errors, 3)
  assert.is(opened.length, 0)
  assert.is(timers.length, 0)
})

test('keys that do not fit are errors or warnings', () => {
  const parse = (config: object) => (): unknown => parseConfig(bytes(JSON.stringify(config)))
  const server = { kcp_bind: ':1', connect: 'a:1' }
  assert.throws(parse({ ...server, proxy_protocol: 3 }), /proxy_protocol = 3: must be an integer from 1 to 2/)
  assert.throws(
    parse({ ...server, connect: 'socks5', proxy_protocol: 1 }),
    /proxy_protocol = 1: conflicts with connect/,
  )
  const udp = { kcp_bind: ':1', udp_connect: 'a:1', proxy_protocol: 1 }
  assert.throws(parse(udp), /proxy_protocol = 1: conflicts with UDP/)
  const wrong = { listen: ':1', kcp_connect: 'a:1', proxy_protocol_from: ['10.0.0.0/8', 'lan'] }
  assert.throws(parse(wrong), /proxy_protocol_from\[1\] = "lan": must be an address/)
  const ignored = bytes(JSON.stringify({ ...server, proxy_protocol_from: ['::/0'] }))
  const { warnings } = lint(parseConfig(ignored), examine(readJson(ignored)), true)
  assert.ok(warnings.some((warning) => warning.includes('proxy_protocol_from is ignored')))
})

test.run()
