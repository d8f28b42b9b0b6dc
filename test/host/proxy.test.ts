/** The proxy of a server: rules, addresses inside addresses, and the requests of both protocols. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { ConfigError } from '../../host/errors.ts'
import { inRange, ipBytes, parseRange } from '../../host/net/ip-range.ts'
import { ProxyAccess } from '../../host/proxy/access.ts'
import { HttpConnect } from '../../host/proxy/http-connect.ts'
import { DIAL_MS, ProxyConnection, REQUEST_MS } from '../../host/proxy/proxy-connection.ts'
import type { Protocol, Step } from '../../host/proxy/request.ts'
import { Socks5 } from '../../host/proxy/socks5.ts'
import { isSpecial } from '../../host/proxy/special-ranges.ts'
import type { Clock, TcpConnection } from '../../host/runtime.ts'

const test = suite('proxy')

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0))
const text = (data: Uint8Array | undefined): string => String.fromCharCode(...(data ?? []))
const parsedBytes = (address: string): Uint8Array => {
  const parsed = ipBytes(address)
  if (parsed === undefined) throw new Error(address)
  return parsed
}
const access = (...rules: string[]): ProxyAccess => new ProxyAccess(rules, {})
const isDenied = (who: ProxyAccess, address: string, port = 80, host = address): boolean =>
  who.refusal(host, address, port) !== undefined

test('ranges contain what CIDR says', () => {
  for (const [range, inside, outside] of [
    ['10.0.0.0/8', '10.255.1.2', '11.0.0.0'],
    ['10.9.9.9/8', '10.0.0.1', '9.255.255.255'],
    ['192.168.4.0/22', '192.168.7.255', '192.168.8.0'],
    ['1.2.3.4', '1.2.3.4', '1.2.3.5'],
    ['0.0.0.0/0', '255.1.1.1', '::1'],
    ['2001:db8::/33', '2001:db8:7fff::1', '2001:db8:8000::'],
    ['::/0', 'ffff::', '1.1.1.1'],
    ['::ffff:10.0.0.0/104', '10.1.1.1', '11.1.1.1'],
    ['10.0.0.0/8', '::ffff:10.1.1.1', '::10.1.1.1'],
  ] as const) {
    const parsed = parseRange(range)
    assert.ok(parsed, range)
    assert.ok(inRange(parsedBytes(inside), parsed), `${range} has ${inside}`)
    assert.not.ok(inRange(parsedBytes(outside), parsed), `${range} has not ${outside}`)
  }
  for (const wrong of ['10.0.0.0/33', '10.0.0/8', '::/129', '1.2.3.4/', '1.2.3.4/8/8', 'a', '', '::ffff:0:0/90'])
    assert.is(parseRange(wrong), undefined, wrong)
})

test('private and special-purpose addresses are denied in every spelling, public ones are not', () => {
  const plain = access()
  for (const address of [
    '0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.0.1 168.63.129.16 169.254.169.254 172.31.255.255',
    '192.0.0.192 192.0.2.1 192.168.1.1 198.19.0.1 198.51.100.1 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1',
    '255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::8.8.8.8 fc00::1 fd00:ec2::254 fe80::1 fec0::1',
    'ff02::1 100::1 2001:db8::1 3fff::1 2001:2::1 2001:10::1 5f00::1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe',
    '64:ff9b:1::8.8.8.8 64:ff9b:1:a00:0:100:: 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:808:808:0:0:80ff:fffe',
    '2a00:1450::200:5efe:10.0.0.1 2a00:1450::5efe:10.0.0.1 ::ffff:0:127.0.0.1',
  ].flatMap((line) => line.split(' ')))
    assert.ok(isDenied(plain, address), address)
  for (const address of [
    '1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.32.0.1 192.0.1.1 192.169.0.1 198.20.0.1 223.255.255.255',
    '169.253.1.1 2606:4700::1111 2a00:1450:4001::1 64:ff9b::8.8.8.8 2002:808:808::1 ::ffff:8.8.8.8',
  ].flatMap((line) => line.split(' ')))
    assert.not.ok(isDenied(plain, address), address)
})

test('the first rule that matches counts, and only a rule about addresses opens special ones', () => {
  const rules = access(
    'deny *.evil.test',
    'allow 10.0.0.0/8:443',
    'allow localhost',
    'deny *:25',
    'allow 127.0.0.0/8:8000-8099',
    'deny 8.8.0.0/16',
    'allow *',
    'deny 1.1.1.1',
  )
  for (const [address, port, host, denied] of [
    ['10.1.1.1', 443, '', false],
    ['10.1.1.1', 80, '', true],
    ['::ffff:10.1.1.1', 443, '', false],
    ['64:ff9b::10.1.1.1', 443, '', false],
    ['64:ff9b::10.1.1.1', 80, '', true],
    ['64:ff9b::8.8.8.8', 80, '', true],
    ['127.0.0.1', 80, 'localhost', true],
    ['127.0.0.1', 8000, 'localhost', false],
    ['127.0.0.1', 8099, '', false],
    ['127.0.0.1', 8100, '', true],
    ['9.9.9.9', 25, '', true],
    ['9.9.9.9', 26, '', false],
    ['1.1.1.1', 80, '', false],
    ['9.9.9.9', 80, 'a.EVIL.test.', true],
    ['9.9.9.9', 80, 'evil.test', false],
    // rebinding: a permitted name that leads inwards
    ['192.168.1.1', 80, 'good.test', true],
  ] as const)
    assert.is(isDenied(rules, address, port, host || address), denied, `${host} ${address}:${port}`)
  assert.ok(rules.refusalOfName('x.evil.test', 80))
  assert.is(access('allow 1.1.1.1:25', 'deny *').refusalOfName('good.test', 25), undefined, 'that needs the address')
  assert.ok(access('deny *:25').refusalOfName('good.test', 25))
  assert.not.ok(isDenied(access('allow private'), '127.0.0.1'))
  assert.not.ok(isDenied(access('allow [fd00::/8]:22'), 'fd00::1', 22))
  assert.ok(isDenied(access('allow 64:ff9b:1::/48'), '64:ff9b:1::10.0.0.1'), 'inside an allowed address')
  // Teredo: the server 8.8.4.4, and the inverted addresses 10.0.0.1 and 8.8.8.8
  assert.ok(isDenied(access('allow 2001::/32'), '2001:0:808:404:0:0:f5ff:fffe'))
  assert.not.ok(isDenied(access('allow 2001::/32'), '2001:0:808:404:0:0:f7f7:f7f7'))
})

test('rules and users that mean nothing are errors with key, value and reason', () => {
  const parse = (more: object) => (): unknown =>
    parseConfig(bytes(JSON.stringify({ connect: 'socks5', kcp_bind: ':1', ...more })))
  const reasonOf = (more: object): string => {
    try {
      parse(more)()
    } catch (error) {
      if (error instanceof ConfigError) return error.message
    }
    return 'no error'
  }
  for (const [rule, reason] of [
    ['allow', 'must be "allow TARGET"'],
    ['permit *', 'must be "allow TARGET"'],
    ['allow 10.0.0', 'must be \\*, private'],
    ['allow 10.0.0.0/40', 'must be \\*, private'],
    ['deny *.', 'must be \\*, private'],
    ['deny 0x7f.1', 'must be \\*, private'],
    ['deny 0x7f000001', 'must be \\*, private'],
    ['deny a b', 'must be "allow TARGET"'],
    ['deny *:0', 'a port must be'],
    ['deny *:90-80', 'a port must be'],
    ['deny [::1', 'must be \\*, private'],
  ] as const)
    assert.match(reasonOf({ proxy_rules: ['allow *', rule] }), new RegExp(`proxy_rules\\[1\\] = .*${reason}`), rule)
  assert.match(reasonOf({ proxy_rules: 'allow *' }), /must be an array/)
  assert.match(reasonOf({ proxy_rules: [1] }), /proxy_rules\[0\] = 1: must be a string/)
  assert.match(reasonOf({ proxy_users: { a: '' } }), /proxy_users = \(hidden\): user "a": name and password/)
  assert.match(reasonOf({ proxy_users: { 'a:b': 'secret' } }), /colon/)
  assert.not.match(reasonOf({ proxy_users: { 'a:b': 'secret' } }), /secret/)
  assert.match(reasonOf({ proxy_users: ['a'] }), /proxy_users = \(hidden\): must be an object/)
})

test('users are known by both name and password', () => {
  const who = new ProxyAccess([], { alice: 'secret', bob: 'x'.repeat(255) })
  assert.ok(who.isUser(bytes('alice'), bytes('secret')))
  assert.ok(who.isUser(bytes('bob'), bytes('x'.repeat(255))))
  for (const [name, password] of [
    ['alice', 'Secret'],
    ['alice', 'secret\0'],
    ['alice', ''],
    ['bob', 'secret'],
    ['alic', 'esecret'],
    ['', ''],
  ] as const)
    assert.not.ok(who.isUser(bytes(name), bytes(password)), name)
})

/** Feeds a request in pieces. @returns the steps but `more`, and the bytes that were not used */
function feed(protocol: Protocol, request: Uint8Array, size: number): { steps: Step[]; rest: Uint8Array } {
  const steps: Step[] = []
  let held = new Uint8Array(0)
  let at = 0
  while (at < request.length) {
    const from = held.length
    held = Uint8Array.of(...held, ...request.subarray(at, at + size))
    at += size
    for (let before = from; held.length > 0; before = 0) {
      const step = protocol.next(held, before)
      if (step.kind === 'more') break
      steps.push(step)
      held = held.slice(step.used)
      if (step.kind !== 'answer') return { steps, rest: Uint8Array.of(...held, ...request.subarray(at)) }
    }
  }
  return { steps, rest: held }
}

const greeting = Uint8Array.of(5, 1, 0)
const asks = (...tail: number[]): Uint8Array => Uint8Array.of(...greeting, 5, 1, 0, ...tail)

test('SOCKS5 requests are read however they are cut, and what follows is left', () => {
  const name = 'example.com'
  for (const [request, host, port] of [
    [asks(1, 8, 8, 4, 4, 1, 187), '8.8.4.4', 443],
    [asks(3, name.length, ...bytes(name), 0, 80), name, 80],
    [asks(4, ...new Array(15).fill(0), 1, 0, 22), '0:0:0:0:0:0:0:1', 22],
  ] as const) {
    for (const size of [1, 2, 3, 7, 1000]) {
      const { steps, rest } = feed(new Socks5(undefined), Uint8Array.of(...request, 1, 2, 3), size)
      assert.equal(steps[0], { kind: 'answer', used: 3, bytes: Uint8Array.of(5, 0) })
      const [, last] = steps
      assert.ok(last?.kind === 'target')
      assert.equal([last.host, last.port], [host, port])
      assert.equal([...rest], [1, 2, 3])
    }
  }
  const isUser = (user: Uint8Array, password: Uint8Array): boolean => text(user) + text(password) === 'ab'
  const signed = Uint8Array.of(5, 2, 0, 2, 1, 1, 97, 1, 98, 5, 1, 0, 1, 1, 2, 3, 4, 0, 9)
  assert.is(feed(new Socks5(isUser), signed, 1).steps.at(-1)?.kind, 'target')
  const wrong = feed(new Socks5(isUser), Uint8Array.of(5, 1, 2, 1, 1, 97, 1, 99), 4).steps.at(-1)
  assert.ok(wrong?.kind === 'refuse' && wrong.why === 'unauthorized')
  assert.equal(wrong.bytes, Uint8Array.of(1, 1))
})

test('other requests of SOCKS are refused with the code for it', () => {
  const refusal = (request: Uint8Array, isUser?: () => boolean): { why: string; code: number | undefined } => {
    const protocol: Protocol = new Socks5(isUser)
    const last = feed(protocol, request, 5).steps.at(-1)
    assert.ok(last?.kind === 'refuse', JSON.stringify(last))
    return { why: last.why, code: (last.bytes ?? protocol.answer(last.why, ''))[1] }
  }
  assert.equal(refusal(Uint8Array.of(...greeting, 5, 2, 0, 1, 1, 2, 3, 4, 0, 9)), { why: 'unsupported', code: 7 })
  assert.equal(refusal(Uint8Array.of(...greeting, 5, 3, 0, 1, 1, 2, 3, 4, 0, 9)), { why: 'unsupported', code: 7 })
  assert.equal(refusal(asks(9, 1, 2, 3, 4, 0, 9)), { why: 'unsupported', code: 8 })
  assert.equal(refusal(asks(1, 1, 2, 3, 4, 0, 0)), { why: 'failed', code: 1 })
  assert.equal(refusal(asks(3, 3, 97, 10, 97, 0, 9)), { why: 'failed', code: 1 })
  assert.equal(refusal(asks(3, 0, 0, 9)), { why: 'failed', code: 1 })
  assert.equal(
    refusal(greeting, () => true),
    { why: 'unauthorized', code: 0xff },
  )
  assert.is(refusal(bytes('GET / HTTP/1.1\r\n')).why, 'malformed')
  assert.is(refusal(Uint8Array.of(4, 1, 0, 80)).why, 'malformed')
  const codes = ['denied', 'network unreachable', 'host unreachable', 'refused', 'timeout'] as const
  const protocol: Protocol = new Socks5(undefined)
  feed(protocol, greeting, 3)
  assert.equal(
    codes.map((why) => protocol.answer(why, '')[1]),
    [2, 3, 4, 5, 6],
  )
})

test('HTTP: CONNECT is served, other requests get a status that says why', () => {
  const ask = (request: string, isUser?: (name: Uint8Array, password: Uint8Array) => boolean, size = 9) => {
    const { steps, rest } = feed(new HttpConnect(isUser), bytes(request), size)
    return { step: steps.at(-1), rest: text(rest) }
  }
  for (const [place, host, port] of [
    ['example.com:443', 'example.com', 443],
    ['[2001:db8::1]:80', '2001:db8::1', 80],
    ['1.2.3.4:22', '1.2.3.4', 22],
  ] as const) {
    for (const [size, end] of [
      [1, '\r\n'],
      [1000, '\n'],
    ] as const) {
      const { step, rest } = ask(`CONNECT ${place} HTTP/1.1${end}Host: x${end}${end}early`, undefined, size)
      assert.ok(step?.kind === 'target', place)
      assert.equal([step.host, step.port], [host, port])
      assert.is(rest, 'early')
    }
  }
  const status = (request: string, isUser?: () => boolean): string => {
    const { step } = ask(request, isUser)
    assert.ok(step?.kind === 'refuse', request)
    return text(step.bytes)
  }
  const plain = status('GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n')
  assert.match(plain, /^HTTP\/1\.1 405 .*\r\nAllow: CONNECT\r\n/)
  assert.match(plain, /CONNECT only/)
  assert.match(status('CONNECT example.com HTTP/1.1\r\n\r\n'), /^HTTP\/1\.1 400 /)
  assert.match(status('CONNECT a:0 HTTP/1.1\r\n\r\n'), /^HTTP\/1\.1 400 /)
  assert.match(status('CONNECT a:99999 HTTP/1.1\r\n\r\n'), /^HTTP\/1\.1 400 /)
  assert.match(status('CONNECT a:1\r\n\r\n'), /^HTTP\/1\.1 400 /)
  assert.match(status('\x16\x03\x01'), /^HTTP\/1\.1 400 /)
  assert.match(status(`CONNECT a:1 HTTP/1.1\r\nX: ${'x'.repeat(9000)}`), /^HTTP\/1\.1 431 /)
  assert.match(
    status('CONNECT a:1 HTTP/1.1\r\n\r\n', () => true),
    /^HTTP\/1\.1 407 .*\r\nProxy-Authenticate: Basic/,
  )
  const given = `CONNECT a:1 HTTP/1.1\r\nproxy-Authorization: Basic ${btoa('al:b:c')}\r\n\r\n`
  assert.match(
    status(given, () => false),
    /^HTTP\/1\.1 407 /,
  )
  const isUser = (user: Uint8Array, password: Uint8Array): boolean => text(user) === 'al' && text(password) === 'b:c'
  assert.is(ask(given, isUser).step?.kind, 'target')
})

test('every special range of IPv4 ends where it says', () => {
  for (const [last, next] of [
    ['100.127.255.255', '100.128.0.0'],
    ['172.31.255.255', '172.32.0.0'],
    ['198.19.255.255', '198.20.0.0'],
  ] as const) {
    assert.ok(isSpecial(parsedBytes(last)))
    assert.not.ok(isSpecial(parsedBytes(next)))
  }
})

/** A clock whose time the test moves. */
class HandClock {
  #now = 0
  #timers: { at: number; callback: () => void }[] = []
  readonly clock: Clock = {
    monotonic: () => this.#now,
    wall: () => this.#now,
    setTimer: (callback, ms) => {
      const timer = { at: this.#now + ms, callback }
      this.#timers.push(timer)
      return timer
    },
    clearTimer: (timer) => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    },
    defer: (callback) => this.clock.setTimer(callback, 0),
    clearDeferred: (timer) => this.clock.clearTimer(timer),
  }
  pass(ms: number): void {
    this.#now += ms
    const due = (): { at: number; callback: () => void } | undefined => this.#timers.find(({ at }) => at <= this.#now)
    for (let timer = due(); timer !== undefined; timer = due()) {
      this.clock.clearTimer(timer)
      timer.callback()
    }
  }
}

/** A connection of the proxy with what the driver sees of it. */
function opened(protocol: Protocol) {
  const time = new HandClock()
  const seen: string[] = []
  const dials: { host: string; port: number; open: (target: TcpConnection) => void; isCancelled: boolean }[] = []
  const connection = new ProxyConnection(
    {
      clock: time.clock,
      dial(host, port, open) {
        const one = { host, port, open, isCancelled: false }
        dials.push(one)
        return {
          cancel: () => {
            one.isCancelled = true
          },
        }
      },
      onRefused: (why) => seen.push(`refused: ${why}`),
    },
    protocol,
  )
  connection.attach({
    onData: (data) => seen.push(text(data)),
    onEnd: () => seen.push('end'),
    onDrain: () => seen.push('drain'),
    onClose: (error) => seen.push(error === undefined ? 'close' : `close: ${error.code}`),
  })
  connection.resume()
  return { time, seen, dials, connection }
}

test('a client that is slow with its request is answered and cut off', () => {
  const { time, seen, connection } = opened(new HttpConnect(undefined))
  assert.is(connection.write(bytes('CONNECT '), 8), 8)
  time.pass(REQUEST_MS - 1)
  assert.equal(seen, [])
  time.pass(1)
  assert.is(seen[0], 'refused: timeout')
  assert.match(seen[1] ?? '', /^HTTP\/1\.1 408 /)
  assert.equal(seen.slice(2), ['drain', 'end'])
  assert.is(connection.write(bytes('more'), 4), 4, 'what follows is dropped')
  time.pass(60_000)
  assert.is(seen.at(-1), 'close: ETIMEDOUT')
})

test('a target that does not answer is given up, and a client that ends after a refusal closes cleanly', () => {
  const { time, seen, dials, connection } = opened(new HttpConnect(undefined))
  const request = bytes('CONNECT a.test:1 HTTP/1.1\r\n\r\nearly')
  assert.is(connection.write(request, request.length), request.length - 5)
  assert.is(connection.write(bytes('early'), 5), 0, 'it waits for the target')
  time.pass(DIAL_MS)
  assert.ok(dials[0]?.isCancelled)
  assert.match(seen[1] ?? '', /^HTTP\/1\.1 504 /)
  connection.end()
  time.pass(0)
  assert.is(seen.at(-1), 'close')
})

test('a session that ends before the target is connected cancels the dial', () => {
  for (const how of ['reset', 'close'] as const) {
    const { time, seen, dials, connection } = opened(new HttpConnect(undefined))
    const request = bytes('CONNECT a.test:1 HTTP/1.1\r\n\r\n')
    connection.write(request, request.length)
    connection[how]()
    assert.ok(dials[0]?.isCancelled)
    time.pass(600_000)
    assert.equal(seen, [])
  }
})

test.run()
