/** Recorded obfuscated packets are parsed and rebuilt (protocol.md 9). */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ObfsHost } from '../../testkit/obfs-host.ts'
import { fromHex } from '../../testkit/sim/wire.ts'
import { isChecksumRight, masked, OBFS_CAPTURES, obfsCapture, packetOf, parsePacket } from '../vectors/obfs-packets.ts'

const test = suite('core/obfs captures')

for (const name of OBFS_CAPTURES) {
  const { obfs, packets } = obfsCapture(name)
  const kind = obfs === 'dpi/tcp' ? 'dpi/tcp' : 'dpi/tcp-wnd'
  const first = packets[0]
  assert.ok(first)
  const ends = { client: first.src, server: first.dst }

  for (const role of ['client', 'server'] as const) {
    const other = role === 'client' ? ends.server : ends.client

    test(`MUST 63, 64, 65: ${name}: the ${role} extracts exactly the sealed datagrams`, () => {
      const host = new ObfsHost(kind, role, ends[role])
      if (role === 'client') host.dial(other)
      else if (kind === 'dpi/tcp-wnd') host.accept(other)
      let found = 0
      for (const record of packets.filter(({ src }) => src === other)) {
        const got = host.capture(fromHex(record.packet))
        const expected = record.sealedOffset === undefined ? [] : [record.packet.slice(record.sealedOffset * 2)]
        assert.equal(
          got.map(({ bytes }) => Buffer.from(bytes).toString('hex')),
          expected,
          `${record.tcp.flags} at ${record.t_ms} ms`,
        )
        for (const { bytes } of got) if (record.plain) host.open(other, fromHex(record.plain), bytes)
        found += got.length
      }
      assert.ok(found > 3)
    })

    test(`MUST 63, 64: ${name}: packets of the ${role} are built as recorded, with correct checksums`, () => {
      const host = new ObfsHost(kind, role, ends[role])
      if (role === 'client') host.dial(other)
      let built = 0
      // distance of the built sequence numbers from the recorded ones
      let offset: number | undefined
      for (const record of packets) {
        const packet = packetOf(record)
        if (record.src === other) {
          host.capture(packet.bytes)
          // the kcptun-libev server took the numbers of the first packet after accept()
          if (kind === 'dpi/tcp-wnd' && role === 'server' && record.text !== undefined) host.accept(other)
          continue
        }
        if (kind === 'dpi/tcp' && record.tcp.flags.startsWith('SYN')) {
          const [control] = host.controls()
          assert.ok(control)
          assert.is(masked(control, false), masked(packet.bytes, false))
          assert.ok(isChecksumRight(parsePacket(control)))
          assert.is(parsePacket(control).ack, packet.ack)
          offset = (parsePacket(control).seq - packet.seq) >>> 0
          continue
        }
        if (record.sealedOffset === undefined) continue
        const sent = host.send(other, packet.payload)
        assert.ok(sent, `${record.t_ms} ms: no context`)
        const mine = parsePacket(sent)
        assert.ok(isChecksumRight(mine))
        const isExact = kind === 'dpi/tcp-wnd' && role === 'client'
        if (mine.ece === packet.ece)
          assert.is(masked(sent, isExact), masked(packet.bytes, isExact), `${record.t_ms} ms`)
        if (offset !== undefined) {
          assert.is((mine.seq - packet.seq) >>> 0, offset)
        }
        assert.is(mine.window, kind === 'dpi/tcp' ? 32768 : 32748)
        built++
      }
      assert.ok(built > 3)
    })
  }
}

test.run()
