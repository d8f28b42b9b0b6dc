/**
 * The engine's memory: blocks are freed with the size they were allocated with, freed blocks coalesce, impossible sizes
 * are rejected. Traffic is compared byte by byte, so overlapping blocks show up as wrong bytes or as a trap.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreConfig, ErrorCode } from '../../host/engine/core.ts'
import { hasChecks } from '../../testkit/checked-core.ts'
import { decodeMessages } from '../../testkit/decode.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { Random } from '../../testkit/sim/random.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { ack, Cmd, concat, control, DIAL, KEEPALIVE, MessageType, message, push, What } from '../../testkit/sim/wire.ts'

/** Linear memory grows by this much. */
const GROWTH_BYTES = 512 * 1024
const MIB = 1024 * 1024
const LARGE = 1332
/** Segment sizes whose blocks differ in size from those of LARGE. */
const SMALLER = [900, 400, 64]

const test = suite('core/memory')

type Side = 'client' | 'server'

/** A transfer in both directions over a lossy link. */
function transfer(seed: number, bytes: number, config: Partial<CoreConfig> = {}): Pair {
  const options = { kcpMtu: LARGE, ...config }
  const link = { delay: 20, loss: 0.05, reorder: 0.02, duplicate: 0.01, rate: 4000 }
  const pair = new Pair({ seed, sealing: 'random', client: options, server: options, up: link, down: link })
  pair.connect({ client: { bytes, stream: 1 }, server: { bytes, stream: 2 } })
  return pair
}

function finish(pair: Pair): void {
  assert.ok(pair.finish(600), pair.connections.map((c) => c.describe()).join('\n'))
  for (const connection of pair.connections) assert.ok(connection.clean, connection.describe())
  pair.runUntil(() => pair.client.sessions + pair.server.sessions === 0, 3600)
  assert.is(pair.leak(), '')
}

for (const sides of [['client'], ['server'], ['client', 'server']] as const satisfies Side[][]) {
  for (const smaller of SMALLER) {
    test(`kcpMtu ${LARGE} -> ${smaller} -> ${LARGE} at ${sides.join(' and ')} under transfers both ways`, () => {
      for (let seed = 1; seed <= 3; seed++) {
        const pair = transfer(seed, 1_000_000)
        for (let round = 0; round < 6; round++) {
          pair.run(40 + 13 * seed)
          for (const side of sides) pair[side].reconfigure({ kcpMtu: round % 2 === 0 ? smaller : LARGE })
          // sessions of every size are open while sizes change
          pair.connect({ client: { bytes: 20_000, stream: 3 }, server: { bytes: 20_000, stream: 4 } })
        }
        finish(pair)
      }
    })
  }
}

test('random sizes and options, reloaded at random times at both ends', () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = new Random(seed)
    const pair = transfer(seed, 400_000)
    for (let round = 0; round < 25; round++) {
      pair.run(random.below(60))
      const change = {
        kcpMtu: random.between(64, LARGE),
        nc: random.pick(0, 1, 0xffffffff),
        resend: random.pick(0, 2, 100, 0xffffffff),
        flush: random.pick(0, 1, 2, 0xffffffff),
        interval: random.pick(1, 10, 100, 0xffffffff),
        nodelay: random.pick(0, 1, 2, 0xffffffff),
        sndwnd: random.pick(1, 16, 1024, 0xffffffff),
        rcvwnd: random.pick(128, 1024, 0xffffffff),
      }
      pair[random.pick<Side>('client', 'server')].reconfigure(change)
      if (random.chance(0.3)) {
        const bytes = random.below(50_000)
        pair.connect({ client: { bytes, stream: 5, chunk: 100 }, server: { bytes, stream: 6 } })
      }
    }
    finish(pair)
  }
})

test('a changed segment limit applies to new segments of open sessions, not to queued ones', () => {
  const pair = transfer(1, 12_000_000)
  let sizes: number[] = []
  let highest = -1
  pair.tap = (from, bytes) => {
    const plain = bytes.subarray(0, bytes.length - 40)
    const view = new DataView(plain.buffer, plain.byteOffset, plain.length)
    for (let at = 0; from === 'client' && plain.length - at >= 24; at += 24 + view.getUint32(at + 20)) {
      const sn = view.getUint32(at + 12)
      if (view.getUint32(at) === 0) break
      if (view.getUint8(at + 4) !== Cmd.PUSH || sn <= highest) continue
      highest = sn
      sizes.push(view.getUint32(at + 20) + 24)
    }
    return true
  }
  const settleTo = (kcpMtu: number): number => {
    pair.client.reconfigure({ kcpMtu })
    // segments queued before are sent first
    pair.run(500)
    sizes = []
    pair.run(200)
    assert.ok(sizes.length > 50, `${sizes.length} segments`)
    return Math.max(...sizes)
  }
  assert.is(settleTo(LARGE), LARGE)
  assert.is(settleTo(700), 700)
  assert.is(settleTo(LARGE), LARGE)
  finish(pair)
})

test('bytes reserved before the limit changed are committed in their original layout', () => {
  for (const [before, after] of [
    [LARGE, 200],
    [200, LARGE],
  ] as const) {
    const solo = new Solo({ role: 'server', config: { kcpMtu: LARGE, sndwnd: 1024, nc: 1 } })
    solo.endpoint.reconfigure({ kcpMtu: before })
    solo.feed(push(5, 0, DIAL))
    const { handle } = solo.only
    const { core } = solo.endpoint
    // a partial last segment, then a reservation that begins in it
    const data = new Random(7).bytes(5000)
    assert.is(solo.write(handle, data.subarray(0, 50)), 50)
    let at = 50
    const taken = solo.endpoint.write(handle, 4000, (target) => {
      target.set(data.subarray(at, at + target.length))
      at += target.length
      solo.endpoint.reconfigure({ kcpMtu: after })
    })
    assert.is(at, 50 + taken)
    assert.is(solo.write(handle, data.subarray(at)), data.length - at)
    solo.run(100)
    const sent = solo.streamSent(5)
    const payload: number[] = []
    const view = new DataView(sent.buffer, sent.byteOffset, sent.length)
    for (let i = 0; i < sent.length; i += view.getUint16(i + 2)) {
      assert.is(view.getUint16(i), MessageType.PUSH)
      payload.push(...sent.subarray(i + 4, i + view.getUint16(i + 2)))
    }
    assert.equal(new Uint8Array(payload), data)
    assert.is(core.calls.stream_commit(handle, 1, solo.endpoint.now), ErrorCode.ARGUMENT, 'the reservation is gone')
  }
})

test('a reservation is invalid after its first segment was sent or another message was queued', () => {
  for (const interfere of [
    (solo: Solo) => solo.run(1),
    (solo: Solo) => solo.feed(push(5, 1, KEEPALIVE)),
    (solo: Solo) => solo.endpoint.shutdown(solo.only.handle),
  ]) {
    const solo = new Solo({ role: 'server', config: { kcpMtu: LARGE, sndwnd: 1024, nc: 1 } })
    solo.feed(push(5, 0, DIAL))
    const { calls } = solo.endpoint.core
    assert.is(solo.write(solo.only.handle, new Uint8Array(50).fill(1)), 50)
    assert.ok(calls.stream_reserve(solo.only.handle, 4000) > 1)
    interfere(solo)
    assert.is(calls.stream_commit(solo.only.handle, 3000, solo.endpoint.now), ErrorCode.ARGUMENT)
    solo.write(solo.only.handle, new Uint8Array(10).fill(2))
    solo.run(100)
    const { messages, rest } = decodeMessages(solo.streamSent(5))
    const types = messages.map(({ type, payload }) => `${type} ${payload.length}`)
    assert.is(types.filter((text) => text === 'PUSH 50').length, 1, types.join(', '))
    assert.is(types.filter((text) => text === 'PUSH 3000').length, 0)
    assert.is(rest, 0)
  }
})

// ---- coalescing

/**
 * Fills the memory of a server whose applications do not read with segments of `bytes` bytes: each session to its
 * limit, until sessions are refused or store almost nothing.
 * @returns the number of stored segments, and the convs
 */
function fill(solo: Solo, conv: number, bytes: number): { stored: number; convs: number[] } {
  const { endpoint } = solo
  const refused = endpoint.counter('sessions_refused')
  const perDatagram = Math.floor(1372 / (24 + bytes))
  const data = new Uint8Array(bytes).fill(9)
  const first = message(MessageType.PUSH, data.subarray(4), 14884)
  const convs: number[] = []
  let stored = 0
  for (let held = 16; held >= 16; conv++) {
    const dropped = endpoint.counter('drop_memory')
    const before = stored
    solo.feed(push(conv, 0, DIAL))
    if (endpoint.counter('sessions_refused') > refused) break
    convs.push(conv)
    for (let sn = 1; sn < 30_000 && endpoint.counter('drop_memory') === dropped; ) {
      const datagrams: Uint8Array[] = []
      for (let i = 0; i < 16; i++) {
        const segments: Uint8Array[] = []
        for (let k = 0; k < perDatagram; k++, sn++) segments.push(push(conv, sn, sn === 1 ? first : data))
        datagrams.push(concat(...segments))
      }
      solo.feed(...datagrams)
      stored += 16 * perDatagram
    }
    stored -= endpoint.counter('drop_memory') - dropped
    held = ((stored - before) * bytes) / 1340
  }
  return { stored, convs }
}

function empty(solo: Solo, convs: readonly number[]): void {
  solo.feed(...convs.map((conv) => control(What.RESET, conv)))
  solo.run(3000)
  assert.is(solo.endpoint.sessions, 0)
}

for (const tiny of [5, 100, 300]) {
  test(`memory that was full of ${tiny}-byte segments holds as many full-size ones as before`, () => {
    const config = { rcvwnd: 65535, memoryCeiling: 12 * MIB, timeWait: 1 }
    const solo = new Solo({ role: 'server', read: false, config })
    const base = solo.endpoint.counter('memory_used')
    const before = fill(solo, 1, 1340)
    // received data may use more than half of memory, but not all of it
    assert.ok(before.stored > (6 * MIB) / 2048, `${before.stored} segments`)
    empty(solo, before.convs)
    const burst = fill(solo, 1000, tiny)
    assert.ok(burst.stored > 2.5 * before.stored, `${burst.stored} small segments`)
    empty(solo, burst.convs)
    assert.ok(solo.endpoint.counter('memory_used') - base < 64 * 1024)
    const after = fill(solo, 2000, 1340)
    assert.ok(after.stored >= 0.99 * before.stored, `${after.stored} of ${before.stored} segments`)
  })
}

test('blocks of every size, freed in random order, coalesce completely', () => {
  const config = { rcvwnd: 65535, memoryCeiling: 6 * MIB, timeWait: 1 }
  const solo = new Solo({ role: 'server', read: false, config })
  const before = fill(solo, 1, 1340)
  empty(solo, before.convs)
  const pages = solo.endpoint.core.u8.length
  const random = new Random(3)
  for (let round = 0; round < 40; round++) {
    const first = 10_000 + 100 * round
    const convs = Array.from({ length: random.between(1, 20) }, (_, i) => first + i)
    for (const conv of convs) solo.feed(push(conv, 0, DIAL))
    for (let i = 0; i < 60; i++) {
      const datagrams = Array.from({ length: 16 }, () => {
        const data = new Uint8Array(random.between(1, 1340))
        return push(first + random.below(convs.length), 2 + random.below(3000), data)
      })
      solo.feed(...datagrams)
    }
    if (random.chance(0.7)) empty(solo, convs)
    else {
      solo.feed(...convs.map((conv) => control(What.RESET, conv)))
      solo.run(3000)
    }
  }
  const after = fill(solo, 500, 1340)
  assert.ok(after.stored >= 0.99 * before.stored, `${after.stored} of ${before.stored} segments`)
  // the quarantine of the checked build prevents coalescing
  if (hasChecks(solo.endpoint.core.calls)) return
  // where the first fill ended in front of the last step up to the ceiling, this one may take it
  const size = solo.endpoint.core.u8.length
  assert.ok(size - pages <= GROWTH_BYTES, 'linear memory grew')
  empty(solo, after.convs)
  const again = fill(solo, 1000, 1340)
  assert.ok(again.stored >= 0.99 * before.stored, `${again.stored} of ${before.stored} segments`)
  assert.is(solo.endpoint.core.u8.length, size, 'linear memory grew again')
})

test('every session opened while memory runs out has a deadline and ends', () => {
  for (const tiny of [5, 400]) {
    for (const large of [0, 80, 160]) {
      const config = { rcvwnd: 65535, memoryCeiling: MIB, timeWait: 1, timeout: 20 }
      const solo = new Solo({ role: 'server', read: false, dial: 'wait', config })
      empty(solo, fill(solo, 1, tiny).convs)
      // part of memory is in use again, the rest is left for sessions
      const first = message(MessageType.PUSH, new Uint8Array(1336), 14884)
      solo.feed(push(5000, 0, DIAL))
      for (let sn = 1; sn <= large; sn++) solo.feed(push(5000, sn, sn === 1 ? first : new Uint8Array(1340)))
      const refused = solo.endpoint.counter('sessions_refused')
      let opened = 0
      for (let conv = 6000; solo.endpoint.counter('sessions_refused') < refused + 5; conv++, opened++) {
        solo.feed(push(conv, 0, DIAL))
      }
      assert.ok(opened > 100, `${opened} sessions`)
      solo.run(100_000)
      assert.is(solo.endpoint.sessions, 0, `of ${opened} sessions`)
    }
  }
})

test('a stream for which there is no memory is refused with E_MEMORY, and opens when there is some', () => {
  const config = { memoryCeiling: MIB }
  const solo = new Solo({ role: 'client', config })
  const { calls } = solo.endpoint.core
  // nothing is left at first, later room for one part of a session and not for another
  let refused = 0
  for (let left = 0; ; left += 64) {
    calls.set_host_bytes(config.memoryCeiling - left, 0)
    const handle = solo.open()
    if (handle > 0) break
    assert.is(handle, ErrorCode.MEMORY, `${left} bytes left`)
    assert.is(solo.endpoint.counter('sessions_refused'), ++refused)
  }
  assert.ok(refused > 0)
  assert.is(solo.endpoint.counter('sessions_connect'), 1)
})

test('a reader that keeps up is promised 32 segments while others hold the memory, one that lags fewer', () => {
  const config = { memoryCeiling: 8 * MIB }
  const solo = new Solo({ role: 'server', read: false, config })
  const data = message(MessageType.PUSH, new Uint8Array(1336))
  const next = (conv: number, sn: number): Uint8Array => push(conv, sn, data)
  // sessions whose readers are paused take what is shared, each half of the rest
  for (let conv = 1; conv <= 12; conv++) {
    solo.feed(push(conv, 0, DIAL))
    const dropped = solo.endpoint.counter('drop_memory')
    for (let sn = 1; solo.endpoint.counter('drop_memory') === dropped && sn < 2000; sn++) solo.feed(next(conv, sn))
  }
  const window = (conv: number): number => {
    solo.run(50)
    const [last] = solo.takeSegments(conv).slice(-1)
    assert.ok(last)
    return last.wnd
  }
  const [prompt, lagging] = [100, 101]
  solo.feed(push(prompt, 0, DIAL), push(lagging, 0, DIAL))
  const [, lags] = [...solo.streams.values()].slice(-2)
  assert.ok(lags)
  for (let sn = 1; sn <= 200; sn++) {
    solo.reading = true
    solo.feed(next(prompt, sn))
    solo.reading = false
    solo.feed(next(lagging, sn))
    // it leaves one segment unread
    if (sn > 1) solo.read(lags.handle, 1336)
  }
  solo.take()
  solo.reading = true
  solo.feed(next(prompt, 201))
  assert.is(window(prompt), 32)
  solo.reading = false
  solo.feed(next(lagging, 201))
  const lagged = window(lagging)
  assert.ok(lagged < 20, `${lagged} segments`)
})

// ---- impossible sizes

test('with a send window of 65535 segments writes stop at the ring size, and all data is sent', () => {
  const config = { sndwnd: 65535, nc: 1, kcpMtu: 64, memoryCeiling: 128 * MIB }
  const solo = new Solo({ role: 'server', config })
  solo.feed(push(5, 0, DIAL, { wnd: 65535 }))
  const { handle } = solo.only
  const data = new Uint8Array(4 * MIB)
  for (let i = 0; i < data.length; i++) data[i] = i * 7 + (i >> 8)
  let written = solo.write(handle, data)
  assert.ok(written > 60_000 * 30, `${written} bytes`)
  assert.is(solo.write(handle, data.subarray(written)), 0)
  assert.ok(solo.endpoint.counter('waitsnd') <= 65536)
  solo.endpoint.drain()
  solo.run(1)
  // WRITABLE is hardly ever reported without acknowledgements
  assert.ok(solo.events.filter(({ type }) => type === 3).length < 10)
  for (let una = 1; solo.endpoint.list()[0]?.waitsnd !== 0 || written < data.length; ) {
    una = Math.min(
      una + 4096,
      Math.max(...solo.take().flatMap(({ segments }) => segments.map(({ sn }) => sn + 1)), una),
    )
    solo.feed(ack(5, una - 1, 0, una, { wnd: 65535 }))
    written += solo.write(handle, data.subarray(written))
    solo.run(1)
  }
  const sent = solo.streamSent(5)
  const view = new DataView(sent.buffer, sent.byteOffset, sent.length)
  let at = 0
  for (let i = 0; i < sent.length; i += view.getUint16(i + 2)) {
    const length = view.getUint16(i + 2) - 4
    for (let k = 0; k < length; k++) if (sent[i + 4 + k] !== data[at + k]) assert.unreachable(`byte ${at + k}`)
    at += length
  }
  assert.is(at, data.length)
})

test.run()
