/**
 * The 52 recorded request/response cases, replayed against the engine. Reactions are compared as sets; the engine's
 * `ts`, `conv` and sequence numbers, timing and grouping of ACKs may differ.
 *
 * Intended deviations (docs/protocol.md 5.6, 6.1, 6.5, 6.7, 8):
 * - EOF before DIAL ends the session normally
 * - what follows PUSH with payload before DIAL, a later DIAL included, is discarded instead of kept until the session ends
 * - after the peer's EOF the server forwards the target's response, and keeps the session while the peer responds
 * - RESET resets the application's connection instead of closing it cleanly
 * - rcvwnd 65536 advertises 65535, not 0
 * - an ACK above a hole may be repeated in the next datagram
 */
import { address4, addressKey } from '../../testkit/sim/address.ts'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MS } from '../../testkit/sim/endpoint.ts'
import { type Output, Solo, type SoloOptions, TESTER } from '../../testkit/sim/solo.ts'
import { ack, concat, DIAL, fromHex, MessageType, message, push, toHex, utf8 } from '../../testkit/sim/wire.ts'
import { decodeSegments } from '../../testkit/decode.ts'
import { type EdgeCase, edgeCases } from './files.ts'

const SECOND_PORT = address4(9, 50002)
/** ms within which a reaction to the last packet of a case is expected */
const REACTION_MS = 150
const OPTIONS = { timeout: 60, linger: 30, timeWait: 5, keepalive: 25 }

/** The contents of a datagram, without the fields that may differ. */
function facts(plain: Uint8Array): string[] {
  const conv = toHex(plain.subarray(0, 4))
  if (conv === '00000000') return [toHex(plain.subarray(4, 10))]
  return decodeSegments(plain).segments.map(({ cmd, ts, sn, una, data }) => {
    if (cmd === 'ACK') return `${conv} ACK ts=${ts} sn=${sn} una=${una}`
    if (cmd === 'PUSH') return `${conv} PUSH ${toHex(data)} una=${una}`
    return `${conv} ${cmd} una=${una}`
  })
}

class Replay {
  readonly solo: Solo
  /** recorded conv to actual conv, for the client cases */
  readonly convs = new Map<string, string>()
  readonly #acked = new Set<string>()

  constructor(options: SoloOptions) {
    this.solo = new Solo(options)
  }

  /** Acknowledges every PUSH, so that no retransmission reaches later cases. */
  #acknowledge(outputs: readonly Output[]): void {
    for (const { conv, segments, peer } of outputs) {
      for (const { cmd, sn, ts } of segments) {
        if (cmd === 'PUSH') this.solo.feedFrom(peer, ack(conv, sn, ts, sn + 1))
      }
    }
  }

  /** Runs a case. @returns the facts of all datagrams sent, in order */
  run(one: EdgeCase, during: (ms: number) => void = () => {}): { facts: Set<string>; outputs: Output[] } {
    const { solo } = this
    const start = solo.ms
    const outputs: Output[] = []
    const settle = (): void => {
      const fresh = solo.take()
      outputs.push(...fresh)
      this.#acknowledge(fresh)
    }
    const until = (ms: number): void => {
      const target = start + Math.floor(ms * MS) / MS
      while (solo.ms < target) {
        solo.run(Math.min(10, target - solo.ms))
        during(solo.ms - start)
        settle()
      }
    }
    let first: string | undefined
    for (const { dir, t_ms, plain } of one.exchange) {
      if (dir === 'out') continue
      until(t_ms)
      settle()
      let text = plain
      for (const [recorded, ours] of this.convs) text = text.replaceAll(recorded, ours)
      // two source ports: the second datagram of the same conversation comes from another port
      const other = one.name.includes('two source ports') && first !== undefined
      first ??= plain
      solo.feedFrom(other ? SECOND_PORT : TESTER, fromHex(text))
      settle()
    }
    until(solo.ms - start + REACTION_MS)
    settle()
    return { facts: new Set(outputs.flatMap(({ plain }) => facts(plain))), outputs }
  }

  /** @returns the recorded facts, with the actual convs */
  expected(one: EdgeCase): Set<string> {
    const result = new Set<string>()
    for (const { dir, plain } of one.exchange) {
      if (dir === 'in') continue
      let text = plain
      for (const [recorded, ours] of this.convs) text = text.replaceAll(recorded, ours)
      for (const fact of facts(fromHex(text))) result.add(fact)
    }
    return result
  }

  /** Replays a case and asserts the recorded reactions. ACKs of earlier cases may be repeated while there is a hole. */
  same(one: EdgeCase): Output[] {
    const { facts: seen, outputs } = this.run(one)
    const expected = this.expected(one)
    const acked = (fact: string): string => fact.replace(/ una=\d+$/, '')
    const fresh = [...seen].filter((fact) => expected.has(fact) || !this.#acked.has(acked(fact)))
    assert.equal(fresh.sort(), [...expected].sort(), one.name)
    for (const fact of expected) if (fact.includes(' ACK ')) this.#acked.add(acked(fact))
    return outputs
  }
}

function checkWindows(outputs: readonly Output[], full: number): void {
  for (const { segments } of outputs) {
    for (const { wnd, frg } of segments) {
      // a segment that has just arrived may not have been read yet
      assert.ok(wnd <= full && wnd >= full - 4, `wnd = ${wnd}`)
      assert.is(frg, 0)
    }
  }
}

const cases = edgeCases()
const test = suite('vectors/edge-cases')

function number(text: string): number {
  const found = cases.findIndex(({ name }) => name.includes(text))
  if (found < 0) throw new Error(`no case: ${text}`)
  return found
}

const REFUSES = number('server whose target refuses')
const RESET_KILLS = number('RESET kills a live session')
const EOF_FIRST = number('EOF before DIAL')
const PUSH_FIRST = number('PUSH before DIAL')
const TWO_PORTS = number('two source ports')

function get(index: number): EdgeCase {
  const one = cases[index]
  if (!one) throw new Error(`no case ${index}`)
  return one
}

test('MUST 50, 51, 18, 19, 21, 23, 29, 37, 38, 39: a server reacts as recorded, case by case', () => {
  const replay = new Replay({ role: 'server', config: OPTIONS })
  let played = 0
  for (const [index, one] of cases.entries()) {
    const special = [REFUSES, RESET_KILLS, EOF_FIRST, PUSH_FIRST, TWO_PORTS].includes(index)
    if (!/^server[:,]/.test(one.name) || special) continue
    checkWindows(replay.same(one), 256)
    played++
  }
  assert.is(played, 31)
  const [first] = replay.solo.streams.values()
  assert.equal(first?.data, utf8('abc1stlateAB'))
  // the second DIAL aborted this connection
  assert.is(first?.ending, 'aborted')
})

test('server: EOF before DIAL ends the session normally: acknowledged, nothing is dialled', () => {
  const replay = new Replay({ role: 'server', config: OPTIONS })
  const { facts: seen } = replay.run(get(EOF_FIRST))
  const recorded = replay.expected(get(EOF_FIRST))
  assert.ok([...seen].some((fact) => fact.includes('ACK')))
  for (const fact of seen) assert.ok(recorded.has(fact), fact)
  assert.not.ok(replay.solo.events.some(({ type }) => type === 1))
})

test('server: PUSH before DIAL is acknowledged and discarded, a later DIAL is not processed', () => {
  const replay = new Replay({ role: 'server', config: OPTIONS })
  replay.same(get(PUSH_FIRST))
  const { solo } = replay
  const conv = Number.parseInt(get(PUSH_FIRST).exchange[0]?.plain.slice(0, 8) ?? '', 16)
  solo.feed(push(conv, 1, DIAL, { ts: 2 }))
  solo.run(REACTION_MS)
  assert.equal(
    solo.take().flatMap(({ plain }) => facts(plain)),
    [`${toHex(push(conv, 0, DIAL).subarray(0, 4))} ACK ts=2 sn=1 una=2`],
  )
  assert.is(solo.events.length, 0)
  solo.run(OPTIONS.timeout * 1000)
  assert.is(solo.endpoint.counter('sessions_established'), 0)
})

test('server: an empty PUSH before DIAL is ignored, as by kcptun-libev', () => {
  const { solo } = new Replay({ role: 'server', config: OPTIONS })
  solo.feed(push(7, 0, concat(message(MessageType.PUSH), DIAL)))
  assert.is(solo.events.filter(({ type }) => type === 1).length, 1)
})

test('MUST 43: server: two source ports are two sessions', () => {
  const replay = new Replay({ role: 'server', config: OPTIONS })
  const outputs = replay.same(get(TWO_PORTS))
  assert.is(new Set(outputs.map(({ peer }) => peer.join())).size, 2)
  assert.is(replay.solo.events.filter(({ type }) => type === 1).length, 2)
})

test('MUST 34: a server whose target refuses reacts as recorded', () => {
  const replay = new Replay({ role: 'server', config: OPTIONS, dial: 'refuse' })
  replay.same(get(REFUSES))
})

test('MUST 45, MUST 46: server: RESET aborts a session, later packets get RESET at most once a second', () => {
  const replay = new Replay({ role: 'server', config: OPTIONS })
  const outputs = replay.same(get(RESET_KILLS))
  const resets = outputs.filter(({ conv }) => conv === 0)
  assert.is(resets.length, 2)
  assert.ok((resets[1]?.ms ?? 0) - (resets[0]?.ms ?? 0) >= 1000)
  const [stream] = replay.solo.streams.values()
  assert.equal(stream?.data, utf8('abc'))
  assert.is(stream?.ending, 'aborted')
})

test('MUST 42: every endpoint but a server answers every unknown conversation with RESET', () => {
  const one = get(number('rendezvous server (kcp_bind only): KCP packet of an unknown conversation'))
  const replay = new Replay({ role: 'neither', config: OPTIONS })
  const outputs = replay.same(one)
  assert.is(outputs.length, one.exchange.filter(({ dir }) => dir === 'in').length)
})

test('MUST 51, 53, 55, 58: a rendezvous server reacts as recorded', () => {
  const replay = new Replay({ role: 'neither', config: OPTIONS })
  const { solo } = replay
  let played = 0
  let listeners = 0
  for (const one of cases) {
    if (!one.name.startsWith('rendezvous server:')) continue
    // services of earlier cases are still registered; each LISTEN comes from a port of its own, as recorded
    const introductions: string[] = []
    let listener = TESTER
    for (const { dir, plain } of one.exchange) {
      if (dir === 'in') {
        const bytes = fromHex(plain)
        const isListen = bytes[5] === 3
        if (isListen && !one.name.includes('IPv6')) listener = address4(9, 51000 + listeners++)
        solo.feedFrom(isListen ? listener : TESTER, bytes)
        solo.run(REACTION_MS)
      } else introductions.push(toHex(fromHex(plain).subarray(0, -7)))
    }
    const outputs = solo.take()
    assert.equal(outputs.map(({ plain }) => toHex(plain.subarray(0, -7))).sort(), introductions.sort(), one.name)
    // each side is sent the observed address of the other: 10.0.0.9 and its port
    for (const { plain, peer } of outputs) {
      const other = addressKey(peer) === addressKey(TESTER) ? listener : TESTER
      const port = new DataView(other.buffer).getUint16(2, true)
      assert.is(toHex(plain.subarray(-7)), `000a000009${port.toString(16).padStart(4, '0')}`, one.name)
    }
    played++
  }
  assert.is(played, 5)
})

test('MUST 52, 42, 50, 31, 37, 45: a client reacts as recorded', () => {
  const replay = new Replay({ role: 'client', config: OPTIONS })
  const start = replay.run(get(number('client at start: PING')))
  assert.is(start.outputs.length, 1)
  assert.is(start.outputs[0]?.plain.length, 10)
  assert.is(start.outputs[0]?.plain[5], 0)
  replay.same(get(number('client: KCP packet of an unknown conversation')))
  replay.same(get(number('client also answers PING')))

  const alone = get(number('client: the application connects and sends nothing'))
  const handle = replay.solo.open()
  const conv = replay.solo.endpoint.convOf(handle).toString(16).padStart(8, '0')
  replay.convs.set('69686e99', conv)
  replay.same(alone)
  // the application gets a reset, not a clean end
  assert.is(replay.solo.stream(handle).ending, 'aborted')
  assert.is(replay.solo.stream(handle).reason, 4)

  const ended = get(number('client: server sends EOF'))
  const second = replay.solo.open()
  replay.convs.set('69686e9a', replay.solo.endpoint.convOf(second).toString(16).padStart(8, '0'))
  replay.same(ended)
  assert.ok(replay.solo.stream(second).eof)
  assert.is(replay.solo.stream(second).ending, undefined)
})

test('server with kcp.rcvwnd = 65536 advertises 65535', () => {
  const replay = new Replay({ role: 'server', config: { ...OPTIONS, rcvwnd: 65536, memoryCeiling: 512 * 1024 * 1024 } })
  checkWindows(replay.same(get(number('kcp.rcvwnd=65536'))), 65535)
})

test('MUST 28: server with kcp.rcvwnd = 16 advertises 128', () => {
  const replay = new Replay({ role: 'server', config: { ...OPTIONS, rcvwnd: 16 } })
  checkWindows(replay.same(get(number('kcp.rcvwnd=16'))), 128)
})

test('MUST 35: client half-close: later data of the server is delivered, then its EOF', () => {
  const one = get(number('real client, tester as server'))
  const replay = new Replay({ role: 'client', config: OPTIONS })
  replay.solo.take()
  const handle = replay.solo.open()
  replay.convs.set('e79de03c', replay.solo.endpoint.convOf(handle).toString(16).padStart(8, '0'))
  replay.solo.write(handle, utf8('req'))
  replay.solo.endpoint.shutdown(handle)
  replay.solo.endpoint.drain()
  const { facts: seen } = replay.run(one)
  const recorded = replay.expected(one)
  for (const fact of recorded) if (fact.includes(' ACK ')) assert.ok(seen.has(fact), fact)
  const stream = replay.solo.stream(handle)
  assert.equal(stream.data, utf8('part0 part1 part2 part3 part4 part5 '))
  assert.ok(stream.eof || stream.ending === 'detached')
})

test('MUST 35: server: after a half-close by the target, data of the client is delivered', () => {
  const one = get(number('real server, tester as client: the target shuts down'))
  const replay = new Replay({ role: 'server', config: OPTIONS })
  let answered = false
  const { facts: seen } = replay.run(one, () => {
    const [stream] = replay.solo.streams.values()
    if (!stream || answered) return
    answered = true
    replay.solo.write(stream.handle, utf8('resp'))
    replay.solo.endpoint.shutdown(stream.handle)
    replay.solo.endpoint.drain()
  })
  for (const fact of replay.expected(one)) if (fact.includes(' ACK ')) assert.ok(seen.has(fact), fact)
  assert.equal(replay.solo.only.data, utf8('qmore0 more1 more2 more3 '))
  assert.ok(replay.solo.only.eof || replay.solo.only.ending === 'detached')
})

test('MUST 35: server: the response after the client’s EOF is forwarded while the peer responds', () => {
  const one = get(number('later packets of the same conversation follow at 12 s and 22 s'))
  const replay = new Replay({ role: 'server', config: { ...OPTIONS, linger: 5 } })
  let answered = false
  const { outputs } = replay.run(one, (ms) => {
    const [stream] = replay.solo.streams.values()
    if (!stream || answered || ms < 500) return
    answered = true
    replay.solo.write(stream.handle, utf8('answer'))
    replay.solo.endpoint.drain()
  })
  assert.ok(answered)
  assert.ok(toHex(replay.solo.streamSent(0x43)).includes(toHex(utf8('answer'))), 'the answer was not forwarded')
  // the tester acknowledges the KEEPALIVEs: no RESET, bytes after EOF are acknowledged and discarded
  assert.is(outputs.filter(({ conv }) => conv === 0).length, 0)
  assert.is(replay.solo.only.ending, undefined)
  assert.equal(replay.solo.only.data, utf8('q'))
})

test.run()
