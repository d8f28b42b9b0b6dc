/**
 * The recorded datagrams of two kcptun-libev endpoints, fed to the engine: it delivers the recorded bytes and EOFs.
 */
import { createHash } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { UNSET } from '../../host/engine/core.ts'
import { MS } from '../../testkit/sim/endpoint.ts'
import { Solo, type SoloStream } from '../../testkit/sim/solo.ts'
import { fromHex } from '../../testkit/sim/wire.ts'
import { CAPTURES, capture, plainOf, type VectorFile, type VectorStream } from './files.ts'

const LONG_TIMEOUTS = { timeout: 86400, linger: 600, sndwnd: UNSET, rcvwnd: UNSET }

function compare(stream: SoloStream, expected: VectorStream, name: string): void {
  const pushes = expected.messages.filter(({ type }) => type === 'PUSH')
  let at = 0
  for (const { payload_len: length = 0, payload_sha256: sha256 } of pushes) {
    const hash = createHash('sha256').update(stream.data.subarray(at, at + length)).digest('hex')
    assert.is(hash, sha256, `${name}: payload at ${at}`)
    at += length
  }
  assert.is(stream.data.length, at, name)
  assert.is(stream.eof, expected.messages.some(({ type }) => type === 'EOF'), `${name}: EOF`)
}

/** Feeds one direction at its recorded times; `conv` maps recorded to actual conversations. */
function replay(solo: Solo, file: VectorFile, dir: 'c2s' | 's2c', conv: (recorded: string) => string | undefined): void {
  for (const packet of file.packets) {
    const plain = plainOf(packet)
    if (packet.dir !== dir || plain === null || packet.note !== undefined) continue
    if (packet.t_ms > solo.ms) solo.run(Math.floor(packet.t_ms * MS) / MS - solo.ms)
    const recorded = plain.slice(0, 8)
    const actual = conv(recorded)
    if (actual === undefined) continue
    const bytes = fromHex(plain)
    // every segment of the datagram carries the conv
    const id = fromHex(actual)
    const view = new DataView(bytes.buffer)
    for (let at = 0; bytes.length - at >= 24; at += 24 + view.getUint32(at + 20)) bytes.set(id, at)
    solo.feed(bytes)
  }
  solo.run(1000)
}

const test = suite('vectors/stream')

for (const name of CAPTURES) {
  const file = capture(name)
  const convs = Object.keys(file.tcpStream)
  const usable = (dir: 'c2s' | 's2c'): string[] =>
    convs.filter((conv) => {
      const stream = file.tcpStream[conv]?.[dir]
      return stream !== undefined && stream.missing === 0 && stream.bytes > 0
    })

  if (usable('c2s').length > 0) {
    test(`${name}: a server delivers what the recorded client sent`, () => {
      const solo = new Solo({ role: 'server', config: LONG_TIMEOUTS })
      const handles = new Map<string, number>()
      replay(solo, file, 'c2s', (recorded) => (recorded === '00000000' ? undefined : recorded))
      for (const { handle, conv } of solo.endpoint.list()) handles.set(conv.toString(16).padStart(8, '0'), handle)
      for (const conv of usable('c2s')) {
        const expected = file.tcpStream[conv]?.c2s
        const stream = solo.streams.get(handles.get(conv) ?? -1)
        assert.ok(expected && stream, `${conv}: no session`)
        assert.ok(stream.dialled)
        compare(stream, expected, conv)
      }
      assert.is(solo.endpoint.counter('drop_malformed'), 0)
    })
  }

  if (usable('s2c').length > 0) {
    test(`${name}: a client delivers what the recorded server sent`, () => {
      const solo = new Solo({ role: 'client', config: LONG_TIMEOUTS })
      const handles = new Map<string, number>()
      const ours = new Map<string, string>()
      for (const conv of convs) {
        const handle = solo.open()
        assert.ok(handle > 0)
        handles.set(conv, handle)
        ours.set(conv, solo.endpoint.convOf(handle).toString(16).padStart(8, '0'))
      }
      replay(solo, file, 's2c', (recorded) => ours.get(recorded))
      for (const conv of usable('s2c')) {
        const expected = file.tcpStream[conv]?.s2c
        const stream = solo.streams.get(handles.get(conv) ?? -1)
        assert.ok(expected && stream)
        compare(stream, expected, conv)
      }
    })
  }
}

test.run()
