/** What the log says while a client looks for its server, loses it, and finds it again; and how soon it finds it. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { PeerLog } from '../../host/driver/peer-log.ts'
import { startEndpoint } from '../../host/endpoint/endpoint.ts'
import { systemError } from '../../host/errors.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { loopback, MemoryNetwork, NO_CIPHERS, until } from './memory-runtime.ts'

const test = suite('peer-log')

const SERVER: SocketAddress = loopback(4000)
const WHERE = '127.0.0.1:4000'

/** A log of the peer whose lines the test reads, and the times of its pings. */
function bench() {
  const clock = new VirtualClock()
  const lines: string[] = []
  const log = new Log((_stream, text) => lines.push(text.trimEnd()))
  const pings: number[] = []
  // every ping of a machine where nothing listens is refused
  let isRefusing = false
  let heard = false
  const refuse = (): void => peerLog.unreachable(SERVER, systemError('ECONNREFUSED', 'recvmmsg'))
  const peerLog = new PeerLog({
    log,
    clock,
    hasHeard: () => heard,
    ping() {
      pings.push(clock.monotonic())
      if (isRefusing) refuse()
    },
  })
  const setRefusing = (value: boolean): void => {
    isRefusing = value
    if (value) refuse()
  }
  const logged = (): string[] => lines.splice(0).map((line) => line.replace(/^. \S+ /, ''))
  const hear = (): void => {
    heard = true
  }
  return { clock, peerLog, pings, logged, setRefusing, hear }
}

test('an answer is logged once, with its time', async () => {
  const { clock, peerLog, logged } = bench()
  peerLog.start(SERVER, 'peer')
  await clock.advance(52)
  peerLog.answered(SERVER, 'peer', 52)
  peerLog.answered(SERVER, 'peer', 40)
  // as when its name is looked up again
  peerLog.start(SERVER, 'peer')
  await clock.advance(60_000)
  assert.equal(logged(), [`connected: ${WHERE} answers in 52 ms`])
  assert.is(clock.armed, 0)
})

test('without an answer the log says what is waited for, then that there is none, then how long it took', async () => {
  const { clock, peerLog, logged } = bench()
  peerLog.start(SERVER, 'peer')
  await clock.advance(999)
  assert.equal(logged(), [])
  await clock.advance(1)
  assert.equal(logged(), [`waiting for ${WHERE}`])
  await clock.advance(3000)
  peerLog.silent(SERVER, 'peer', 1, undefined)
  peerLog.silent(SERVER, 'peer', 2, undefined)
  assert.is(peerLog.isSilent, true)
  assert.match(
    logged().join('\n'),
    /^no answer from 127\.0\.0\.1:4000: the peer is down or unreachable, or its key [^\n]*$/,
  )
  peerLog.answered(SERVER, 'peer', 0.42)
  assert.is(peerLog.isSilent, false)
  assert.equal(logged(), [`connected: ${WHERE} answers in 0.4 ms`])
})

test('what ICMP reports explains the silence until the peer answers, or the report is old', async () => {
  const { clock, peerLog } = bench()
  assert.is(peerLog.problem, undefined)
  peerLog.unreachable(SERVER, systemError('ECONNREFUSED', 'recvmmsg'))
  assert.is(peerLog.problem?.kind, 'refused')
  peerLog.answered(SERVER, 'peer', 1)
  assert.is(peerLog.problem, undefined)
  peerLog.unreachable(SERVER, systemError('EPERM', 'sendmmsg'))
  assert.is(peerLog.problem?.kind, 'firewall')
  peerLog.unreachable(SERVER, systemError('EHOSTUNREACH', 'sendmmsg'))
  assert.is(peerLog.problem?.kind, 'unreachable')
  assert.match(peerLog.problem?.text ?? '', 'EHOSTUNREACH')
  await clock.advance(60_000)
  assert.is(peerLog.problem, undefined)
})

test('after an outage its length is logged, counted from the last datagram', async () => {
  const { clock, peerLog, logged } = bench()
  peerLog.answered(SERVER, 'peer', 30)
  logged()
  await clock.advance(100_000)
  peerLog.silent(SERVER, 'peer', 1, 6000)
  await clock.advance(6000)
  logged()
  peerLog.answered(SERVER, 'peer', 31)
  assert.equal(logged(), [`connected: ${WHERE} answers in 31 ms, after 12 s without an answer`])
})

test('a server that was heard before it answered a ping is not waited for, and missed like any other', async () => {
  const { clock, peerLog, logged, hear } = bench()
  peerLog.start(SERVER, 'peer')
  hear()
  await clock.advance(5000)
  assert.equal(logged(), [])
  peerLog.silent(SERVER, 'peer', 1, 4000)
  await clock.advance(1000)
  logged()
  peerLog.answered(SERVER, 'peer', 52)
  assert.equal(logged(), [`connected: ${WHERE} answers in 52 ms, after 5.0 s without an answer`])
})

test('another address is another connection, and the rendezvous server is named as such', () => {
  const { peerLog, logged } = bench()
  peerLog.answered(SERVER, 'rendezvous server', 30)
  peerLog.answered(loopback(4001), 'peer', 31)
  assert.equal(logged(), [
    `connected: rendezvous server ${WHERE} answers in 30 ms`,
    'connected: 127.0.0.1:4001 answers in 31 ms',
  ])
})

test('a peer that comes back at another address was away all the same', async () => {
  const { clock, peerLog, logged } = bench()
  peerLog.answered(SERVER, 'rendezvous server', 30)
  peerLog.answered(loopback(4001), 'peer', 31)
  peerLog.silent(loopback(4001), 'peer', 1, 0)
  await clock.advance(60_000)
  logged()
  peerLog.answered(loopback(4002), 'peer', 32)
  assert.equal(logged(), ['connected: 127.0.0.1:4002 answers in 32 ms, after 60 s without an answer'])
})

test('a server that is not started costs one line, then one a minute with the count', async () => {
  const { clock, peerLog, logged, setRefusing, pings } = bench()
  peerLog.start(SERVER, 'peer')
  setRefusing(true)
  await clock.advance(10_000)
  peerLog.silent(SERVER, 'peer', 1, undefined)
  await clock.advance(20_000)
  assert.equal(logged(), [`${WHERE} refuses: no server listens on that UDP port; retrying`])
  await clock.advance(31_000)
  const [line, ...more] = logged()
  assert.match(line ?? '', /^127\.0\.0\.1:4000 refuses: .*; retrying, \d\d times since the last line$/)
  assert.equal(more, [])
  setRefusing(false)
  peerLog.answered(SERVER, 'peer', 1)
  assert.equal(logged(), [`connected: ${WHERE} answers in 1.0 ms`])
  const before = pings.length
  await clock.advance(60_000)
  assert.is(pings.length, before, 'nobody is pinged once there is an answer')
})

test('refusals are followed by pings within a second, after ten minutes within ten', async () => {
  const { clock, pings, setRefusing } = bench()
  setRefusing(true)
  await clock.advance(3000)
  assert.equal(pings, [250, 750, 1750, 2750])
  await clock.advance(597_000)
  const before = pings.length
  assert.ok(before > 590)
  await clock.advance(60_000)
  assert.ok(pings.length - before <= 7, `${pings.length - before}`)
})

test('a single refusal causes a single ping', async () => {
  const { clock, pings, setRefusing } = bench()
  setRefusing(true)
  setRefusing(false)
  await clock.advance(60_000)
  assert.equal(pings, [250])
})

test('a host without a route is named with the error, and a firewall of this machine as such', async () => {
  const { clock, peerLog, logged } = bench()
  peerLog.unreachable(SERVER, systemError('EHOSTUNREACH', 'no route to host'))
  assert.equal(logged(), [`${WHERE} cannot be reached: EHOSTUNREACH: no route to host; retrying`])
  await clock.advance(60_000)
  peerLog.unreachable(SERVER, systemError('EPERM', 'sendmmsg'))
  assert.equal(logged(), [
    `${WHERE} cannot be reached: a firewall of this machine refuses the packets (EPERM); retrying`,
  ])
})

test('a client that is started first finds its server, and says so', async () => {
  const network = new MemoryNetwork()
  const lines: string[] = []
  const start = (config: object, log: Log) =>
    startEndpoint(network.runtime(), parseConfig(new TextEncoder().encode(JSON.stringify(config))), log, NO_CIPHERS)
  const client = await start(
    { listen: '127.0.0.1:0', kcp_connect: WHERE },
    new Log((_stream, text) => lines.push(text)),
  )
  const server = await start({ connect: '127.0.0.1:9', kcp_bind: WHERE }, new Log(() => {}))
  client.driver.onUdpError(systemError('ECONNREFUSED', 'recvmmsg'))
  await until(() => lines.some((line) => /connected: 127\.0\.0\.1:4000 answers in /.test(line)), 'it is connected')
  assert.is(lines.filter((line) => line.includes('refuses: no server listens')).length, 1)
  client.close()
  server.close()
})

test.run()
