/**
 * The KCP segment codec and its numbering rules, tested through datagrams (protocol.md 5).
 */
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { UNSET } from '../../host/engine/core.ts'
import { decodeSegments } from '../../testkit/decode.ts'
import { patternByte } from '../../testkit/sim/random.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import {
  ack,
  Cmd,
  concat,
  DIAL,
  fromHex,
  KEEPALIVE,
  MessageType,
  message,
  push,
  segment,
  toHex,
  utf8,
} from '../../testkit/sim/wire.ts'

const u32 = fc.integer({ min: 0, max: 0xffffffff })
const conv = fc.integer({ min: 1, max: 0xffffffff })
/** ms after which delayed ACKs have been sent */
const ACK_MS = 50

/** @returns pattern bytes */
function payload(length: number, start = 0): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = patternByte(start + i, 1)
  return bytes
}

/** A server with one open session. */
function server(options: ConstructorParameters<typeof Solo>[0] = { role: 'server' }): Solo {
  const solo = new Solo(options)
  solo.feed(push(9, 0, DIAL))
  solo.run(ACK_MS)
  solo.take()
  return solo
}

const test = suite('core/segment')

test('MUST 16, 17, 20, 25, 31, 32: the first datagram of a client consists of DIAL and the data', () => {
  for (const clock of [0, 0x01020304, 0xfffffff0]) {
    const solo = new Solo({ role: 'client', clock })
    solo.run(1)
    solo.take()
    const handle = solo.endpoint.open()
    solo.stream(handle)
    solo.write(handle, utf8('hello, kcptun'))
    solo.endpoint.drain()
    const [first, second] = solo.take()
    assert.ok(first)
    assert.is(second, undefined)
    const id = solo.endpoint.convOf(handle).toString(16).padStart(8, '0')
    const ts = toHex(first.bytes.subarray(8, 12))
    const header = `${id} 51 00 0100 ${ts} 00000000 00000000 00000015`
    assert.is(toHex(first.bytes), toHex(fromHex(`${header} 00000004 00010011 68656c6c6f2c206b637074756e`)))
  }
})

test('MUST 16, 18, 20: an ACK echoes sn and ts of any PUSH, with una and the free window, in big-endian order', () => {
  fc.assert(
    fc.property(conv, u32, (id, ts) => {
      const solo = new Solo({ role: 'server' })
      solo.feed(push(id, 0, DIAL, { ts }))
      solo.run(ACK_MS)
      const [output] = solo.take()
      assert.ok(output)
      const hex32 = (value: number): string => value.toString(16).padStart(8, '0')
      const wnd = toHex(output.bytes.subarray(6, 8))
      assert.is(toHex(output.bytes), `${hex32(id)}5200${wnd}${hex32(ts)}000000000000000100000000`)
      assert.ok(wnd === '0100' || wnd === '00ff')
    }),
    { numRuns: 100 },
  )
})

test('MUST 18, MUST 19: every PUSH below the end of the window is acknowledged, even old ones; none beyond it is', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: -300, max: 600 }), u32), { maxLength: 60 }), (pushes) => {
      const solo = server()
      const stored = new Set([0])
      for (const [offset, ts] of pushes) {
        let next = 0
        while (stored.has(next)) next++
        const sn = offset >>> 0
        solo.feed(push(9, sn, KEEPALIVE, { ts }))
        solo.run(ACK_MS)
        const acks = solo.takeSegments(9).filter(({ cmd }) => cmd === 'ACK')
        const inside = offset < next + 256
        const own = acks.filter((one) => one.sn === sn && one.ts === ts)
        assert.is(own.length > 0, inside, `sn ${offset} with ${next} received`)
        if (inside && offset >= 0) stored.add(offset)
        while (stored.has(next)) next++
        for (const one of acks) {
          assert.is(one.una, next)
          assert.is(one.frg, 0)
          assert.is(one.len, 0)
        }
        // the echoed KEEPALIVEs need ACKs, too
        solo.feed(segment({ conv: 9, cmd: Cmd.ACK, una: 0xffff }))
      }
    }),
    { numRuns: 60 },
  )
})

test('MUST 18: sn 0xffffffff is old at the start: acknowledged, never delivered', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(9, 0xffffffff, DIAL, { ts: 5 }))
  solo.run(ACK_MS)
  const acks = solo.takeSegments(9)
  assert.equal(
    acks.map(({ cmd, sn, ts, una }) => [cmd, sn, ts, una]),
    [['ACK', 0xffffffff, 5, 0]],
  )
  assert.is(solo.streams.size, 0)
})

test('a stream arrives intact however it is segmented, reordered and duplicated', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 1400 }), { minLength: 1, maxLength: 60 }),
      fc.array(fc.nat(1000), { minLength: 120, maxLength: 120 }),
      fc.boolean(),
      (lengths, order, batched) => {
        const solo = server({ role: 'server', config: { rcvwnd: 128 } })
        const total = lengths.reduce((sum, length) => sum + length, 0)
        const data = payload(total)
        const messages: Uint8Array[] = []
        for (let at = 0; at < total; at += 10000)
          messages.push(message(MessageType.PUSH, data.subarray(at, at + 10000)))
        const stream = concat(...messages)
        const pieces: Uint8Array[] = []
        let at = 0
        for (const length of lengths) {
          pieces.push(push(9, 1 + pieces.length, stream.subarray(at, at + length)))
          at += length
        }
        for (; at < stream.length; at += 1000) pieces.push(push(9, 1 + pieces.length, stream.subarray(at, at + 1000)))
        // a shuffled list with repetitions, then everything once more
        const shuffled = order.map((n) => pieces[n % pieces.length] ?? DIAL)
        if (batched) solo.feed(...shuffled, ...pieces)
        else for (const piece of [...shuffled, ...pieces]) solo.feed(piece)
        assert.equal(solo.only.data, data)
        const last = 1 + pieces.length
        solo.run(ACK_MS)
        assert.is(solo.takeSegments(9).at(-1)?.una, last)
      },
    ),
    { numRuns: 80 },
  )
})

test('MUST 21: a datagram with any mix of commands is processed to the end', () => {
  const solo = server()
  solo.feed(
    concat(
      segment({ conv: 9, cmd: Cmd.WINS, una: 0 }),
      push(9, 1, message(MessageType.PUSH, utf8('one')), { ts: 1 }),
      segment({ conv: 9, cmd: Cmd.WASK }),
      ack(9, 77, 0, 0),
      push(9, 2, message(MessageType.PUSH, utf8('two')), { ts: 2 }),
    ),
  )
  solo.run(ACK_MS)
  assert.equal(solo.only.data, utf8('onetwo'))
  const answers = solo.takeSegments(9).map(({ cmd, sn }) => (cmd === 'ACK' ? `${cmd} ${sn}` : cmd))
  assert.ok(
    ['ACK 1', 'ACK 2', 'WINS'].every((text) => answers.includes(text)),
    answers.join(),
  )
})

test('MUST 29: reading stops at a foreign conv, bad length or unknown command; earlier segments are delivered', () => {
  const good = push(9, 1, message(MessageType.PUSH, utf8('good')))
  const bad = [
    push(8, 2, message(MessageType.PUSH, utf8('bad'))),
    push(9, 2, utf8('bad'), { len: 5000 }),
    push(9, 2, utf8('bad'), { len: 0x80000000 }),
    push(9, 2, utf8('bad'), { len: 0xffffffff }),
    segment({ conv: 9, cmd: 80, sn: 2 }),
    segment({ conv: 9, cmd: 85, sn: 2 }),
    segment({ conv: 9, cmd: 0, sn: 2 }),
  ]
  for (const tail of bad) {
    const solo = server()
    solo.feed(concat(good, tail, push(9, 2, message(MessageType.PUSH, utf8('after')))))
    assert.equal(solo.only.data, utf8('good'))
    solo.run(ACK_MS)
    const [first, ...more] = solo.takeSegments(9)
    assert.is(first?.sn, 1)
    assert.is(more.length, 0)
    // the session continues
    solo.feed(push(9, 2, message(MessageType.PUSH, utf8(' morning'))))
    assert.equal(solo.only.data, utf8('good morning'))
  }
})

test('MUST 10: up to 23 bytes after the segments are ignored as padding', () => {
  for (let pad = 0; pad <= 23; pad++) {
    const solo = server()
    solo.feed(concat(push(9, 1, message(MessageType.PUSH, utf8('x'))), new Uint8Array(pad).fill(pad)))
    assert.equal(solo.only.data, utf8('x'))
    assert.is(solo.endpoint.counter('drop_malformed'), 0)
  }
})

test("MUST 22: at most 128 new segments are sent before the peer's first packet, then at most its window", () => {
  const solo = new Solo({ role: 'client', config: { sndwnd: 1024, nc: 1 } })
  const handle = solo.open()
  const id = solo.endpoint.convOf(handle)
  const big = payload(900_000)
  let written = solo.write(handle, big)
  solo.endpoint.drain()
  solo.run(5)
  const sent = (): number => {
    const sns = solo.all.filter((output) => output.conv === id).flatMap(({ segments }) => segments.map(({ sn }) => sn))
    return new Set(sns).size
  }
  assert.is(sent(), 128)
  solo.feed(segment({ conv: id, cmd: Cmd.WINS, wnd: 300 }))
  solo.run(5)
  assert.is(sent(), 300)
  // a shrinking window limits new segments only
  solo.feed(segment({ conv: id, cmd: Cmd.ACK, sn: 9, una: 10, wnd: 20 }))
  written += solo.write(handle, big.subarray(written))
  solo.run(5)
  assert.is(sent(), 300)
  solo.feed(segment({ conv: id, cmd: Cmd.ACK, sn: 299, una: 300, wnd: 20 }))
  solo.run(5)
  assert.is(sent(), 320)
})

test('ACKs and una for segments that were never sent are ignored', () => {
  const solo = new Solo({ role: 'client' })
  const handle = solo.open()
  const id = solo.endpoint.convOf(handle)
  solo.write(handle, payload(5000))
  solo.endpoint.drain()
  const before = solo.endpoint.list()[0]?.waitsnd
  for (const sn of [6, 100, 0x7fffffff, 0x80000000, 0xffffffff]) {
    solo.feed(ack(id, sn, 0, 0))
    solo.feed(segment({ conv: id, cmd: Cmd.WINS, una: sn }))
  }
  assert.is(solo.endpoint.list()[0]?.waitsnd, before)
})

test('an implausible ts in ACKs does not distort the RTO', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(9, 0, DIAL))
  const { handle } = solo.only
  solo.run(100_000)
  for (let i = 0; i < 60; i++) {
    solo.write(handle, payload(10))
    solo.endpoint.drain()
    const sent = solo.takeSegments(9).filter(({ cmd }) => cmd === 'PUSH')
    // a ts of 90 s ago
    for (const { sn, ts } of sent) solo.feed(ack(9, sn, (ts - 8 * 90_000) >>> 0, sn + 1))
    solo.run(20)
  }
  const [info] = solo.endpoint.list()
  assert.ok((info?.rto ?? 0) <= 8 * 4000, `${info?.rto}`)
})

test('an ACK gives a round trip of up to 60 s: an older ts is not one of ours', () => {
  for (const [ms, srtt] of [
    [60_000, 480_000],
    [60_001, 0],
  ] as const) {
    const solo = server()
    solo.run(100_000)
    solo.write(solo.only.handle, payload(10))
    solo.endpoint.drain()
    const sent = solo.takeSegments(9).find(({ cmd }) => cmd === 'PUSH')
    assert.ok(sent)
    solo.feed(ack(9, sent.sn, (sent.ts - 8 * ms) >>> 0, sent.sn + 1))
    assert.is(solo.endpoint.list()[0]?.srtt, srtt)
  }
})

test('MUST 23: WASK is answered with WINS', () => {
  const solo = server()
  solo.feed(segment({ conv: 9, cmd: Cmd.WASK }))
  solo.run(ACK_MS)
  const answers = solo.takeSegments(9)
  assert.equal(
    answers.map(({ cmd, wnd, una }) => [cmd, wnd, una]),
    [['WINS', 256, 1]],
  )
})

test('MUST 20, 23, 40: the window shrinks to 0 while nothing is read, and its reopening is announced', () => {
  const solo = server({ role: 'server', read: false, config: { rcvwnd: 128 } })
  const data = payload(128 * 1000 - 4)
  const stream = message(MessageType.PUSH, data.subarray(0, 14880))
  const rest = [stream]
  for (let at = 14880; at < data.length; at += 14880)
    rest.push(message(MessageType.PUSH, data.subarray(at, at + 14880)))
  const all = concat(...rest)
  let sn = 1
  for (let at = 0; at < 128 * 1000; at += 1000) solo.feed(push(9, sn++, all.subarray(at, at + 1000)))
  solo.run(ACK_MS)
  const windows = solo.takeSegments(9).map(({ wnd }) => wnd)
  assert.is(windows.at(-1), 0)
  for (const [i, wnd] of windows.entries()) assert.ok(i === 0 || wnd <= (windows[i - 1] ?? 0), windows.join())
  // the receive window begins at rcv_nxt, read or not: the next segment is acknowledged, una and the free window stay
  solo.feed(push(9, sn, all.subarray(0, 100)))
  solo.run(ACK_MS)
  assert.equal(
    solo.takeSegments(9).map(({ cmd, una, wnd }) => [cmd, una, wnd]),
    [['ACK', sn, 0]],
  )
  solo.feed(push(9, sn + 128, all.subarray(0, 100)))
  solo.run(ACK_MS)
  assert.is(solo.take().length, 0)
  solo.read(solo.only.handle, 50_000)
  solo.run(ACK_MS)
  const advertised = solo.takeSegments(9)
  assert.ok(advertised.some(({ cmd, wnd }) => cmd === 'WINS' && wnd > 0))
  solo.read(solo.only.handle)
  assert.equal(solo.only.data.subarray(0, 100_000), data.subarray(0, 100_000))
})

test('MUST 24: a closed window is probed repeatedly', () => {
  const solo = server()
  solo.feed(segment({ conv: 9, cmd: Cmd.WINS, wnd: 0 }))
  solo.write(solo.only.handle, payload(5000))
  solo.run(60_000)
  const probes = solo.takeSegments(9)
  assert.ok(probes.filter(({ cmd }) => cmd === 'WASK').length >= 3)
  assert.not.ok(probes.some(({ cmd }) => cmd === 'PUSH'))
  solo.feed(segment({ conv: 9, cmd: Cmd.WINS, wnd: 100 }))
  solo.run(5)
  assert.ok(solo.takeSegments(9).some(({ cmd }) => cmd === 'PUSH'))
})

test('MUST 26: the first retransmission is sent within 4 s', () => {
  const solo = server()
  solo.write(solo.only.handle, payload(10))
  solo.run(4100)
  const pushes = solo.takeSegments(9).filter(({ cmd }) => cmd === 'PUSH')
  assert.ok(pushes.length >= 2)
  assert.ok(pushes.every(({ sn }) => sn === 0))
})

test('MUST 28: a receive window below 128 is treated as 128; 65536 is advertised as 65535', () => {
  for (const [rcvwnd, advertised] of [
    [16, 128],
    [128, 128],
    [129, 129],
    [65535, 65535],
    [65536, 65535],
  ] as const) {
    // memory limits the advertised window: the default ceiling is enough for the largest one
    const solo = new Solo({ role: 'server', config: { rcvwnd, memoryCeiling: 512 * 1024 * 1024 } })
    solo.feed(push(9, 0, DIAL))
    solo.feed(segment({ conv: 9, cmd: Cmd.WASK, una: 0 }))
    solo.run(ACK_MS)
    const wins = solo.takeSegments(9).find(({ cmd }) => cmd === 'WINS')
    assert.is(wins?.wnd, advertised, `rcvwnd ${rcvwnd}`)
  }
})

test('a receive window of 65536 accepts 65535 segments in any order', () => {
  const solo = server({ role: 'server', config: { rcvwnd: 65536 } })
  solo.feed(push(9, 65535, KEEPALIVE, { ts: 1 }))
  solo.feed(push(9, 65536, KEEPALIVE, { ts: 2 }))
  solo.run(ACK_MS)
  const acked = solo.takeSegments(9).map(({ sn }) => sn)
  assert.ok(acked.includes(65535))
  assert.not.ok(acked.includes(65536))
})

test('MUST 11, MUST 17, MUST 25: at any MTU segments have at most the MSS, numbers from 0 and frg 0', () => {
  fc.assert(
    fc.property(fc.integer({ min: 200, max: 1452 }), fc.integer({ min: 1, max: 40_000 }), (kcpMtu, size) => {
      const solo = server({ role: 'server', config: { kcpMtu, nc: 1 } })
      const data = payload(size)
      let done = 0
      const { handle } = solo.only
      const seen = new Set<number>()
      for (let round = 0; round < 100 && done < size; round++) {
        done += solo.write(handle, data.subarray(done))
        solo.endpoint.drain()
        for (const output of solo.take()) {
          assert.ok(output.bytes.length <= kcpMtu)
          for (const { cmd, sn, frg, len } of decodeSegments(output.bytes).segments) {
            if (cmd !== 'PUSH') continue
            assert.is(frg, 0)
            assert.ok(len <= kcpMtu - 24)
            seen.add(sn)
          }
        }
        solo.feed(segment({ conv: 9, cmd: Cmd.ACK, una: seen.size, wnd: 500 }))
      }
      solo.run(ACK_MS)
      solo.take()
      assert.ok(solo.streamSent(9).length >= size + 4)
    }),
    { numRuns: 40 },
  )
})

test('a lost segment is retransmitted as soon as later ACKs reveal it, well before its RTO', () => {
  for (const resend of [UNSET, 0, 2]) {
    const solo = server({ role: 'server', config: { resend, nc: 1 } })
    const { handle } = solo.only
    for (let i = 0; i < 8; i++) {
      solo.write(handle, payload(1348 - 4))
      solo.endpoint.drain()
      solo.run(2)
    }
    const sent = solo.takeSegments(9).filter(({ cmd }) => cmd === 'PUSH')
    assert.ok(sent.length >= 7)
    for (const { sn, ts } of sent) if (sn !== 1) solo.feed(ack(9, sn, ts, 1))
    solo.run(20)
    const again = solo.takeSegments(9).filter(({ cmd }) => cmd === 'PUSH')
    assert.equal(
      again.map(({ sn }) => sn),
      [1],
      `resend ${resend}`,
    )
    assert.is(solo.endpoint.counter('segments_retransmitted'), 1)
  }
})

test('ACKs are repeated beside new ones only: data alone carries none, however many are missing', () => {
  const solo = server()
  for (let sn = 2; sn < 40; sn++) {
    solo.feed(push(9, sn, payload(20), { ts: sn * 100 }))
    solo.run(ACK_MS)
  }
  const commands = (): string[][] =>
    solo.take().map(({ bytes }) => decodeSegments(bytes).segments.map(({ cmd }) => cmd))
  assert.ok(commands().some((list) => list.length > 1 && list.every((cmd) => cmd === 'ACK')))
  solo.write(solo.only.handle, payload(500))
  solo.endpoint.drain()
  solo.run(1)
  assert.equal(commands(), [['PUSH']])
})

test.run()
