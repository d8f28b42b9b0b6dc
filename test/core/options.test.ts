/**
 * Options and reloads: open sessions keep the values they were opened with, later sessions get the new ones.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreConfig, UNSET } from '../../host/engine/core.ts'
import { decodeSegments } from '../../testkit/decode.ts'
import type { SessionInfo } from '../../testkit/sim/endpoint.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { ack, concat, DIAL, MessageType, message, push } from '../../testkit/sim/wire.ts'

const OLD = 5
const NEW = 6

const test = suite('core/options')

/** A server with session OLD opened with one set of options and session NEW with another. */
function both(before: Partial<CoreConfig>, after: Partial<CoreConfig>): Solo {
  const solo = new Solo({ role: 'server', config: before })
  solo.feed(push(OLD, 0, DIAL, { wnd: 65535 }))
  solo.run(300)
  solo.endpoint.reconfigure(after)
  solo.feed(push(NEW, 0, DIAL, { wnd: 65535 }))
  solo.run(300)
  solo.take()
  return solo
}

function info(solo: Solo, conv: number): SessionInfo {
  const found = solo.endpoint.list().find((session) => session.conv === conv)
  if (!found) throw new Error(`no session ${conv}`)
  return found
}

function write(solo: Solo, conv: number, bytes: number): number {
  const written = solo.write(info(solo, conv).handle, new Uint8Array(bytes))
  solo.endpoint.drain()
  return written
}

/** @returns the longest time from a PUSH to its ACK in ms, over several arrival times */
function slowestAck(solo: Solo, conv: number): number {
  let slowest = 0
  for (let sn = 1; sn <= 8; sn++) {
    solo.take()
    const from = solo.ms
    solo.feed(push(conv, sn, sn === 1 ? message(MessageType.PUSH, new Uint8Array(1), 14884) : new Uint8Array(5)))
    solo.run(610 + 7 * sn)
    const answer = solo.take().find((output) => output.segments.some(({ cmd }) => cmd === 'ACK'))
    assert.ok(answer, `no ACK of ${sn}`)
    slowest = Math.max(slowest, (answer?.ms ?? 0) - from)
  }
  return slowest
}

/** @returns the number of segments in flight of a session with plenty to send */
function inFlight(solo: Solo, conv: number): number {
  write(solo, conv, 400_000)
  solo.run(1)
  const pushes = solo.takeSegments(conv).filter(({ cmd }) => cmd === 'PUSH')
  return new Set(pushes.map(({ sn }) => sn)).size
}

/** @returns the number of fast retransmits by the classic rule, after ACKs of three later segments */
function fastRetransmits(solo: Solo, conv: number): number {
  const before = solo.endpoint.counter('fast_retransmits')
  // all sent at one time: loss detection by time finds nothing yet
  for (let i = 0; i < 4; i++) write(solo, conv, 100)
  const sent = solo.takeSegments(conv).filter(({ cmd }) => cmd === 'PUSH')
  const firsts = sent.filter((segment, i) => sent.findIndex(({ sn }) => sn === segment.sn) === i)
  assert.ok(firsts.length >= 4)
  for (const { sn, ts } of firsts.slice(1, 4)) solo.feed(ack(conv, sn, ts, 0, { wnd: 65535 }))
  return solo.endpoint.counter('fast_retransmits') - before
}

test('flush: an open session keeps its flush mode', () => {
  for (const [before, after] of [
    [{ flush: 0, interval: 500 }, { flush: 2 }],
    [{ flush: 2 }, { flush: 0, interval: 500 }],
    [{ flush: 0, interval: 500 }, { flush: UNSET }],
    [{}, { flush: 0, interval: 500 }],
  ]) {
    const solo = both(before ?? {}, after ?? {})
    const [old, fresh] = [slowestAck(solo, OLD), slowestAck(solo, NEW)]
    const [delayed, prompt] = before?.flush === 0 ? [old, fresh] : [fresh, old]
    assert.ok(delayed > 100 && delayed <= 501, `${delayed} ms with an interval of 500 ms`)
    assert.ok(prompt <= 25, `${prompt} ms without an interval`)
  }
})

test('interval: an open session keeps its flush interval', () => {
  const solo = both({ flush: 0, interval: 600 }, { flush: 0, interval: 50 })
  const [old, fresh] = [slowestAck(solo, OLD), slowestAck(solo, NEW)]
  assert.ok(old > 100, `${old} ms`)
  assert.ok(fresh <= 51, `${fresh} ms`)
})

test('nc: an open session keeps no, the classic or the automatic congestion window', () => {
  for (const [before, after, old, fresh] of [
    [1, 0, 256, 1],
    [0, 1, 1, 256],
    [1, UNSET, 256, 32],
    [UNSET, 1, 32, 256],
    [UNSET, 0, 32, 1],
    [0, UNSET, 1, 32],
  ] as const) {
    const solo = both({ nc: before, sndwnd: 256 }, { nc: after, sndwnd: 256 })
    assert.is(inFlight(solo, OLD), old, `nc ${before} before ${after}`)
    assert.is(inFlight(solo, NEW), fresh, `nc ${after} after ${before}`)
  }
})

test('nc 0: the window grows with each ACK as that of KCP does, also after it was at the window of the peer', () => {
  const UNIT = 1024
  const solo = both({ nc: 0, sndwnd: 1024 }, {})
  write(solo, OLD, 1_000_000)
  // 0 permits one segment, as 1 does
  let cwnd = 0
  let incr = 0
  const seen: number[] = []
  const expected: number[] = []
  for (let una = 1; una <= 60; una++) {
    const wnd = una < 12 ? 4 : 12
    solo.run(1)
    solo.take()
    solo.feed(ack(OLD, una - 1, 0, una, { wnd }))
    seen.push(info(solo, OLD).cwnd)
    // ikcp_input; the slow start ends at 2
    if (cwnd < wnd) {
      incr = cwnd < 2 ? incr + UNIT : incr + Math.floor((UNIT * UNIT) / incr) + UNIT / 16
      if (cwnd < 2) cwnd++
      else if ((cwnd + 1) * UNIT <= incr) cwnd = Math.floor((incr + UNIT - 1) / UNIT)
      if (cwnd > wnd) [cwnd, incr] = [wnd, wnd * UNIT]
    }
    expected.push(cwnd)
  }
  assert.is(seen.join(' '), expected.join(' '))
  assert.is(cwnd, 12)
})

test('sndwnd: an open session keeps its send window, and whether it is a hard limit', () => {
  for (const [before, after, old, fresh] of [
    [64, 512, 64 + 64, 512 + 256],
    [512, 64, 512 + 256, 64 + 64],
  ] as const) {
    const solo = both({ nc: 1, sndwnd: before }, { nc: 1, sndwnd: after })
    write(solo, OLD, 5_000_000)
    write(solo, NEW, 5_000_000)
    assert.is(info(solo, OLD).waitsnd, old)
    assert.is(info(solo, NEW).waitsnd, fresh)
  }
  const soft = both({ sndwnd: UNSET }, { sndwnd: 300 })
  write(soft, OLD, 5_000_000)
  write(soft, NEW, 5_000_000)
  const window = info(soft, OLD)
  assert.ok(window.waitsnd >= 128 && window.waitsnd <= 192, `${window.waitsnd} segments, most of them unsent`)
  assert.is(info(soft, NEW).waitsnd, 450)
})

test('rcvwnd: an open session keeps its advertised window', () => {
  const solo = both({ rcvwnd: 200 }, { rcvwnd: 400 })
  solo.feed(push(OLD, 1, message(MessageType.KEEPALIVE)), push(NEW, 1, message(MessageType.KEEPALIVE)))
  solo.run(20)
  const windows = solo.take().flatMap(({ conv, segments }) => segments.map(({ wnd }) => ({ conv, wnd })))
  for (const { conv, wnd } of windows) assert.is(wnd, conv === OLD ? 200 : 400)
  assert.ok(windows.some(({ conv }) => conv === OLD) && windows.some(({ conv }) => conv === NEW))
})

test('resend: the classic rule applies to sessions opened with it', () => {
  for (const [before, after] of [
    [3, UNSET],
    [UNSET, 3],
    [3, 100],
    [100, 3],
  ] as const) {
    const solo = both({ resend: before, nc: 1 }, { resend: after, nc: 1 })
    assert.is(fastRetransmits(solo, OLD), before === 3 ? 1 : 0, `${before} before ${after}`)
    assert.is(fastRetransmits(solo, NEW), after === 3 ? 1 : 0, `${after} after ${before}`)
  }
})

test('resend: a segment is retransmitted after the ACKs of so many later ones, one with fewer is not', () => {
  const solo = both({ resend: 2, nc: 1 }, {})
  for (let i = 0; i < 4; i++) write(solo, OLD, 100)
  const sent = solo.takeSegments(OLD).filter(({ cmd }) => cmd === 'PUSH')
  const [first, second, , fourth] = sent.filter(({ sn }, i) => sent.findIndex((other) => other.sn === sn) === i)
  assert.ok(first && second && fourth)
  const again = ({ sn, ts }: typeof first): number[] => {
    solo.feed(ack(OLD, sn, ts, first.sn, { wnd: 65535 }))
    return solo.takeSegments(OLD).flatMap(({ cmd, sn }) => (cmd === 'PUSH' ? [sn] : []))
  }
  assert.equal(again(second), [])
  // the third segment has one later ACK
  assert.equal(again(fourth), [first.sn])
})

test('nodelay, interval: an open session keeps its minimum RTO', () => {
  const rtos = (before: Partial<CoreConfig>, after: Partial<CoreConfig>): number[] => {
    const solo = both({ nc: 1, ...before }, { nc: 1, ...after })
    return [OLD, NEW].map((conv) => {
      for (let i = 0; i < 40; i++) {
        write(solo, conv, 100)
        const sent = solo.takeSegments(conv).filter(({ cmd }) => cmd === 'PUSH')
        solo.feed(concat(...sent.map(({ sn, ts }) => ack(conv, sn, ts, sn + 1, { wnd: 65535 }))))
        solo.run(10)
      }
      return info(solo, conv).rto / 8
    })
  }
  assert.equal(rtos({ nodelay: 0 }, { nodelay: 1 }), [100, 30])
  assert.equal(rtos({ nodelay: 2 }, { nodelay: 0 }), [30, 100])
  const [long = 0, short = 0] = rtos({ interval: 500 }, { interval: UNSET })
  assert.ok(long >= 500 && long < 510 && short === 30, `${long} and ${short} ms`)
})

/**
 * @returns how often each of some writes, 500 ms apart, is sent within 30 ms; the peer acknowledges after that. The
 *   first is left out: it measures the RTT
 */
function timesSent(bytes: number, config: Partial<CoreConfig> = {}): number[] {
  const solo = new Solo({ role: 'client', config })
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  const counts: number[] = []
  for (let i = 0; i < 6; i++) {
    solo.write(handle, new Uint8Array(bytes))
    solo.endpoint.drain()
    solo.run(30)
    const sent = solo.take().flatMap(({ bytes }) => decodeSegments(bytes).segments)
    const pushes = sent.filter(({ cmd }) => cmd === 'PUSH')
    counts.push(pushes.length)
    for (const { sn, ts } of pushes) solo.feed(ack(conv, sn, ts, sn + 1))
    solo.run(500)
    solo.take()
  }
  return counts.slice(1)
}

test('a small write that nothing follows is sent twice, because its loss would cost a round trip', () => {
  assert.equal(timesSent(3), [2, 2, 2, 2, 2])
  assert.equal(timesSent(180), [2, 2, 2, 2, 2])
  assert.equal(timesSent(600), [1, 1, 1, 1, 1], 'not a small one')
  assert.equal(timesSent(3, { sendOnce: 1 }), [1, 1, 1, 1, 1], 'not if the user pays for each byte')
})

test('what small writes cost again is bounded by a tenth of what the path carries, after a burst', () => {
  const rtt = 1000
  const seconds = 60
  const solo = new Solo({ role: 'client', config: { keepalive: 0 } })
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  const acks: { readonly at: number; readonly bytes: Uint8Array }[] = []
  const seen = new Set<number>()
  let again = 0
  for (let ms = 0; ms < 1000 * seconds; ms += 20) {
    if (ms % 100 === 0) solo.write(handle, new Uint8Array(150))
    solo.run(20)
    for (const { segments } of solo.take()) {
      const pushes = segments.filter(({ cmd }) => cmd === 'PUSH')
      const known = pushes.filter(({ sn }) => seen.has(sn))
      again += known.reduce((sum, { data }) => sum + 24 + data.length, 0)
      // with the headers of IP and UDP, nonce and tag
      if (known.length === pushes.length && known.length > 0) again += 72
      for (const { sn, ts } of pushes) {
        seen.add(sn)
        acks.push({ at: solo.ms + rtt - 20, bytes: ack(conv, sn, ts, sn + 1) })
      }
    }
    while ((acks[0]?.at ?? Number.POSITIVE_INFINITY) <= solo.ms) solo.feed(acks.shift()?.bytes ?? new Uint8Array())
  }
  // the window of the start in each round trip
  const allowed = 8192 + 0.1 * ((32 * 1372) / rtt) * 1000 * seconds
  assert.ok(again > 0.5 * allowed && again < 1.1 * allowed, `${again} of ${allowed}`)
})

test.run()
