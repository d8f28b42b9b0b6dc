// time limit: 180 s
/**
 * Obfuscated tunnels as captured by tshark: checksums, sequence numbers, and no RST. Checksum offload is off here, so
 * that all checksums can be verified.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES } from '../../testkit/netns.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { skip } from '../skip.ts'
import { withMeeting } from './meeting.ts'
import { ethtoolProblem, meetingOf, OBFS_PORT, OBFUSCATORS, obfsWorld, setFirewalls } from './obfs.ts'
import { type Captured, CHECKSUM_GOOD, Flag, flagsOf, Sniffer, tsharkProblem } from './sniffer.ts'

const TRANSFER_BYTES = 500_000
/** Minimum number of packets of such a transfer. */
const PACKETS = 300
/** protocol.md 9.2 and 9.4 */
const WINDOW = { 'dpi/tcp-wnd': '32748', 'dpi/tcp': '32768' } as const
const BEYOND_WINDOW = 1492

const test = suite('netns: obfs on the wire')
const problem = netnsProblem ?? ethtoolProblem ?? tsharkProblem

const isData = (packet: Captured): boolean => flagsOf(packet) === (Flag.PSH | Flag.ACK) && packet.headerLength === '20'

/** Packets by direction: from the client, from the server. */
function directions(packets: readonly Captured[]): readonly (readonly Captured[])[] {
  const fromServer = (packet: Captured): boolean => Number(packet.sourcePort) === OBFS_PORT
  return [packets.filter((packet) => !fromServer(packet)), packets.filter(fromServer)]
}

/** dpi/tcp-wnd: sequence numbers of the injected packets are constant, and beyond those of the kernels. */
function checkBeside(packets: readonly Captured[]): void {
  for (const direction of directions(packets)) {
    const [first, ...others] = direction.filter(isData)
    assert.ok(first)
    for (const packet of others) assert.equal([packet.seq, packet.ack], [first.seq, first.ack])
    const kernel = direction.filter((packet) => packet.headerLength !== '20' && (flagsOf(packet) & Flag.SYN) === 0)
    const expected = new Set(kernel.map(({ seq }) => String((Number(seq) + BEYOND_WINDOW) % 2 ** 32)))
    assert.ok(expected.has(first.seq), `seq ${first.seq} is ${BEYOND_WINDOW} beyond the kernel's`)
  }
}

/** dpi/tcp: each packet starts where the previous one ended, and acknowledges received data. */
function checkAdvancing(packets: readonly Captured[]): void {
  const [client = [], server = []] = directions(packets)
  for (const [own, other] of [
    [client, server],
    [server, client],
  ]) {
    const [syn, ...data] = own ?? []
    assert.ok(syn !== undefined && (flagsOf(syn) & Flag.SYN) !== 0)
    let next = (Number(syn.seq) + 1) % 2 ** 32
    const ends = new Set(
      (other ?? []).map(({ seq, length, flags }) =>
        String((Number(seq) + Number(length) + (Number(flags) & Flag.SYN ? 1 : 0)) % 2 ** 32),
      ),
    )
    for (const packet of data) {
      assert.is(Number(packet.seq), next)
      next = (next + Number(packet.length)) % 2 ** 32
      // 0: data right after the SYN
      assert.ok(ends.has(packet.ack) || packet.ack === '0', `ack ${packet.ack} is an end of a packet of the other side`)
    }
  }
}

if (problem !== undefined) {
  skip(test, 'all', problem)
} else {
  const hosts = obfsWorld(false)
  const { world, clientHost, serverHost } = hosts
  test.after(() => world.close())

  for (const obfs of OBFUSCATORS) {
    if (obfs === 'dpi/tcp') test('the printed firewall rules are installed', () => setFirewalls(hosts, 'node'))
    for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
      for (const family of FAMILIES) {
        const options = meetingOf(hosts, obfs, family, server, client)
        test(`MUST 63, MUST 64: checksums are correct, numbers are plausible, no kernel sends RST: ${options.title}`, async () => {
          const sniffer = new Sniffer(clientHost, OBFS_PORT)
          try {
            await sniffer.started(serverHost.addresses[family])
            await withMeeting(options, async (meeting) => {
              const app = await meeting.connect()
              app.destroy()
              await upload(meeting, meeting.target, TRANSFER_BYTES, index)
              await download(meeting, meeting.target, TRANSFER_BYTES, index + 1)
              const all = await sniffer.settle((packets) => packets.filter(isData).length >= 2 * PACKETS)
              check(all, obfs)
            })
          } finally {
            await sniffer.close()
          }
        })
      }
    }
  }
}

function check(packets: readonly Captured[], obfs: 'dpi/tcp-wnd' | 'dpi/tcp'): void {
  const bad = packets.filter(({ checksum, ipChecksum }) => checksum !== CHECKSUM_GOOD || ipChecksum === '0')
  assert.equal(bad, [])
  assert.equal(
    packets.filter((packet) => (flagsOf(packet) & Flag.RST) !== 0),
    [],
  )
  const data = packets.filter(isData)
  assert.equal([...new Set(data.map(({ window }) => window))], [WINDOW[obfs]])
  if (obfs === 'dpi/tcp') checkAdvancing(packets)
  else checkBeside(packets)
}

test.run()
