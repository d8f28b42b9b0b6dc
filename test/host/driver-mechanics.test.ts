/** The driver's loop around a stub engine: batches, back-pressure, timers and exceptions. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode, EventType } from '../../host/engine/core.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { bench, PEER, Recorder } from './driver-bench.ts'
import { loopback, until } from './memory-runtime.ts'
import { type StubCore, stubCore } from './stub-core.ts'

const test = suite('driver mechanics')

/** A driver with one accepted connection, handle 1. */
async function accepted(stub: StubCore, clock?: VirtualClock) {
  const all = await bench(stub, {}, [], clock)
  const connection = new Recorder()
  const handlers = all.driver.accept(connection)
  assert.ok(handlers)
  return { ...all, connection, tcp: handlers }
}

test('a batch of datagrams is passed to the engine in one call, a full array at once', async () => {
  const stub = stubCore()
  const { handlers, driver } = await bench(stub)
  for (let i = 0; i < 6; i++) handlers.onDatagram(new Uint8Array(50 + i).fill(i), PEER)
  assert.equal(
    stub.calls.filter((call) => call.startsWith('handle_datagrams')),
    ['handle_datagrams 4'],
  )
  handlers.onBatchEnd()
  assert.equal(
    stub.seen.map((one) => [one.length, one.opened, one.port, one.first]),
    [0, 1, 2, 3, 4, 5].map((i) => [50 + i, true, 7000, i]),
  )
  handlers.onBatchEnd()
  assert.is(stub.calls.filter((call) => call.startsWith('handle_datagrams')).length, 2)
  driver.close()
})

test('MUST 12: for a datagram of more than 1500 bytes only the length is reported, one of 1500 is copied', async () => {
  const stub = stubCore()
  const { handlers, driver } = await bench(stub)
  handlers.onDatagram(new Uint8Array(1501).fill(9), PEER)
  handlers.onDatagram(new Uint8Array(1500).fill(8), PEER)
  handlers.onBatchEnd()
  assert.equal(stub.seen, [
    { length: 1501, opened: false, port: 7000, first: 0 },
    { length: 1500, opened: true, port: 7000, first: 8 },
  ])
  driver.close()
})

test("datagrams are received after the engine's memory has grown", async () => {
  const stub = stubCore()
  const { handlers, driver } = await bench(stub)
  stub.memory.grow(1)
  handlers.onDatagram(new Uint8Array(60).fill(3), PEER)
  handlers.onBatchEnd()
  assert.equal(stub.seen, [{ length: 60, opened: true, port: 7000, first: 3 }])
  driver.close()
})

test('the engine keeps its datagrams while no send buffer is free', async () => {
  const stub = stubCore()
  const { handlers, driver, sent, udp } = await bench(stub)
  // these use up the buffers acquired before
  stub.outgoing.push(...new Array(20).fill(1))
  udp.buffers = 3
  driver.pump()
  const first = sent.length / 2
  assert.ok(first > 0 && first < 20, `${first} sent`)
  driver.pump()
  assert.is(sent.length / 2, first)
  udp.buffers = 100
  handlers.onWritable()
  assert.is(sent.length / 2, 20)
  assert.is(stub.outgoing.length, 0)
  driver.close()
})

test('no timers are handled while the engine waits for send buffers', async () => {
  const stub = stubCore()
  const { handlers, driver, udp, sent } = await bench(stub)
  udp.buffers = 0
  // uses up the buffers acquired before
  stub.outgoing.push(...new Array(20).fill(1))
  stub.timeout = 0
  driver.pump()
  assert.ok(stub.outgoing.length > 0)
  assert.not.ok(stub.calls.includes('handle_timeout'))
  udp.buffers = 100
  handlers.onWritable()
  assert.ok(stub.calls.includes('handle_timeout'))
  assert.is(sent.length / 2, 20)
  driver.close()
})

test('random bytes are supplied when the engine requests them', async () => {
  const stub = stubCore()
  const { driver, sent } = await bench(stub)
  stub.thirst = 1
  stub.outgoing.push(5)
  driver.pump()
  assert.equal(sent, [5, 100])
  assert.is(stub.calls.filter((call) => call === 'entropy_filled').length, 1)
  driver.close()
})

test('MUST 40: TCP is paused while the engine has no room, and no data is lost', async () => {
  const stub = stubCore()
  const { driver, connection, tcp } = await accepted(stub)
  stub.room = 10
  const data = Uint8Array.from({ length: 30 }, (_, i) => i)
  tcp.onData(data)
  data.fill(0xff)
  tcp.onEnd()
  assert.equal(connection.actions, ['resume', 'pause'])
  assert.not.ok(stub.calls.includes('stream_shutdown 1'))
  stub.room = 15
  stub.events.push([EventType.WRITABLE, 1, 0])
  driver.pump()
  assert.is(stub.written.get(1)?.length, 25)
  assert.equal(connection.actions, ['resume', 'pause'])
  stub.room = 100
  stub.events.push([EventType.WRITABLE, 1, 0])
  driver.pump()
  assert.equal(
    stub.written.get(1),
    Array.from({ length: 30 }, (_, i) => i),
  )
  // FIN arrived meanwhile: it follows the last byte, and nothing more is read
  assert.is(stub.calls.at(-1), 'stream_shutdown 1')
  driver.close()
})

test('the bytes held by the host are reported to the engine when they change', async () => {
  const stub = stubCore()
  const { driver, tcp } = await accepted(stub)
  const reported = (): string[] => stub.calls.filter((call) => call.startsWith('set_host_bytes'))
  stub.room = 10
  tcp.onData(new Uint8Array(30))
  driver.pump()
  driver.pump()
  assert.equal(reported(), ['set_host_bytes 0 20'])
  // data already read by the runtime, and data queued on a connection
  tcp.onData(new Uint8Array(5))
  if (tcp.held) tcp.held.toTcp = 1000
  driver.pump()
  assert.equal(reported().slice(1), ['set_host_bytes 1000 25'])
  // reads cannot be undone: above a fraction of the ceiling they are not counted, or no more data would be accepted
  driver.streams.held.setCeiling(320)
  driver.pump()
  assert.equal(reported().slice(2), ['set_host_bytes 40 20'])
  stub.room = 100
  stub.events.push([EventType.WRITABLE, 1, 0])
  driver.pump()
  driver.pump()
  assert.equal(reported().slice(3), ['set_host_bytes 40 0'])
  driver.close()
})

test('bytes of a connection that breaks while the engine is full are no longer held', async () => {
  for (const end of ['error', 'reset', 'aborted', 'detached'] as const) {
    const stub = stubCore()
    const { driver, tcp } = await accepted(stub)
    stub.room = 10
    tcp.onData(new Uint8Array(30))
    driver.pump()
    assert.is(driver.streams.held.fromTcp, 20, end)
    if (end === 'error') tcp.onClose(new Error('ETIMEDOUT'))
    else if (end === 'reset') tcp.onReset?.()
    else stub.events.push([end === 'aborted' ? EventType.ABORT : EventType.DETACH, 1, 0])
    driver.pump()
    assert.is(driver.streams.held.fromTcp, 0, end)
    driver.close()
  }
})

test('the queue limit of a connection shrinks as the total of queued bytes grows', async () => {
  const stub = stubCore()
  const { driver } = await accepted(stub)
  const { held } = driver.streams
  held.setCeiling(8 * 1_000_000)
  assert.is(held.queueLimit, 262144)
  held.toTcp = 900_000
  assert.is(held.queueLimit, 50_000)
  held.toTcp = 5_000_000
  assert.is(held.queueLimit, 4096)
  driver.close()
})

test('TCP resumes when the engine has room again', async () => {
  const stub = stubCore()
  const { driver, connection, tcp } = await accepted(stub)
  stub.room = 0
  tcp.onData(new Uint8Array(5))
  stub.room = 100
  stub.events.push([EventType.WRITABLE, 1, 0])
  driver.pump()
  assert.equal(connection.actions, ['resume', 'pause', 'resume'])
  driver.close()
})

test('MUST 40: only bytes accepted by TCP are consumed; the rest follows on drain', async () => {
  const stub = stubCore()
  const { driver, connection, tcp } = await accepted(stub)
  const data = Uint8Array.from({ length: 10000 }, (_, i) => i & 0xff)
  stub.readable.set(1, data)
  connection.room = 5000
  stub.events.push([EventType.READABLE, 1, 0])
  driver.pump()
  assert.equal(connection.actions, ['resume', 'write 4096/4096', 'write 904/4096'])
  // more data has no effect while the socket is full
  stub.events.push([EventType.READABLE, 1, 0])
  driver.pump()
  assert.is(connection.bytes.length, 5000)
  connection.room = 100000
  tcp.onDrain()
  assert.equal(connection.bytes, [...data])
  driver.close()
})

test('several writes of one turn are drained once', async () => {
  const clock = new VirtualClock()
  const stub = stubCore()
  const { driver, tcp } = await accepted(stub, clock)
  await clock.settle()
  const before = driver.counts.drains
  assert.ok(before > 1, 'the drain of the accept')
  for (let i = 0; i < 50; i++) tcp.onData(new Uint8Array(10))
  assert.is(driver.counts.drains, before)
  await clock.settle()
  assert.is(driver.counts.drains, before + 1)
  driver.close()
})

test('EOF ends, DETACH closes, ABORT resets, and later events of a handle are ignored', async () => {
  const stub = stubCore()
  const { driver, connection, tcp } = await accepted(stub)
  stub.events.push([EventType.EOF, 1, 0], [EventType.DETACH, 1, 0], [EventType.ABORT, 1, 1], [EventType.READABLE, 1, 0])
  driver.pump()
  assert.equal(connection.actions, ['resume', 'end', 'close'])
  const calls = stub.calls.length
  tcp.onData(new Uint8Array(3))
  tcp.onEnd()
  tcp.onDrain()
  tcp.onClose()
  assert.is(stub.calls.length, calls)
  const other = new Recorder()
  driver.accept(other)
  stub.events.push([EventType.ABORT, 2, 1])
  driver.pump()
  assert.equal(other.actions, ['resume', 'reset'])
  assert.is(driver.streams.size, 0)
  driver.close()
})

test('a TCP error aborts the stream; a clean close does not', async () => {
  const stub = stubCore()
  const { driver, tcp } = await accepted(stub)
  tcp.onClose(new Error('ECONNRESET'))
  assert.ok(stub.calls.includes('stream_abort 1'))
  const other = driver.accept(new Recorder())
  assert.ok(other)
  other.onEnd()
  stub.events.push([EventType.EOF, 2, 0])
  driver.pump()
  other.onClose()
  assert.not.ok(stub.calls.includes('stream_abort 2'))
  assert.is(driver.streams.size, 1)
  stub.events.push([EventType.DETACH, 2, 0])
  driver.pump()
  assert.is(driver.streams.size, 0)
  driver.close()
})

test('MUST 33: DIAL connects to the target, and data and EOF wait for the connection', async () => {
  const stub = stubCore()
  const { driver, dials } = await bench(stub)
  stub.readable.set(9, new Uint8Array([1, 2, 3]))
  stub.events.push([EventType.DIAL, 9, 0], [EventType.READABLE, 9, 0], [EventType.EOF, 9, 0])
  driver.pump()
  const dial = dials[0]
  assert.ok(dial)
  assert.equal(dial.address, loopback(80))
  assert.equal(dial.connection.actions, [])
  dial.onOpen()
  assert.ok(stub.calls.includes('stream_connected 9 1'))
  assert.equal(dial.connection.actions, ['resume', 'write 3/3', 'end'])
  driver.close()
})

test('MUST 34: a refused dial is reported to the engine', async () => {
  const stub = stubCore()
  const { driver, dials, network } = await bench(stub)
  stub.events.push([EventType.DIAL, 9, 0])
  driver.pump()
  dials[0]?.handlers.onClose(new Error('ECONNREFUSED'))
  assert.ok(stub.calls.includes('stream_connected 9 0'))
  assert.is(driver.streams.size, 0)
  assert.match(network.printed.join(''), 'ECONNREFUSED')
  driver.close()
})

test('MUST 48: a connection is refused when the engine has no peer, no room or no memory, and the log says which', async () => {
  for (const [code, reason] of [
    [ErrorCode.NO_PEER, /refused.*no peer yet/],
    [ErrorCode.SESSIONS, /refused.*max_sessions/],
    [ErrorCode.MEMORY, /refused.*out of memory/],
    [-99, /refused.*engine error -99/],
  ] as const) {
    const { driver, network } = await bench(stubCore({ stream_open: () => code }))
    assert.is(driver.accept(new Recorder()), null)
    assert.match(network.printed.join(''), reason)
    driver.close()
  }
})

test('an unexpected error of a handler is logged and stops nothing', async () => {
  const stub = stubCore()
  const onUdpError = (): void => {
    throw new Error('handler gone mad')
  }
  const { driver, handlers, network, sent, fatal } = await bench(stub, { onUdpError })
  handlers.onError(Object.assign(new Error('send EIO'), { code: 'EIO' }))
  assert.match(network.printed.join(''), /unexpected error: .*handler gone mad/)
  stub.outgoing.push(3)
  driver.pump()
  assert.equal(sent, [3, 100])
  assert.is(fatal.length, 0)
  driver.close()
})

test('an exception in one stream ends only that stream', async () => {
  const stub = stubCore()
  const { driver, connection, network, fatal } = await accepted(stub)
  connection.write = () => {
    throw new Error('socket gone mad')
  }
  const other = new Recorder()
  driver.accept(other)
  stub.readable.set(1, new Uint8Array([1]))
  stub.readable.set(2, new Uint8Array([2]))
  stub.events.push([EventType.READABLE, 1, 0], [EventType.READABLE, 2, 0])
  driver.pump()
  assert.ok(stub.calls.includes('stream_abort 1'))
  assert.equal(connection.actions, ['resume', 'reset'])
  assert.equal(other.bytes, [2])
  assert.is(fatal.length, 0)
  assert.match(network.printed.join(''), 'socket gone mad')
  driver.close()
})

test('a deadline is handled when it is due and not before', async () => {
  const clock = new VirtualClock()
  const stub = stubCore()
  let due = Number.POSITIVE_INFINITY
  const { driver } = await bench(stub, {}, [], clock)
  const inTicks = (): number =>
    due === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.ceil((due - clock.monotonic()) * 8))
  Object.defineProperty(stub, 'timeout', { get: inTicks, set: () => {}, configurable: true })
  due = clock.monotonic() + 30
  driver.pump()
  const wakes = driver.counts.timerWakes
  await clock.advance(29)
  assert.not.ok(stub.calls.includes('handle_timeout'))
  await clock.advance(2)
  assert.ok(stub.calls.includes('handle_timeout'))
  due = Number.POSITIVE_INFINITY
  driver.pump()
  assert.ok(driver.counts.timerWakes - wakes <= 4, `${driver.counts.timerWakes - wakes} wakes for one deadline`)
  driver.close()
})

test('an idle engine arms no timer', async () => {
  const clock = new VirtualClock()
  const { driver } = await bench(stubCore(), {}, [], clock)
  await clock.settle()
  assert.is(clock.armed, 0)
  await clock.advance(3_600_000)
  assert.is(driver.counts.timerWakes, 0)
  driver.close()
})

test('a deadline that stays at 0 does not starve the event loop', async () => {
  const clock = new VirtualClock()
  const stub = stubCore({ handle_timeout: () => 0 })
  const { driver } = await bench(stub, {}, [], clock)
  stub.timeout = 0
  driver.pump()
  await clock.advance(50)
  assert.ok(driver.counts.timerWakes > 0)
  assert.ok(driver.counts.timerWakes <= 52, `${driver.counts.timerWakes} wakes in 50 ms`)
  driver.close()
})

test('socket errors are logged once a second and have no other effect', async () => {
  const stub = stubCore()
  const { driver, handlers, network } = await bench(stub)
  for (let i = 0; i < 100; i++) handlers.onError(new Error('ECONNREFUSED'))
  assert.is(network.printed.filter((line) => line.includes('udp: ECONNREFUSED')).length, 1)
  handlers.onDatagram(new Uint8Array(40), PEER)
  handlers.onBatchEnd()
  assert.is(stub.seen.length, 1)
  driver.close()
})

test('after ENOBUFS sending pauses, pending datagrams are kept and sent later', async () => {
  const stub = stubCore()
  const { driver, handlers, sent } = await bench(stub)
  handlers.onError(Object.assign(new Error('send ENOBUFS'), { code: 'ENOBUFS' }))
  stub.outgoing.push(1, 2)
  driver.pump()
  assert.equal(sent, [])
  assert.equal(stub.outgoing, [1, 2])
  await until(() => sent.length > 0, 'sending resumes')
  assert.equal(sent, [1, 100, 2, 100])
  handlers.onError(Object.assign(new Error('send EHOSTUNREACH'), { code: 'EHOSTUNREACH' }))
  stub.outgoing.push(3)
  driver.pump()
  assert.equal(sent.slice(4), [3, 100], 'a hint changes nothing')
  driver.close()
})

test('a datagram that is too long for the system is reported with the length of the longest', async () => {
  const stub = stubCore()
  const { driver, handlers, network } = await bench(stub)
  stub.outgoing.push(5)
  driver.pump()
  handlers.onError(Object.assign(new Error('send EMSGSIZE'), { code: 'EMSGSIZE' }))
  assert.match(network.printed.join(''), /EMSGSIZE.* 100 bytes/)
  driver.close()
})

test('a closed driver has wiped the secret of its nonces', async () => {
  const { driver, secret } = await bench(stubCore())
  const zeroes = '0'.repeat(32)
  assert.is.not(secret.part(1).key, zeroes)
  driver.close()
  assert.is(secret.part(1).key, zeroes)
})

/** Batches passed to the engine. */
const batches = (stub: StubCore): string[] => stub.calls.filter((call) => call.startsWith('handle_datagrams'))

test('datagrams wait for the time that the engine allows and are passed to it at once; a full array is not held', async () => {
  const clock = new VirtualClock()
  const stub = stubCore()
  const { handlers, driver } = await bench(stub, {}, [], clock)
  stub.delay = 20
  const arrive = (): void => {
    handlers.onDatagram(new Uint8Array(50), PEER)
    handlers.onBatchEnd()
  }
  arrive()
  assert.equal(batches(stub), ['handle_datagrams 1'])
  arrive()
  arrive()
  await clock.advance(1)
  assert.equal(batches(stub), ['handle_datagrams 1'])
  // 20 ticks are 2.5 ms
  await clock.advance(1)
  assert.equal(batches(stub).slice(1), ['handle_datagrams 2'])
  for (let i = 0; i < 4; i++) arrive()
  assert.equal(batches(stub).slice(2), ['handle_datagrams 4'])
  arrive()
  driver.pump()
  assert.equal(batches(stub).slice(3), ['handle_datagrams 1'], 'any other drain collects what waits')
  stub.delay = 0
  driver.pump()
  arrive()
  assert.equal(batches(stub).slice(4), ['handle_datagrams 1'])
  driver.close()
})

test('a socket that can is held until the next drain, which collects, and released with the delay', async () => {
  const clock = new VirtualClock()
  const stub = stubCore()
  const { handlers, driver, udp } = await bench(stub, {}, [], clock)
  const calls: string[] = []
  Object.assign(udp.methods, {
    hold: (isHeld: boolean) => calls.push(`hold ${isHeld}`),
    collect() {
      calls.push('collect')
      handlers.onDatagram(new Uint8Array(50), PEER)
      handlers.onBatchEnd()
    },
  })
  stub.delay = 16
  driver.pump()
  await clock.advance(2)
  await clock.advance(2)
  assert.equal(calls, ['hold true', 'collect', 'collect'])
  assert.equal(batches(stub), ['handle_datagrams 1', 'handle_datagrams 1'])
  stub.delay = 0
  await clock.advance(2)
  assert.equal(calls.slice(3), ['collect', 'hold false'])
  const wakes = driver.counts.timerWakes
  await clock.advance(1000)
  assert.is(driver.counts.timerWakes, wakes)
  driver.close()
})

test('a deadline is met later by the slack that the engine allows', async () => {
  const clock = new VirtualClock()
  const stub = stubCore()
  const { driver } = await bench(stub, {}, [], clock)
  stub.timeout = 8
  stub.slack = 12
  driver.pump()
  await clock.advance(2)
  assert.is(driver.counts.timerWakes, 0)
  await clock.advance(1)
  assert.is(driver.counts.timerWakes, 1)
  driver.close()
})

test('datagrams are not held while the engine waits for send buffers', async () => {
  const stub = stubCore()
  const { handlers, driver, udp } = await bench(stub)
  stub.delay = 40
  driver.pump()
  stub.outgoing.push(...new Array(20).fill(1))
  udp.buffers = 0
  driver.pump()
  handlers.onDatagram(new Uint8Array(50), PEER)
  handlers.onBatchEnd()
  assert.equal(batches(stub), ['handle_datagrams 1'])
  driver.close()
})

test.run()
