/**
 * Recorded datagrams decode to what was recorded, and their segments form the recorded streams (protocol.md 4-7).
 */
import { createHash } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { concat, fromHex } from '../../testkit/sim/wire.ts'
import { decode, decodeMessages, decodeSegments } from '../../testkit/decode.ts'
import { CAPTURES, capture, plainOf } from './files.ts'

const test = suite('vectors/decode')

for (const name of CAPTURES) {
  const file = capture(name)

  test(`${name}: every plaintext parses to what was recorded`, () => {
    let compared = 0
    for (const packet of file.packets) {
      const plain = plainOf(packet)
      if (plain === null) {
        assert.ok(packet.decoded === null || packet.decoded === undefined)
        continue
      }
      assert.equal(decode(fromHex(plain)), packet.decoded, `${packet.dir} at ${packet.t_ms} ms`)
      compared++
    }
    assert.ok(compared > 0)
  })

  test(`${name}: the segments form the recorded stream`, () => {
    for (const [conv, directions] of Object.entries(file.tcpStream)) {
      for (const dir of ['c2s', 's2c'] as const) {
        const expected = directions[dir]
        if (!expected || expected.missing > 0) continue
        const bySn = new Map<number, Uint8Array>()
        for (const packet of file.packets) {
          const plain = plainOf(packet)
          if (packet.dir !== dir || plain === null || packet.note !== undefined || !plain.startsWith(conv)) continue
          for (const { cmd, sn, data } of decodeSegments(fromHex(plain)).segments) {
            if (cmd === 'PUSH') bySn.set(sn, data)
          }
        }
        assert.is(bySn.size, expected.segments, `${conv} ${dir}`)
        const stream = concat(...[...bySn].sort(([a], [b]) => a - b).map(([, data]) => data))
        assert.is(stream.length, expected.bytes)
        const { messages, rest } = decodeMessages(stream)
        assert.is(rest, 0)
        assert.equal(
          messages.map(({ type, payload }) => [
            type,
            payload.length + 4,
            type === 'PUSH' ? createHash('sha256').update(payload).digest('hex') : undefined,
          ]),
          expected.messages.map(({ type, len, payload_sha256 }) => [type, len, payload_sha256]),
        )
      }
    }
  })
}

test.run()
