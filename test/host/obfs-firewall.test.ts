/** Whether the firewall rule of dpi/tcp is in force, from counters of the kernel and of the engine. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Driver } from '../../host/driver/driver.ts'
import { Log } from '../../host/log/log.ts'
import type { OperatingSystem } from '../../host/runtime.ts'
import { FirewallWatch, sentResets } from '../../host/transport/obfs/firewall-watch.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const test = suite('obfs: firewall')

const snmp = (resets: number): string =>
  `Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm InErrs OutRsts InCsumErrors\nTcp: 1 0 ${resets} 0\n` +
  'Udp: InDatagrams\nUdp: 7\n'

/** A watch, and what it reads. */
function scene() {
  const clock = new VirtualClock()
  const world = { own: 100, peers: 0, reads: 0, text: (resets: number) => snmp(resets) }
  const lines: string[] = []
  const os: Partial<OperatingSystem> = {
    readText: () => {
      world.reads++
      return world.text(world.own)
    },
  }
  const core = { counter: () => BigInt(world.peers) }
  const driver = { runtime: { clock }, read: (call: (from: typeof core) => bigint) => call(core) }
  const log = new Log((_, text) => lines.push(text))
  log.setLevel(6)
  const target = { side: 'client', address: { family: 4, address: '192.0.2.1', port: 443, scope: 0 } } as const
  const watch = new FirewallWatch(os as OperatingSystem, driver as unknown as Driver, log, () => target)
  /** 40 packets within a second, of which `resets` are RSTs of the peer; the kernel sends `own` RSTs meanwhile. */
  const pass = async (own: number, resets: number): Promise<void> => {
    await clock.advance(10_000)
    watch.onPackets(1)
    for (let i = 0; i < 40; i += 4) {
      world.own += own / 10
      world.peers += resets / 10
      await clock.advance(100)
      watch.onPackets(4)
    }
  }
  return { clock, world, lines, watch, pass }
}

test('the kernel counts the RSTs that it sends', () => {
  assert.is(sentResets(snmp(123)), 123)
  for (const text of ['', 'Tcp: OutRsts\n', 'Tcp: a b\nTcp: 1 2\n']) assert.is(sentResets(text), undefined)
})

test('an RST for each packet means that the rule is gone; fewer have other reasons', async () => {
  const { lines, pass } = scene()
  await pass(0, 0)
  await pass(10, 0)
  assert.equal(lines, [])
  await pass(40, 0)
  await pass(40, 0)
  assert.is(lines.length, 1)
  assert.match(
    lines[0] ?? '',
    /^W .*answers the tunnel's packets with RST.*iptables -I INPUT -p tcp -s 192.0.2.1 --sport 443 -j DROP/,
  )
  await pass(0, 0)
  assert.is(lines.length, 2)
  assert.match(lines[1] ?? '', 'in force again')
})

test('RSTs of the peer are named once, and are no reason to answer one', async () => {
  const { lines, pass } = scene()
  await pass(0, 30)
  await pass(0, 30)
  assert.is(lines.length, 1)
  assert.match(lines[0] ?? '', "the peer's kernel answers")
  await pass(0, 0)
  assert.match(lines[1] ?? '', 'no more RST')
  // the rest is answered
  await pass(10, 30)
  assert.is(lines.length, 4)
})

test('little traffic is not compared, and what cannot be read is no finding', async () => {
  const { clock, world, lines, watch, pass } = scene()
  for (let i = 0; i < 100; i++) {
    world.own += 2
    await clock.advance(1000)
    watch.onPackets(1)
  }
  assert.equal(lines, [])
  assert.ok(world.reads <= 11, `${world.reads} reads in 100 s`)
  world.text = () => ''
  await pass(40, 0)
  assert.equal(lines, [])
})

test.run()
