/** Log lines and counters for faults around a tunnel; none of these faults ends a session. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { Diagnostics } from '../../host/driver/diagnostics.ts'
import { PeerLog } from '../../host/driver/peer-log.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { COUNTERS, type CounterName } from '../../host/engine/core.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { loopback, MemoryNetwork, NO_CIPHERS, until } from './memory-runtime.ts'
import type { MemoryTcp } from './memory-tcp.ts'
import { type StubCore, stubCore } from './stub-core.ts'

const test = suite('diagnostics')

const UNKNOWN_PEER = loopback(6666)
const NO_PEER_LOG = new PeerLog({ log: new Log(() => {}), clock: new VirtualClock(), ping() {}, hasHeard: () => false })
/** Diagnostics over a stub; the test sets clock and counters. */
function bench(level = 6, sealed = true) {
  const stub: StubCore = stubCore()
  const lines: string[] = []
  const clock = { now: 0 }
  const log = new Log((_stream, text) => lines.push(text.trimEnd()))
  log.setLevel(level)
  const diagnostics = new Diagnostics(stub.core, log, sealed, () => clock.now, NO_PEER_LOG)
  const set = (name: CounterName, value: number): void => {
    stub.core.u32[(stub.core.calls.stats_ptr() >>> 2) + 2 * COUNTERS.indexOf(name)] = value
  }
  const fail = (total: number, from: SocketAddress | undefined = UNKNOWN_PEER): void => {
    set('drop_auth', total)
    diagnostics.dropped(from, from)
  }
  /** Lines without their time stamp. */
  const logged = (): string[] => lines.splice(0).map((line) => line.replace(/^. \S+ /, ''))
  return { diagnostics, clock, set, fail, logged }
}

const errno = (code: string): NodeJS.ErrnoException => Object.assign(new Error(`send ${code}`), { code })

test('failed authentications are logged at once, then once a minute with their number and a source', () => {
  const { diagnostics, clock, fail, logged } = bench(4)
  fail(1)
  assert.equal(logged(), ['1 packet failed authentication from 127.0.0.1:6666 (wrong key or method?)'])
  for (let i = 2; i <= 1000; i++) fail(i)
  clock.now = 59_999
  fail(1001)
  assert.equal(logged(), [])
  clock.now = 60_000
  fail(1002, loopback(7777))
  assert.equal(logged(), ['1001 packets failed authentication from 127.0.0.1:7777 (wrong key or method?)'])
  clock.now = 3_600_000
  assert.equal(logged(), [], 'nothing when there were none')
  fail(1003)
  assert.equal(logged(), ['1 packet failed authentication from 127.0.0.1:6666 (wrong key or method?)'])
  fail(1005)
  diagnostics.close()
  assert.equal(logged(), ['2 packets failed authentication from 127.0.0.1:6666 (wrong key or method?)'])
  diagnostics.close()
  assert.equal(logged(), [], 'the remainder is logged once')
})

test('the counter of failures may wrap', () => {
  const { fail, logged, clock } = bench(4)
  fail(0xffffffff)
  logged()
  clock.now = 60_000
  fail(1)
  assert.match(logged()[0] ?? '', /^2 packets /)
})

test('replays are logged at debug level only', () => {
  for (const level of [5, 6]) {
    const { diagnostics, set, logged } = bench(level)
    set('drop_replay', 3)
    diagnostics.dropped(undefined, UNKNOWN_PEER)
    assert.equal(logged(), level === 6 ? ['3 packets rejected as replays from 127.0.0.1:6666'] : [])
  }
})

test('without a method, unparsable packets are logged with the hint that the peer may have a method', () => {
  const { diagnostics, set, logged } = bench(4, false)
  set('drop_malformed', 2)
  diagnostics.dropped(undefined, UNKNOWN_PEER)
  assert.equal(logged(), ['2 packets could not be parsed from 127.0.0.1:6666 (method set on the peer only?)'])
})

test('sessions refused because of a full table are logged at most once a second', () => {
  const { diagnostics, set, logged } = bench(4)
  for (let i = 1; i <= 100; i++) {
    set('sessions_refused', i)
    diagnostics.dropped(undefined, UNKNOWN_PEER)
  }
  assert.equal(logged(), [
    'session refused from 127.0.0.1:6666: too many sessions, or out of memory (max_sessions, memory)',
  ])
})

test('send errors are classified by code', () => {
  const { diagnostics, logged } = bench(4)
  for (const code of ['ENOBUFS', 'EAGAIN']) assert.is(diagnostics.udpError(errno(code), 1400), 'back off')
  assert.equal(logged(), [])
  for (let i = 0; i < 5; i++) assert.is(diagnostics.udpError(errno('EMSGSIZE'), 1472), 'go on')
  const [line, ...more] = logged()
  assert.match(line ?? '', /EMSGSIZE.*1472 bytes.*kcp\.mtu/)
  assert.equal(more, [], 'once')
  diagnostics.udpOpened()
  diagnostics.udpError(errno('EMSGSIZE'), 1472)
  assert.is(logged().length, 1, 'again with another socket')
  for (const code of ['ENETUNREACH', 'EHOSTUNREACH', 'ECONNREFUSED']) {
    assert.is(diagnostics.udpError(errno(code), 1400), 'go on')
  }
  assert.equal(logged(), ['udp: send ENETUNREACH'], 'at most one hint a second')
  diagnostics.udpError(errno('EIO'), 1400)
  const { udp_full, udp_too_long, udp_unreachable, udp_other_errors } = diagnostics.counters
  assert.equal(
    { udp_full, udp_too_long, udp_unreachable, udp_other_errors },
    {
      udp_full: 2,
      udp_too_long: 6,
      udp_unreachable: 3,
      udp_other_errors: 1,
    },
  )
})

test('consecutive accept errors are logged once, and the recovery once', () => {
  const { diagnostics, clock, logged } = bench(4)
  for (let i = 0; i < 50; i++) diagnostics.acceptError(errno('EMFILE'))
  diagnostics.accepted()
  assert.equal(logged(), ['tcp accept: send EMFILE'], 'a single success does not end the series')
  clock.now = 600
  diagnostics.accepted()
  assert.equal(logged(), ['tcp accept: recovered'])
  diagnostics.accepted()
  assert.equal(logged(), [])
  diagnostics.acceptError(errno('EMFILE'))
  assert.is(logged().length, 1)
  assert.is(diagnostics.counters.tcp_accept_errors, 51)
  assert.is(diagnostics.counters.tcp_accepted, 3)
})

async function start(network: MemoryNetwork, lines: string[], config: object): Promise<Endpoint> {
  const log = new Log((_stream, text) => lines.push(text))
  const bytes = new TextEncoder().encode(JSON.stringify(config))
  return startEndpoint(network.runtime(), parseConfig(bytes), log, NO_CIPHERS)
}

const key = (letter: string): string => `${letter.repeat(43)}=`
const METHOD = 'chacha20poly1305_ietf'

test('a key or method mismatch is logged at both endpoints at the default level', async () => {
  for (const [server, client] of [
    [
      { method: METHOD, psk: key('A') },
      { method: METHOD, psk: key('E') },
    ],
    [
      { method: METHOD, psk: key('A') },
      { method: 'xchacha20poly1305_ietf', psk: key('A') },
    ],
    [{ method: METHOD, psk: key('A') }, {}],
  ]) {
    const network = new MemoryNetwork()
    const serverLog: string[] = []
    const clientLog: string[] = []
    const far = await start(network, serverLog, { connect: '127.0.0.1:9', kcp_bind: '127.0.0.1:5000', ...server })
    const near = await start(network, clientLog, { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:5000', ...client })
    const logged = (log: string[], what: RegExp) => log.some((line) => what.test(line))
    const failed = /packets? failed authentication from 127\.0\.0\.1:\d+ \(wrong key or method\?\)/
    await until(() => logged(serverLog, failed), 'the server logs it')
    await until(() => {
      network.clockAhead += 1000
      near.driver.pump()
      return logged(clientLog, /no answer from 127\.0\.0\.1:5000/)
    }, 'the client logs it')
    assert.ok(!far.driver.dead && !near.driver.dead)
    near.close()
    far.close()
  }
})

test('connections beyond max_sessions are refused and counted, established ones are unaffected', async () => {
  const network = new MemoryNetwork()
  const lines: string[] = []
  network.listen(loopback(9), () => ({ onData() {}, onEnd() {}, onDrain() {}, onClose() {} }))
  const far = await start(network, lines, { connect: '127.0.0.1:9', kcp_bind: '127.0.0.1:5000', max_sessions: 3 })
  const near = await start(network, lines, { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:5000', max_sessions: 5 })
  assert.ok(near.tcp)
  const address = near.tcp
  const ended = new Set<number>()
  const dial = (i: number): MemoryTcp => {
    const socket = network.dial(address, {
      onData() {},
      onEnd: () => ended.add(i),
      onDrain() {},
      onClose: () => ended.add(i),
    })
    socket.resume()
    return socket
  }
  for (let i = 0; i < 8; i++) dial(i)
  await until(() => near.driver.diagnostics.counters.tcp_refused === 3, 'the client refuses three')
  assert.is(near.driver.diagnostics.counters.tcp_accepted, 5)
  assert.ok(
    lines.some((line) =>
      line.includes('TCP connection refused: too many sessions, or too many half-open sessions (max_sessions)'),
    ),
  )
  await until(() => far.driver.core.counter('sessions_refused') >= 2n, 'the server refuses two')
  assert.ok(lines.some((line) => line.includes('session refused from 127.0.0.1:')))
  assert.is(far.driver.core.counter('sessions_opened'), 3n)
  await until(() => far.driver.diagnostics.counters.tcp_dials === 3, 'three are connected')
  assert.ok(ended.size <= 5)
  near.close()
  far.close()
})

test.run()
