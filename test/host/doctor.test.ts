/** The doctor's messages, statistics and report, without a network. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { summarize } from '../../host/cli/doctor/pings.ts'
import { EXIT_STATUS, Report, reportJson, reportText } from '../../host/cli/doctor/report.ts'
import {
  CONTROL_BYTES,
  connectMessage,
  control,
  dial,
  firstMessage,
  isPunchable,
  keepalives,
  PING,
  PONG,
  pushSegment,
  RESET,
  readMessage,
} from '../../host/cli/doctor/wire.ts'
import { parseConfig } from '../../host/config/load.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { randomNumbers } from '../../testkit/link.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'))
const address = (text: string, port = 1, family: 4 | 6 = 4): SocketAddress => ({
  family,
  address: text,
  port,
  scope: 0,
})
const CONFIG = parseConfig(
  new TextEncoder().encode(
    `{"listen": "127.0.0.1:1", "kcp_connect": "a:2", "method": "aes256gcm", "psk": "${'A'.repeat(43)}="}`,
  ),
)

const test = suite('doctor')

test('PING, PONG and RESET are encoded as in the protocol, followed by padding', () => {
  assert.is(hex(control(PING, 0x02f78330)), '00000000000002f78330')
  assert.is(control(PING, 1, 1332).length, 1332)
  assert.is(control(PING, 1, 3).length, CONTROL_BYTES)
  assert.equal(readMessage(control(PONG, 7, 40)), { kind: 'pong', stamp: 7 })
  assert.equal(readMessage(control(RESET, 0xfffffffe)), { kind: 'reset', conv: 0xfffffffe })
})

test('CONNECT equals that of the recorded traffic', () => {
  const local = address('10.77.0.3', 0x9a03)
  assert.is(hex(connectMessage(local, 'myservice')), '000000000004000a4d00039a0300096d7973657276696365')
})

test('PUNCH holds two addresses', () => {
  const v6 = `01 20010db8000000000000000000000001 1451`
  const message = readMessage(bytesOf(`00000000 0005 00 c0a80002 1450 ${v6} ffff`))
  const addresses = [address('192.168.0.2', 0x1450), address('2001:db8::1', 0x1451, 6)]
  assert.equal(message, { kind: 'punch', addresses })
})

test('a conversation of KEEPALIVEs: its segments and their echo are parsed', () => {
  const segment = pushSegment(0x5eab3693, 3, 1, keepalives(8))
  assert.is(hex(segment), '5eab3693510000800000000000000003000000010000000800030004' + '00030004')
  const ack = bytesOf('5eab3693 52 00 0100 00000000 00000003 00000001 00000000')
  const message = readMessage(new Uint8Array([...ack, ...segment, 9, 9, 9]))
  if (message?.kind !== 'segments') throw new Error('no segments')
  assert.is(message.conv, 0x5eab3693)
  assert.equal(
    message.segments.map(({ ack, push, sn, data }) => [ack, push, sn, data.length]),
    [
      [true, false, 3, 0],
      [false, true, 3, 8],
    ],
  )
  assert.is(firstMessage(bytesOf('00020004')), 'eof')
  assert.is(firstMessage(bytesOf('00010009 68')), 'data')
  assert.is(firstMessage(bytesOf('0002')), undefined)
  assert.is(hex(dial()), '00000004')
})

test('parsing arbitrary bytes does not throw', () => {
  const random = randomNumbers(5)
  for (let i = 0; i < 20_000; i++) {
    const bytes = Uint8Array.from({ length: Math.floor(random() * 60) }, () => Math.floor(random() * 256))
    if (random() < 0.7) bytes.fill(0, 0, 5)
    readMessage(bytes)
  }
})

test('MUST 56: only addresses usable by a peer are pinged', () => {
  const usable = [
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    '8.8.8.8',
    '100.63.0.1',
    '100.128.0.1',
    '::ffff:8.8.8.8',
    'fd00::1',
  ]
  const useless = ['0.1.2.3', '127.0.0.1', '169.254.1.1', '100.64.0.1', '100.127.0.1', '224.0.0.1', '255.255.255.255']
  for (const ip of usable) assert.ok(isPunchable(address(ip)), ip)
  for (const ip of [...useless, '::ffff:127.0.0.1', '::', '::1', 'fe80::1', 'ff02::1'])
    assert.not(isPunchable(address(ip)), ip)
  assert.not(isPunchable(address('8.8.8.8', 0)))
})

test('the statistics of a ping train are loss, spread, jitter and reordering', () => {
  const answers = new Map([
    [10, 20],
    [11, 30],
    [13, 20],
    [14, 60],
  ])
  const stats = summarize([10, 11, 12, 13, 14], { answers, order: [10, 13, 11, 14] }, 2, [1, 2, 3])
  assert.equal([stats.sent, stats.answered, stats.reordered, stats.duplicated], [5, 4, 1, 2])
  assert.ok(Math.abs(stats.loss - 0.2) < 1e-9)
  assert.equal([stats.minMs, stats.medianMs, stats.maxMs], [20, 30, 60])
  assert.ok(Math.abs(stats.jitterMs - 20) < 1e-9)
  const none = summarize([1, 2], { answers: new Map(), order: [] }, 0, [])
  assert.is(none.loss, 1)
  assert.ok(Number.isNaN(none.medianMs))
})

test('the worst finding determines the verdict and the exit status', () => {
  const report = new Report()
  report.add('config', 'ok', 'fine')
  report.add('buffers', 'note', 'small', { remedies: ['sysctl'] })
  assert.is(report.verdict, 'healthy')
  report.add('path', 'warning', 'lossy')
  assert.is(report.verdict, 'degraded')
  report.add('peer', 'failure', 'nothing comes back '.repeat(20).trim(), { remedies: ['look'] })
  report.add('server', 'failure', 'later')
  assert.is(report.verdict, 'broken')
  assert.match(report.summary, /^nothing comes back/)
  assert.equal([EXIT_STATUS.healthy, EXIT_STATUS.broken, EXIT_STATUS.degraded], [0, 1, 2])
  const text = reportText(report, 'client.json', CONFIG)
  for (const line of text.split('\n')) assert.ok(line.length <= 100, line)
  assert.match(text, /\n +-> sysctl\n/)
  assert.match(text, /\nbroken: nothing comes back/)
  const json = reportJson(report, 'client.json', CONFIG)
  assert.is(JSON.parse(json).verdict, 'broken')
  assert.not.ok((text + json).includes('AAAA'), 'no key')
})

test.run()
