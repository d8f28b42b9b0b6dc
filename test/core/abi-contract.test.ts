/**
 * The guarantees of docs/abi.md beyond its tables: states, random bytes, coalescing of events, getters without side
 * effects, and blocks owned by the host. Engines are called directly, without the classes of host/.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  AddressRecord,
  CALLS,
  COUNTERS,
  ConfigField,
  type ConfigFieldName,
  type CoreExports,
  type CounterName,
  ErrorCode,
  Event,
  EventType,
  Info,
  instantiate,
  Mode,
  NonceStrategy,
  Rx,
  Secret,
  Span,
  Tx,
  UNSET,
} from '../../host/engine/core.ts'

const test = suite('core/abi-contract')

const OPEN = { tagBytes: 0, nonceBytes: 0, nonceStrategy: NonceStrategy.NONE }
const SEALED = { tagBytes: 16, nonceBytes: 24, nonceStrategy: NonceStrategy.RANDOM }
const FIELDS: Readonly<Record<ConfigFieldName, number>> = {
  ...OPEN,
  mode: Mode.CLIENT,
  kcpMtu: 1332,
  sndwnd: UNSET,
  rcvwnd: UNSET,
  nodelay: UNSET,
  interval: UNSET,
  resend: UNSET,
  nc: UNSET,
  flush: UNSET,
  timeout: 60,
  linger: 5,
  keepalive: 0,
  timeWait: 5,
  memoryCeiling: 64 << 20,
  maxSessions: 16,
  replayCapacity: 0,
  maxHalfOpen: 0,
  confirm: 0,
  sendOnce: 0,
  searchMtu: 0,
  rateUp: UNSET,
  rateDown: UNSET,
  sessionRateUp: UNSET,
  sessionRateDown: UNSET,
}

/** An engine, with views over its memory created on each access. */
class Engine {
  readonly calls: CoreExports = instantiate()

  bytes(at: number, length: number): Uint8Array {
    return new Uint8Array(this.calls.memory.buffer, at >>> 0, length)
  }

  words(at: number, length: number): Uint32Array {
    return new Uint32Array(this.calls.memory.buffer, at >>> 0, length)
  }

  fill(bytes: number): number {
    crypto.getRandomValues(this.bytes(this.calls.entropy_ptr(), bytes))
    return this.calls.entropy_filled(bytes)
  }

  configure(fields: Partial<Record<ConfigFieldName, number>> = {}): number {
    const block = this.words(this.calls.config_ptr(), Object.keys(ConfigField).length)
    for (const [name, value] of Object.entries({ ...FIELDS, ...fields })) {
      block[ConfigField[name as ConfigFieldName]] = value
    }
    return this.calls.configure(0)
  }

  writeAddress(at: number, port: number): void {
    this.bytes(at, AddressRecord.BYTES).fill(0)
    this.words(at, 1)[0] = 4 | (port << 16)
    this.bytes(at + AddressRecord.ip, 4).set([127, 0, 0, 1])
  }

  /** A client or server with a full entropy block, and a peer at port 1000. */
  static started(mode: number, fields: Partial<Record<ConfigFieldName, number>> = {}): Engine {
    const engine = new Engine()
    engine.fill(65536)
    assert.is(engine.configure({ mode, ...fields }), 0)
    engine.writeAddress(engine.calls.peer_ptr(), 1000)
    engine.calls.set_peer(0)
    return engine
  }

  counter(name: CounterName): number {
    return Number(
      new BigUint64Array(this.calls.memory.buffer, this.calls.stats_ptr() >>> 0, 64)[COUNTERS.indexOf(name)],
    )
  }

  /** @returns the plaintexts of all pending datagrams */
  take(now = 0): Uint8Array[] {
    const { calls } = this
    const list: Uint8Array[] = []
    for (let n = calls.poll_transmit(64, now); n > 0; n = calls.poll_transmit(64, now)) {
      for (let i = 0; i < n; i++) {
        const slot = this.words(calls.tx_ptr() + 4 * Tx.WORDS * i, Tx.WORDS)
        list.push(this.bytes(slot[Tx.source] ?? 0, slot[Tx.length] ?? 0).slice())
      }
    }
    return list
  }

  /** Delivers datagrams from `port`. */
  deliver(datagrams: readonly Uint8Array[], port = 1000, now = 0): void {
    const { calls } = this
    for (const datagram of datagrams) {
      const slot = this.words(calls.rx_ptr(), Rx.WORDS)
      this.bytes(slot[Rx.ptr] ?? 0, datagram.length).set(datagram)
      slot[Rx.length] = datagram.length
      slot[Rx.flags] = Rx.OPENED
      this.writeAddress(calls.rx_ptr() + 4 * Rx.address, port)
      calls.handle_datagrams(1, now)
    }
  }

  /** @returns type and handle of each pending event */
  events(): (readonly [number, number])[] {
    const n = this.calls.poll_events()
    return Array.from({ length: n }, (_, i) => {
      const event = this.words(this.calls.events_ptr() + 4 * Event.WORDS * i, Event.WORDS)
      return [event[Event.type] ?? 0, event[Event.handle] ?? 0] as const
    })
  }

  /** Queues up to `length` bytes. @returns the number of bytes queued */
  write(handle: number, length: number, now = 0): number {
    const n = this.calls.stream_reserve(handle, length)
    let reserved = 0
    for (let i = 0; i < n; i++) reserved += this.words(this.calls.spans_ptr() + 4 * Span.WORDS * i, 2)[Span.length] ?? 0
    assert.is(this.calls.stream_commit(handle, reserved, now), 0)
    return reserved
  }
}

/** A client and a server with one session whose target is connected. */
function connected(): { client: Engine; server: Engine; near: number; far: number } {
  const client = Engine.started(Mode.CLIENT)
  const server = Engine.started(Mode.SERVER)
  const near = client.calls.stream_open(0)
  server.deliver(client.take())
  const events = server.events()
  assert.equal(
    events.map(([type]) => type),
    [EventType.DIAL],
  )
  const far = events[0]?.[1] ?? 0
  assert.is(server.calls.stream_connected(far, 1, 0), 0)
  client.deliver(server.take())
  assert.equal(server.events(), [])
  return { client, server, near, far }
}

test('before configure, calls with a time return E_STATE, and there are no events, sessions or timers', () => {
  const { calls } = new Engine()
  const timeless = new Set(['configure', 'next_timeout'])
  const streams = /^(stream_(?!open)|session_find)/
  for (const name of CALLS) {
    const args = calls[name].length
    if (args === 0 || timeless.has(name)) continue
    const result = (calls[name] as (...args: number[]) => number)(...Array.from({ length: args }, () => 0))
    if (streams.test(name)) assert.is(result, ErrorCode.HANDLE, name)
    else if (!['entropy_filled', 'set_host_bytes', 'session_info', 'obfs_context_info'].includes(name))
      assert.is(result, ErrorCode.STATE, name)
    else assert.is(result, 0, name)
  }
  assert.is(calls.next_timeout(0), -1)
  assert.is(calls.poll_events(), 0)
  assert.is(calls.session_slots(), 0)
})

test('the first configure needs 64 random bytes; entropy_filled rejects more than the block holds', () => {
  const engine = new Engine()
  assert.is(engine.configure(), ErrorCode.ENTROPY)
  engine.fill(63)
  assert.is(engine.configure(), ErrorCode.ENTROPY)
  assert.is(engine.calls.next_timeout(0), -1, 'nothing changed')
  engine.fill(64)
  assert.is(engine.configure(), 0)
  assert.is(engine.calls.entropy_filled(65537), ErrorCode.ARGUMENT)
  assert.is(engine.configure(), 0, 'later calls need none')
})

test('poll_transmit returns E_ENTROPY and sends after a refill; counter nonces need 1 random byte, not 25', () => {
  for (const [fields, need] of [
    [SEALED, 25],
    [{ ...SEALED, nonceBytes: 12, nonceStrategy: NonceStrategy.COUNTER }, 1],
  ] as const) {
    const engine = Engine.started(Mode.CLIENT, fields)
    engine.calls.entropy_filled(0)
    const handle = engine.calls.stream_open(0)
    engine.write(handle, 100)
    assert.is(engine.calls.poll_transmit(64, 0), ErrorCode.ENTROPY)
    engine.fill(need - 1)
    assert.is(engine.calls.poll_transmit(64, 0), ErrorCode.ENTROPY)
    engine.fill(need)
    assert.is(engine.calls.poll_transmit(64, 0), 1)
    assert.is(engine.counter('entropy_left'), 0)
    const slot = engine.words(engine.calls.tx_ptr(), Tx.WORDS)
    assert.is(slot[Tx.nonce], (slot[Tx.out] ?? 0) + (slot[Tx.length] ?? 0) + 16)
  }
})

test('each event is queued at most once per session, in the order of event types', () => {
  const { client, server, near, far } = connected()
  for (let i = 0; i < 5; i++) {
    client.write(near, 1000)
    server.deliver(client.take())
  }
  // the peer's window fills and reopens: WRITABLE in addition to READABLE
  while (server.write(far, 10_000) > 0);
  for (let now = 0; now < 80_000 && server.counter('waitsnd') > 0; now += 80) {
    client.deliver(server.take(now), 1000, now)
    server.deliver(client.take(now), 1000, now)
    while (client.calls.stream_peek(near) > 0) client.calls.stream_consume(near, 1 << 20, now)
    client.calls.handle_timeout(now)
    server.calls.handle_timeout(now)
  }
  assert.equal(server.events(), [
    [EventType.READABLE, far],
    [EventType.WRITABLE, far],
  ])
  assert.equal(server.events(), [])
})

test('READABLE is not repeated until stream_peek returns 0 or everything is consumed', () => {
  const { client, server, near, far } = connected()
  client.write(near, 100)
  server.deliver(client.take())
  assert.equal(server.events(), [[EventType.READABLE, far]])
  client.write(near, 100)
  server.deliver(client.take())
  assert.equal(server.events(), [])
  assert.ok(server.calls.stream_peek(far) > 0)
  assert.is(server.calls.stream_consume(far, 150, 0), 0)
  assert.equal(server.events(), [], 'some bytes are left')
  assert.is(server.calls.stream_consume(far, 50, 0), 0)
  assert.equal(server.events(), [])
  client.write(near, 100)
  server.deliver(client.take())
  assert.equal(server.events(), [[EventType.READABLE, far]])
})

test('ABORT discards the pending events of its session and invalidates the handle', () => {
  const { client, server, near, far } = connected()
  client.write(near, 100)
  server.deliver(client.take())
  let now = 0
  while (server.counter('sessions_aborted') === 0) {
    now += Math.max(1, server.calls.next_timeout(now))
    server.calls.handle_timeout(now)
    server.take(now)
  }
  assert.equal(
    server.events().filter(([, handle]) => handle === far),
    [[EventType.ABORT, far]],
  )
  assert.is(server.calls.stream_peek(far), ErrorCode.HANDLE)
  assert.is(server.calls.session_find(far, now), ErrorCode.HANDLE)
})

test('getters, next_timeout and session_find change no counter; session_find matches session_info', () => {
  const { client, near } = connected()
  const { calls } = client
  client.write(near, 100)
  const counters = (): Uint8Array => client.bytes(calls.stats_ptr(), 64 * 8).slice()
  const info = (): Uint8Array => client.bytes(calls.info_ptr(), Info.BYTES).slice()
  const before = counters()
  assert.is(calls.session_find(near, 0), 0)
  const found = info()
  const slots = Array.from({ length: calls.session_slots() }, (_, slot) => slot)
  assert.ok(slots.some((slot) => calls.session_info(slot, 0) === near))
  assert.equal(info(), found)
  calls.next_timeout(0)
  calls.stream_peek(near)
  calls.stream_reserve(near, 10)
  assert.equal(counters(), before)
})

test('the engine does not write to the block at io_ptr', () => {
  const { client, server, near } = connected()
  const pattern = Uint8Array.from({ length: client.calls.io_capacity() }, (_, i) => (i * 31) & 255)
  for (const engine of [client, server]) engine.bytes(engine.calls.io_ptr(), pattern.length).set(pattern)
  for (let now = 0; now < 8000; now += 80) {
    client.write(near, 5000, now)
    server.deliver(client.take(now), 1000, now)
    client.deliver(server.take(now), 1000, now)
  }
  for (const { calls } of [client, server]) {
    assert.ok(Buffer.from(calls.memory.buffer, calls.io_ptr() >>> 0, pattern.length).equals(pattern))
  }
})

test('configure clears the secret block', () => {
  const engine = new Engine()
  engine.fill(65536)
  engine.bytes(engine.calls.secret_ptr(), Secret.BYTES).fill(7)
  assert.is(engine.configure({ ...SEALED, nonceBytes: 12, nonceStrategy: NonceStrategy.COUNTER }), 0)
  assert.ok(engine.bytes(engine.calls.secret_ptr(), Secret.BYTES).every((byte) => byte === 0))
})

test('a datagram too long to copy is counted as oversize', () => {
  const engine = Engine.started(Mode.SERVER, SEALED)
  const slot = engine.words(engine.calls.rx_ptr(), Rx.WORDS)
  for (const length of [1501, 65507, 0xffffffff]) {
    slot[Rx.length] = length
    slot[Rx.flags] = 0
    assert.is(engine.calls.handle_datagrams(1, 0), 0)
  }
  assert.is(engine.counter('drop_oversize'), 3)
})

test.run()
