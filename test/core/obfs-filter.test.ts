/** The packet filter of an obfuscator (protocol.md 9), on captured packets. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ObfsHost } from '../../testkit/obfs-host.ts'
import { fromHex } from '../../testkit/sim/wire.ts'
import { OBFS_CAPTURES, obfsCapture } from '../vectors/obfs-packets.ts'

const test = suite('core/obfs-filter')

test('the filter accepts only TCP to the bound address and port, for dpi/tcp-wnd only SYN and PSH', () => {
  const run = (program: Uint8Array, packet: Uint8Array): boolean => {
    const view = new DataView(program.buffer, program.byteOffset, program.length)
    const data = new DataView(packet.buffer, packet.byteOffset, packet.length)
    let a = 0
    let x = 0
    for (let pc = 0; ; pc++) {
      const [code, jt, jf, k] = [
        view.getUint16(pc * 8, true),
        view.getUint8(pc * 8 + 2),
        view.getUint8(pc * 8 + 3),
        view.getUint32(pc * 8 + 4, true),
      ]
      if (code === 0x30) a = data.getUint8(k)
      else if (code === 0x28) a = data.getUint16(k)
      else if (code === 0x20) a = data.getUint32(k)
      else if (code === 0xb1) x = (data.getUint8(k) & 15) * 4
      else if (code === 0x48) a = data.getUint16(x + k)
      else if (code === 0x50) a = data.getUint8(x + k)
      else if (code === 0x54) a &= k
      else if (code === 0x15) pc += a >>> 0 === k ? jt : jf
      else if (code === 0x45) pc += (a & k) !== 0 ? jt : jf
      else if (code === 0x06) return k !== 0
      else throw new Error(`code ${code}`)
    }
  }
  for (const kind of ['dpi/tcp', 'dpi/tcp-wnd'] as const)
    for (const local of [
      '10.77.0.2:8080',
      '0.0.0.0:8080',
      '10.77.0.2:0',
      '[fd77::2]:8080',
      '[::]:8080',
      '[fd77::2]:0',
    ]) {
      const host = new ObfsHost(kind, 'server', local)
      const at = host.core.calls.obfs_ptr() >>> 0
      const length = host.core.u32[(at + 64) >>> 2] ?? 0
      assert.ok(length > 0 && length <= 32)
      const program = host.core.u8.slice(at + 72, at + 72 + length * 8)
      for (const name of OBFS_CAPTURES) {
        for (const record of obfsCapture(name).packets) {
          const isV6 = record.src.startsWith('[')
          // in dpi/tcp-wnd packets without SYN or PSH are the kernels' own ACKs
          const isRelevant = kind === 'dpi/tcp' || /SYN|PSH/.test(record.tcp.flags)
          const wanted = isRelevant && isV6 === local.startsWith('[') && record.dst.endsWith(':8080')
          assert.is(
            run(program, fromHex(record.packet)),
            wanted,
            `${kind}, ${local}: ${record.src} > ${record.dst}, ${record.tcp.flags}`,
          )
          const udp = fromHex(record.packet)
          udp[isV6 ? 6 : 9] = 17
          assert.not(run(program, udp))
          const other = fromHex(record.packet)
          other[0] = (other[0] ?? 0) ^ 0x20
          assert.not(run(program, other), 'version 6 instead of 4, or 4 instead of 6')
          if (isV6) continue
          const piece = fromHex(record.packet)
          piece[7] = 1
          assert.not(run(program, piece))
        }
      }
    }
})

test('the engine answers a SYN to its own IPv6 address only: both halves of the address count', () => {
  const client = new ObfsHost('dpi/tcp', 'client', '[fd77::3]:40000')
  client.dial('[fd77::2]:8080')
  const [syn] = client.controls()
  assert.ok(syn)
  for (const [local, answers] of [
    ['[fd77::2]:8080', 1],
    ['[::]:8080', 1],
    ['[fd77::9]:8080', 0],
    ['[fd78::2]:8080', 0],
    ['[fd77::2]:8081', 0],
    ['10.77.0.2:8080', 0],
  ] as const) {
    const server = new ObfsHost('dpi/tcp', 'server', local)
    assert.equal(server.capture(syn), [])
    assert.is(server.controls().length, answers, local)
  }
})

test.run()
