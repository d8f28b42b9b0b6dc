/**
 * The packet layer without ciphers: padding, nonces, replays, sizes (protocol.md 3.3-3.6).
 */
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { COUNTERS, Rx } from '../../host/engine/core.ts'
import { Random } from '../../testkit/sim/random.ts'
import { Solo, summary, TESTER } from '../../testkit/sim/solo.ts'
import { concat, control, DIAL, MessageType, message, push, segment, toHex, What } from '../../testkit/sim/wire.ts'

function nonceOf(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.subarray(bytes.length - size)
}

/** A little-endian number. */
function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
}

const test = suite('core/packet')

test('MUST 7: datagrams that are too short or fail authentication are dropped silently and counted', () => {
  for (const [sealing, overhead] of [
    ['random', 40],
    ['counter', 28],
  ] as const) {
    const solo = new Solo({ role: 'server', sealing })
    for (let length = 0; length <= overhead; length++) {
      solo.feedRaw(TESTER, new Uint8Array(length))
      // also with a valid tag
      if (length === overhead) solo.feed(new Uint8Array(0))
    }
    assert.is(solo.endpoint.counter('drop_short'), overhead + 2)
    solo.feedRaw(TESTER, new Uint8Array(overhead + 1), new Uint8Array(500))
    assert.is(solo.endpoint.counter('drop_auth'), 2)
    assert.is(solo.take().length, 0)
    // shorter than a conv
    solo.feed(new Uint8Array(1), new Uint8Array(2), new Uint8Array(3))
    assert.is(solo.take().length, 0)
    assert.is(solo.endpoint.sessions, 0)
    solo.feed(control(What.PING, 1))
    assert.is(solo.take().length, 1)
  }
})

test('MUST 12: datagrams of 1500 bytes are accepted, of 1501 dropped, with and without a method', () => {
  for (const sealing of ['none', 'random', 'counter'] as const) {
    const solo = new Solo({ role: 'server', sealing })
    const overhead = solo.endpoint.config.tagBytes + solo.endpoint.config.nonceBytes
    const ping = (length: number): Uint8Array => concat(control(What.PING, 9), new Uint8Array(length - overhead - 10))
    solo.feed(ping(1500))
    assert.is(solo.take().length, 1)
    solo.feed(ping(1501))
    assert.is(solo.take().length, 0)
    solo.feedRaw(TESTER, new Uint8Array(65507))
    assert.is(solo.take().length, 0)
    assert.is(solo.endpoint.counter('drop_oversize'), 2)
  }
})

test('handle_datagrams returns how many it accepted; every other one is counted once, by its reason', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const drops = COUNTERS.filter((name) => name.startsWith('drop_'))
  const taken = solo.seal(control(What.PING, 1))
  const listen = solo.seal(new Uint8Array([0, 0, 0, 0, 0, What.LISTEN]))
  assert.is(solo.feedRaw(TESTER, taken), 1)
  const [pong] = solo.take()
  assert.ok(pong)
  const cases: [string, Uint8Array][] = [
    ['drop_oversize', new Uint8Array(1501)],
    ['drop_short', new Uint8Array(40)],
    ['drop_short', solo.seal(new Uint8Array(3))],
    ['drop_auth', new Uint8Array(500)],
    ['drop_reflected', pong.bytes],
    ['drop_replay', taken],
    ['drop_malformed', listen],
    ['drop_malformed', solo.seal(new Uint8Array(5))],
  ]
  for (const [reason, bytes] of cases) {
    const counts = (): number[] => drops.map((name) => solo.endpoint.counter(name))
    const before = counts()
    const received = solo.endpoint.counter('pkt_received')
    assert.is(solo.feedRaw(TESTER, bytes, solo.seal(control(What.PING, 2))), 1, reason)
    assert.is(solo.endpoint.counter('pkt_received'), received + 2)
    counts().forEach((count, i) => {
      assert.is(count - (before[i] ?? 0), drops[i] === reason ? 1 : 0, `${reason}: ${drops[i]}`)
    })
  }
})

test('MUST 8: a forged datagram does not block the genuine one with the same nonce', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const genuine = solo.seal(control(What.PING, 5))
  const forged = genuine.slice()
  forged[0] = 1
  solo.feedRaw(TESTER, forged)
  assert.is(solo.take().length, 0)
  solo.feedRaw(TESTER, genuine)
  assert.is(solo.take().length, 1)
  solo.feedRaw(TESTER, genuine)
  assert.is(solo.take().length, 0)
  assert.is(solo.endpoint.counter('drop_replay'), 1)
})

test('MUST 9: a replay of any of the last `capacity` datagrams is dropped, new datagrams are accepted', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 400 }),
      fc.integer({ min: 1, max: 1500 }),
      fc.nat(),
      (capacity, count, seed) => {
        for (const sealing of ['random', 'counter'] as const) {
          // not the random numbers of the engine's entropy
          const random = new Random(seed + 1000)
          const solo = new Solo({ role: 'neither', sealing, config: { replayCapacity: capacity } })
          const seen: Uint8Array[] = []
          for (let i = 0; i < count; i++) {
            const datagram = solo.seal(control(What.PING, i), random.bytes(solo.endpoint.config.nonceBytes))
            seen.push(datagram)
            assert.is(solo.feedRaw(TESTER, datagram), 1, `fresh datagram ${i} was dropped`)
            const back = random.below(Math.min(capacity, seen.length))
            const old = seen[seen.length - 1 - back]
            if (old) assert.is(solo.feedRaw(TESTER, old), 0, `a replay was accepted after ${back} datagrams`)
          }
        }
      },
    ),
    { numRuns: 25 },
  )
})

/** Delivers datagrams with the nonces `from` .. `from + count` as authentic, without computing tags. */
function feedNonces(solo: Solo, from: number, count: number): void {
  const { core } = solo.endpoint
  const length = 4 + 2 + 16 + 12
  for (let at = 0; at < count; at += core.rxSlots) {
    const batch = Math.min(core.rxSlots, count - at)
    core.refresh()
    for (let i = 0; i < batch; i++) {
      const word = core.rxWord + i * Rx.WORDS
      const ptr = core.u32[word + Rx.ptr] ?? 0
      // an unknown control message, which has no effect
      core.u8.fill(0, ptr, ptr + length)
      core.u8[ptr + 5] = 9
      const nonce = from + at + i
      for (let k = 0; k < 4; k++) core.u8[ptr + length - 12 + k] = nonce >>> (8 * k)
      core.u32[word + Rx.length] = length
      core.u32[word + Rx.flags] = Rx.OPENED
      core.u8.set(TESTER, (word + Rx.address) * 4)
    }
    core.calls.handle_datagrams(batch, 0)
  }
}

test('MUST 9: replays are recognised with the capacities of client and server', () => {
  for (const capacity of [16384, 1 << 20]) {
    const solo = new Solo({ role: 'neither', sealing: 'counter', config: { replayCapacity: capacity } })
    const total = capacity + 20_000
    feedNonces(solo, 0, total)
    const lost = solo.endpoint.counter('drop_replay')
    // a false positive loses a packet: rare (kcptun-libev: 2^-20 per packet)
    assert.ok(lost <= 3, `${lost} fresh datagrams of ${total} were dropped as replays`)
    feedNonces(solo, total - capacity, capacity)
    assert.is(solo.endpoint.counter('drop_replay'), lost + capacity)
  }
})

test('MUST 9: replays do not evict other nonces from the filter', () => {
  const solo = new Solo({ role: 'neither', sealing: 'counter', config: { replayCapacity: 1000 } })
  feedNonces(solo, 0, 1000)
  feedNonces(solo, 1000, 10)
  feedNonces(solo, 1, 990)
  assert.is(solo.endpoint.counter('drop_replay'), 990)
  // not replayed yet, and among the last 1000 accepted
  feedNonces(solo, 991, 9)
  assert.is(solo.endpoint.counter('drop_replay'), 999)
})

test('MUST 15: without a method there is no replay filter and no padding: equal datagrams are all answered', () => {
  const solo = new Solo({ role: 'server' })
  for (let i = 0; i < 50; i++) solo.feed(control(What.PING, 7))
  const pongs = solo.take()
  assert.is(pongs.length, 50)
  for (const { plain } of pongs) assert.is(plain.length, 10)
})

test('MUST 14: padding has 0 to 15 bytes that all hold its length, and every length occurs', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const seen = new Set<number>()
  for (let i = 0; i < 600; i++) {
    solo.feed(control(What.PING, i))
    const [pong] = solo.take()
    assert.ok(pong)
    const pad = pong.plain.subarray(10)
    assert.ok(pad.length <= 15)
    assert.ok(pad.every((byte) => byte === pad.length))
    seen.add(pad.length)
  }
  assert.is(seen.size, 16)
})

test('MUST 11, MUST 14: a full datagram is not padded, a nearly full one only up to the MTU', () => {
  for (const kcpMtu of [200, 576, 1332]) {
    const solo = new Solo({ role: 'server', sealing: 'random', config: { kcpMtu, sndwnd: 1024 } })
    solo.feed(push(5, 0, DIAL, { wnd: 1000 }))
    solo.confirm(5)
    const lengths = new Set<number>()
    for (let size = 1; size < 300; size++) {
      solo.write(solo.only.handle, new Uint8Array(kcpMtu - 24 - 4 - (size % 30)))
      solo.endpoint.drain()
      solo.run(1)
      for (const { plain, segments, conv } of solo.take()) {
        assert.ok(plain.length <= kcpMtu)
        lengths.add(plain.length)
        const pushes = segments.filter(({ cmd }) => cmd === 'PUSH')
        for (const { sn } of pushes) solo.feed(segment({ conv, cmd: 82, sn, una: sn + 1, wnd: 1000 }))
      }
    }
    assert.ok(lengths.has(kcpMtu))
  }
})

test('MUST 13: counter nonces are little-endian and increment from a random base', () => {
  const bases = new Set<string>()
  for (let seed = 1; seed <= 5; seed++) {
    const solo = new Solo({ role: 'server', sealing: 'counter', seed })
    let last: bigint | undefined
    for (let i = 0; i < 600; i++) {
      solo.feed(control(What.PING, i))
      const [pong] = solo.take()
      const nonce = littleEndian(nonceOf(pong?.bytes ?? new Uint8Array(12), 12))
      if (last === undefined) bases.add(nonce.toString())
      else assert.is(nonce, (last + 1n) % (1n << 96n))
      last = nonce
    }
  }
  assert.is(bases.size, 5)
})

test('MUST 13: renew_nonce draws a new base', () => {
  const solo = new Solo({ role: 'server', sealing: 'counter' })
  const next = (): bigint => {
    solo.feed(control(What.PING, 1))
    return littleEndian(nonceOf(solo.take()[0]?.bytes ?? new Uint8Array(12), 12))
  }
  const before = next()
  assert.is(solo.endpoint.core.calls.renew_nonce(), 0)
  const after = next()
  assert.ok(after - before > 1_000_000n || before - after > 1_000_000n)
})

test('MUST 13: random nonces are unique and vary in every byte', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const used = Array.from({ length: 24 }, () => new Set<number>())
  for (let i = 0; i < 2000; i++) {
    solo.feed(control(What.PING, i))
    // the simulated endpoint rejects repeated nonces
    for (const { bytes } of solo.take()) for (const [at, byte] of nonceOf(bytes, 24).entries()) used[at]?.add(byte)
  }
  for (const values of used) assert.ok(values.size > 200, `${values.size}`)
})

test('byte and packet counters match the socket', () => {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  const datagrams = [control(What.PING, 1), push(5, 0, concat(DIAL, message(MessageType.PUSH, new Uint8Array(100))))]
  const sealed = datagrams.map((plain) => solo.seal(plain))
  solo.feedRaw(TESTER, ...sealed, new Uint8Array(77))
  solo.run(100)
  const { endpoint } = solo
  assert.is(endpoint.counter('pkt_received'), 3)
  assert.is(
    endpoint.counter('pkt_received_bytes'),
    sealed.reduce((sum, { length }) => sum + length, 77),
  )
  assert.is(endpoint.counter('pkt_sent'), solo.all.length)
  assert.is(
    endpoint.counter('pkt_sent_bytes'),
    solo.all.reduce((sum, { bytes }) => sum + bytes.length, 0),
  )
  // plaintext of sessions: received with padding, sent without (protocol.md 11.2)
  assert.is(endpoint.counter('kcp_received_bytes'), datagrams[1]?.length)
  const sent = solo.all.filter(({ conv }) => conv !== 0)
  assert.is(
    endpoint.counter('kcp_sent_bytes'),
    sent.reduce((sum, { segments }) => sum + segments.reduce((bytes, { len }) => bytes + 24 + len, 0), 0),
  )
  assert.ok(solo.all.some((output) => summary(output) === 'PONG'))
  assert.is(toHex(DIAL), '00000004')
})

test.run()
