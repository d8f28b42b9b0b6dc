/**
 * Stream messages: DIAL, PUSH, EOF, KEEPALIVE at arbitrary splits, and malformed ones (protocol.md 6.1-6.5).
 */
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode, EventType, Span } from '../../host/engine/core.ts'
import { decodeMessages } from '../../testkit/decode.ts'
import { patternByte } from '../../testkit/sim/random.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import {
  ack,
  Cmd,
  concat,
  DIAL,
  EOF,
  KEEPALIVE,
  MessageType,
  message,
  push,
  segment,
  toHex,
  utf8,
} from '../../testkit/sim/wire.ts'

const SETTLE_MS = 50
const PROTOCOL_ERROR = 5

function payload(length: number, start = 0): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = patternByte(start + i, 2)
  return bytes
}

/** @returns the types of the messages sent in a conversation */
function sentMessages(solo: Solo, conv: number): string[] {
  return decodeMessages(solo.streamSent(conv)).messages.map(({ type }) => type)
}

/** A client with one stream and its conv. */
function client(): { solo: Solo; handle: number; conv: number } {
  const solo = new Solo({ role: 'client' })
  const handle = solo.open()
  return { solo, handle, conv: solo.endpoint.convOf(handle) }
}

const piece = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 3000 }).map((length) => ({ kind: 'push' as const, length })) },
  { weight: 1, arbitrary: fc.constantFrom(14880, 14879, 1, 0).map((length) => ({ kind: 'push' as const, length })) },
  { weight: 1, arbitrary: fc.constant({ kind: 'keepalive' as const, length: 0 }) },
)

const test = suite('core/stream')

test('MUST 35, 37, 38: messages split anywhere arrive whole; KEEPALIVEs are echoed; EOF is reported last', () => {
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 25 }),
      fc.array(fc.integer({ min: 1, max: 1400 }), { minLength: 1, maxLength: 40 }),
      fc.boolean(),
      (pieces, cuts, end) => {
        const solo = new Solo({ role: 'server' })
        const parts: Uint8Array[] = [DIAL]
        let total = 0
        let keepalives = 0
        for (const { kind, length } of pieces) {
          if (kind === 'keepalive') {
            keepalives++
            parts.push(KEEPALIVE)
          } else {
            parts.push(message(MessageType.PUSH, payload(length, total)))
            total += length
          }
        }
        if (end) parts.push(EOF)
        const stream = concat(...parts)
        let sn = 0
        for (let at = 0; at < stream.length; ) {
          const size = cuts[sn % cuts.length] ?? 1
          solo.feed(push(5, sn++, stream.subarray(at, at + size)))
          at += size
        }
        assert.equal(solo.only.data, payload(total))
        assert.is(solo.only.eof, end)
        assert.is(solo.only.ending, undefined)
        solo.run(SETTLE_MS)
        assert.is(sentMessages(solo, 5).filter((type) => type === 'KEEPALIVE').length, keepalives)
      },
    ),
    { numRuns: 120 },
  )
})

test('a stream of one byte per segment is delivered', () => {
  const solo = new Solo({ role: 'server' })
  const stream = concat(DIAL, message(MessageType.PUSH, utf8('hello')), message(MessageType.PUSH), EOF)
  for (const [sn, byte] of stream.entries()) solo.feed(push(5, sn, new Uint8Array([byte])))
  assert.equal(solo.only.data, utf8('hello'))
  assert.ok(solo.only.eof)
})

test('MUST 30, MUST 31: a client sends DIAL, then PUSH messages of at most 14884 bytes, header included', () => {
  for (const size of [1, 1344, 1345, 14880, 14881, 200_000]) {
    const { solo, handle, conv } = client()
    const data = payload(size)
    let done = 0
    let una = 0
    while (done < size) {
      done += solo.write(handle, data.subarray(done))
      solo.endpoint.drain()
      for (const { cmd, sn } of solo.takeSegments(conv)) if (cmd === 'PUSH') una = Math.max(una, sn + 1)
      solo.feed(segment({ conv, cmd: Cmd.ACK, una, wnd: 500 }))
    }
    assert.is(solo.endpoint.shutdown(handle), 0)
    solo.endpoint.drain()
    for (let i = 0; i < 3; i++) {
      solo.run(5)
      for (const { cmd, sn } of solo.takeSegments(conv)) if (cmd === 'PUSH') una = Math.max(una, sn + 1)
      solo.feed(segment({ conv, cmd: Cmd.ACK, una, wnd: 500 }))
    }
    const { messages, rest } = decodeMessages(solo.streamSent(conv))
    assert.is(rest, 0)
    assert.is(messages[0]?.type, 'DIAL')
    assert.is(messages.at(-1)?.type, 'EOF')
    assert.ok(messages.every((one) => one.payload.length <= 14880))
    assert.ok(messages.slice(1, -1).every(({ type }) => type === 'PUSH'))
    assert.equal(concat(...messages.map((one) => one.payload)), data)
    assert.ok(toHex(solo.streamSent(conv)).startsWith('00000004'))
  }
})

test('MUST 33: a server dials on DIAL and does not report success', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 0, DIAL))
  assert.ok(solo.only.dialled)
  solo.run(10_000)
  assert.equal(sentMessages(solo, 5), [])
})

test('MUST 34: a failed dial is reported by EOF; bytes received later are acknowledged and discarded', () => {
  const solo = new Solo({ role: 'server', dial: 'refuse' })
  solo.feed(push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('abc')))))
  solo.run(SETTLE_MS)
  assert.equal(sentMessages(solo, 5), ['EOF'])
  solo.feed(push(5, 1, message(MessageType.PUSH, payload(1000))))
  solo.run(SETTLE_MS)
  const acks = solo.takeSegments(5).filter(({ cmd }) => cmd === 'ACK')
  assert.is(acks.at(-1)?.una, 2)
  assert.is(acks.at(-1)?.wnd, 256)
  assert.is(solo.endpoint.counter('discarded_bytes'), 1003)
})

test('bytes are held while the target is being dialled, and delivered once connected', () => {
  const solo = new Solo({ role: 'server', dial: 'wait' })
  solo.feed(push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('early')), EOF)))
  solo.run(1000)
  const stream = solo.only
  assert.is(stream.data.length, 0)
  assert.not.ok(stream.eof)
  solo.endpoint.connected(stream.handle, true)
  solo.endpoint.drain()
  assert.equal(stream.data, utf8('early'))
  assert.ok(stream.eof)
})

test('EOF directly after DIAL is reported when the target is connected, not before', () => {
  const solo = new Solo({ role: 'server', dial: 'wait' })
  solo.feed(push(5, 0, concat(DIAL, EOF)))
  solo.run(1000)
  assert.not.ok(solo.only.eof)
  assert.is(solo.only.ending, undefined)
  solo.endpoint.connected(solo.only.handle, true)
  solo.endpoint.drain()
  assert.ok(solo.only.eof)
  assert.is(solo.write(solo.only.handle, utf8('answer')), 6)
})

test('EOF is reported only after every byte before it was consumed', () => {
  const solo = new Solo({ role: 'server', read: false })
  solo.feed(push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('abc')), EOF)))
  const stream = solo.only
  assert.not.ok(stream.eof)
  assert.is(solo.read(stream.handle, 2), 2)
  solo.endpoint.drain()
  assert.not.ok(stream.eof)
  assert.is(solo.read(stream.handle, 2), 1)
  solo.endpoint.drain()
  assert.ok(stream.eof)
})

test('MUST 36: TCP is closed normally when both directions have ended', () => {
  for (const order of ['peer first', 'we first']) {
    const solo = new Solo({ role: 'server' })
    solo.feed(push(5, 0, DIAL))
    const { handle } = solo.only
    const theirs = (): number => solo.feed(push(5, 1, EOF))
    const ours = (): void => {
      assert.is(solo.endpoint.shutdown(handle), 0)
      solo.endpoint.drain()
    }
    if (order === 'peer first') theirs()
    else ours()
    assert.is(solo.only.ending, undefined)
    if (order === 'peer first') ours()
    else theirs()
    assert.is(solo.only.ending, 'detached', order)
    assert.is(solo.endpoint.shutdown(handle), ErrorCode.HANDLE)
  }
})

test('MUST 37: an accepted session echoes KEEPALIVE in every state', () => {
  const echoes = (solo: Solo): number => sentMessages(solo, 5).filter((type) => type === 'KEEPALIVE').length
  // before DIAL, while dialling, open, after the peer's EOF, after both EOFs, after a refused dial
  const early = new Solo({ role: 'server', dial: 'wait' })
  early.feed(push(5, 0, KEEPALIVE))
  early.run(SETTLE_MS)
  assert.is(echoes(early), 1, 'before DIAL')
  early.feed(push(5, 1, concat(DIAL, KEEPALIVE)))
  early.run(SETTLE_MS)
  assert.is(echoes(early), 2, 'while dialling')
  early.endpoint.connected(early.only.handle, true)
  early.feed(push(5, 2, KEEPALIVE))
  early.run(SETTLE_MS)
  assert.is(echoes(early), 3, 'open')
  early.feed(push(5, 3, concat(EOF, KEEPALIVE)))
  early.run(SETTLE_MS)
  assert.is(echoes(early), 4, 'after the peer’s EOF')
  early.endpoint.shutdown(early.only.handle)
  early.endpoint.drain()
  early.feed(push(5, 4, KEEPALIVE))
  early.run(SETTLE_MS)
  assert.is(echoes(early), 5, 'after both EOFs')
  const refused = new Solo({ role: 'server', dial: 'refuse' })
  refused.feed(push(5, 0, concat(DIAL, KEEPALIVE)))
  refused.run(SETTLE_MS)
  assert.is(echoes(refused), 1, 'after a refused dial')
})

test('at most 1024 echoes of KEEPALIVE are unacknowledged', () => {
  const solo = new Solo({ role: 'server' })
  const several = (count: number): Uint8Array => concat(...Array.from({ length: count }, () => KEEPALIVE))
  const echoes = (): number => sentMessages(solo, 5).filter((type) => type === 'KEEPALIVE').length
  // these are echoed in one segment
  solo.feed(push(5, 0, concat(DIAL, several(200))))
  solo.run(SETTLE_MS)
  assert.is(echoes(), 200)
  for (let sn = 1; sn <= 5; sn++) solo.feed(push(5, sn, several(300)))
  solo.run(SETTLE_MS)
  assert.ok(echoes() <= 1024, `${echoes()} echoes`)
})

test('MUST 37: an opened session never echoes KEEPALIVE', () => {
  const { solo, conv } = client()
  solo.run(5)
  for (let sn = 0; sn < 10; sn++) solo.feed(push(conv, sn, KEEPALIVE, { una: 1 }))
  solo.run(1000)
  assert.equal(sentMessages(solo, conv), ['DIAL'])
})

const MALFORMED: readonly (readonly [string, Uint8Array])[] = [
  ['length 0', message(1, new Uint8Array(0), 0)],
  ['length 3', message(1, new Uint8Array(0), 3)],
  ['length 14885', message(1, new Uint8Array(100), 14885)],
  ['length 65535', message(1, new Uint8Array(100), 65535)],
  ['type 4', message(4)],
  ['type 65535', message(65535)],
  ['EOF of length 5', message(2, new Uint8Array(1))],
  ['KEEPALIVE of length 6', message(3, new Uint8Array(2))],
]

for (const [name, bytes] of [...MALFORMED, ['a second DIAL', DIAL] as const]) {
  test(`MUST 39: ${name} aborts the TCP side and sends EOF, no RESET; the session survives`, () => {
    const solo = new Solo({ role: 'server' })
    solo.feed(push(5, 0, concat(DIAL, message(MessageType.PUSH, utf8('ok')))))
    solo.feed(push(5, 1, bytes))
    assert.equal(solo.only.data, utf8('ok'))
    assert.is(solo.only.ending, 'aborted')
    assert.is(solo.only.reason, PROTOCOL_ERROR)
    solo.run(SETTLE_MS)
    assert.equal(sentMessages(solo, 5), ['EOF'])
    // what follows is acknowledged and discarded
    for (let sn = 2; sn < 600; sn++) solo.feed(push(5, sn, payload(500)))
    solo.run(SETTLE_MS)
    const acks = solo.takeSegments(5).filter(({ cmd }) => cmd === 'ACK')
    assert.is(acks.at(-1)?.una, 600)
    assert.is(solo.all.filter(({ conv }) => conv === 0).length, 0)
  })
}

for (const [name, bytes] of [...MALFORMED, ['a DIAL to a client', DIAL] as const]) {
  test(`MUST 39: ${name}, sent to a client, aborts the TCP side`, () => {
    const { solo, handle, conv } = client()
    solo.feed(push(conv, 0, bytes))
    assert.is(solo.stream(handle).ending, 'aborted')
    assert.is(solo.stream(handle).reason, PROTOCOL_ERROR)
    solo.run(SETTLE_MS)
    assert.equal(sentMessages(solo, conv), ['DIAL', 'EOF'])
  })
}

test('no PUSH is sent after EOF; a second EOF of the peer is ignored; bytes after its EOF are dropped', () => {
  const { solo, handle, conv } = client()
  solo.write(handle, utf8('x'))
  solo.endpoint.shutdown(handle)
  assert.ok(solo.write(handle, utf8('late')) <= 0)
  solo.endpoint.drain()
  solo.feed(push(conv, 0, concat(message(MessageType.PUSH, utf8('data')), EOF, EOF), { una: 1 }))
  assert.equal(solo.stream(handle).data, utf8('data'))
  solo.feed(push(conv, 1, message(MessageType.PUSH, utf8('behind')), { una: 1 }))
  solo.run(SETTLE_MS)
  assert.equal(solo.stream(handle).data, utf8('data'))
  assert.equal(sentMessages(solo, conv), ['DIAL', 'PUSH', 'EOF'])
})

test('one stream_peek returns the payloads of all buffered messages', () => {
  const solo = new Solo({ role: 'server', read: false })
  const texts = ['a', 'bcd', 'efghij', 'klm']
  const messages = texts.map((text) => message(MessageType.PUSH, utf8(text)))
  solo.feed(push(5, 0, concat(DIAL, ...messages.slice(0, 2))), push(5, 1, concat(...messages.slice(2), EOF)))
  const { core } = solo.endpoint
  const { handle } = solo.only
  assert.is(core.calls.stream_peek(handle), texts.length)
  core.refresh()
  const shown = texts.map((_, i) => {
    const at = core.spanWord + i * Span.WORDS
    const ptr = core.u32[at + Span.ptr] ?? 0
    return new TextDecoder().decode(core.u8.slice(ptr, ptr + (core.u32[at + Span.length] ?? 0)))
  })
  assert.equal(shown, texts)
})

test('MUST 35: sending continues after the peer’s EOF', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 0, concat(DIAL, EOF)))
  const { handle } = solo.only
  assert.ok(solo.only.eof)
  assert.is(solo.write(handle, utf8('still here')), 10)
  solo.endpoint.drain()
  assert.is(toHex(solo.streamSent(5)), toHex(message(MessageType.PUSH, utf8('still here'))))
})

test('exactly the committed part of each reservation is sent', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 20_000 }), fc.integer({ min: 0, max: 20_000 })), { maxLength: 12 }),
      (steps) => {
        const solo = new Solo({ role: 'server', config: { sndwnd: 1024, nc: 1 } })
        solo.feed(push(5, 0, DIAL, { wnd: 1000 }))
        const { core } = solo.endpoint
        const { handle } = solo.only
        let written = 0
        for (const [want, commit] of steps) {
          const spans = core.calls.stream_reserve(handle, want)
          assert.ok(spans > 0)
          core.refresh()
          let at = 0
          for (let i = 0; i < spans; i++) {
            const ptr = core.u32[core.spanWord + 2 * i] ?? 0
            const length = core.u32[core.spanWord + 2 * i + 1] ?? 0
            for (let k = 0; k < length; k++) core.u8[ptr + k] = patternByte(written + at + k, 2)
            at += length
          }
          assert.ok(at <= Math.min(want, 14880))
          const taken = Math.min(commit, at)
          assert.is(core.calls.stream_commit(handle, taken, solo.endpoint.now), 0)
          written += taken
          solo.endpoint.dirty = true
        }
        solo.endpoint.drain()
        solo.run(1)
        const { messages } = decodeMessages(solo.streamSent(5))
        assert.equal(concat(...messages.map((one) => one.payload)), payload(written))
        assert.ok(messages.every(({ type }) => type === 'PUSH'))
      },
    ),
    { numRuns: 60 },
  )
})

test('a limited stream accepts what is sent soon, and WRITABLE follows when that is sent', () => {
  const limit = 4
  const { solo, handle, conv } = client()
  const { calls } = solo.endpoint.core
  assert.is(calls.stream_limit_unsent(handle, limit), 0)
  let written = 0
  for (let round = 0; round < 4; round++) {
    const taken = solo.write(handle, payload(50_000, written))
    written += taken
    assert.ok(taken > 0 && taken <= limit * 1500, `round ${round}: ${taken} bytes`)
    assert.is(calls.stream_reserve(handle, 1), 0)
    const before = solo.events.length
    solo.endpoint.drain()
    assert.ok(solo.events.slice(before).some(({ type }) => type === EventType.WRITABLE))
  }
  const { messages } = decodeMessages(solo.streamSent(conv))
  assert.equal(concat(...messages.map((one) => one.payload)), payload(written))
  const other = client()
  assert.ok(other.solo.write(other.handle, payload(200_000)) > 20 * limit * 1500)
  assert.is(calls.stream_limit_unsent(handle + 1, limit), ErrorCode.HANDLE)
})

test('READABLE is reported once, and again after everything was read', () => {
  const solo = new Solo({ role: 'server', read: false })
  solo.feed(push(5, 0, DIAL))
  const count = (): number => solo.events.filter(({ type }) => type === EventType.READABLE).length
  solo.feed(push(5, 1, message(MessageType.PUSH, utf8('a'))))
  solo.feed(push(5, 2, message(MessageType.PUSH, utf8('b'))))
  assert.is(count(), 1)
  assert.is(solo.read(solo.only.handle), 2)
  solo.endpoint.drain()
  solo.feed(push(5, 3, message(MessageType.PUSH, utf8('c'))))
  assert.is(count(), 2)
})

test('a session whose events do not all fit into the event array gets the rest of them with the next poll', () => {
  const solo = new Solo({ role: 'client' })
  const slots = solo.endpoint.core.calls.event_slots()
  const handles = Array.from({ length: slots }, () => solo.open())
  const [first, ...others] = handles.map((handle) => solo.endpoint.convOf(handle))
  assert.ok(first)
  solo.take()
  const answer = message(MessageType.PUSH, utf8('x'))
  // OPENED alone, then OPENED and READABLE of each session
  solo.feed(ack(first, 0, 0, 1), ...others.map((conv) => push(conv, 0, answer, { una: 1 })))
  const types = solo.events.map(({ type }) => type)
  assert.is(types.filter((type) => type === EventType.OPENED).length, slots)
  assert.is(types.filter((type) => type === EventType.READABLE).length, slots - 1)
  for (const handle of handles.slice(1)) assert.equal(solo.stream(handle).data, utf8('x'))
})

test.run()
