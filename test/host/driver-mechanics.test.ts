/** The driver's loop around an engine made of strings and wire: batches, back-pressure, timers, and what happens when things throw. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { ConfigField, EventType, NonceStrategy } from '../../host/core.ts'
import { Driver, type DriverOptions } from '../../host/driver.ts'
import { Engine } from '../../host/engine/engine.ts'
import { EndpointSecret } from '../../host/engine/secret.ts'
import { coreConfig } from '../../host/engine-config.ts'
import { LOG_INFO, Log } from '../../host/log.ts'
import type { Runtime, SocketAddress, TcpConnection, TcpHandlers, UdpHandlers } from '../../host/runtime.ts'
import { loopback, MemoryNetwork, until } from './memory-runtime.ts'
import { type StubCore, stubCore } from './stub-core.ts'

const test = suite('driver mechanics')

const PEER = loopback(7000)
const TCP = { nodelay: true, keepalive: false }

/** A TCP connection that records what is done to it. */
class Recorder implements TcpConnection {
  readonly remote = undefined
  readonly actions: string[] = []
  readonly bytes: number[] = []
  /** Bytes it still takes. */
  room = Number.POSITIVE_INFINITY
  #buffer = new Uint8Array(65536)
  writeBuffer(): Uint8Array {
    return this.#buffer
  }
  write(buffer: Uint8Array, length: number): number {
    const taken = Math.min(length, this.room)
    this.room -= taken
    this.bytes.push(...buffer.subarray(0, taken))
    this.actions.push(`write ${taken}/${length}`)
    return taken
  }
  pause(): void {
    this.actions.push('pause')
  }
  resume(): void {
    this.actions.push('resume')
  }
  end(): void {
    this.actions.push('end')
  }
  reset(): void {
    this.actions.push('reset')
  }
  close(): void {
    this.actions.push('close')
  }
}

/** A driver on a stub, and on the `next` ones after traps, with a UDP socket whose buffers can run out. */
async function bench(stub: StubCore, changes: Partial<DriverOptions> = {}, next: StubCore[] = []) {
  const network = new MemoryNetwork()
  const sent: number[] = []
  const udp: { handlers?: UdpHandlers; buffers: number; flushes: number; closed: boolean } = {
    buffers: Number.POSITIVE_INFINITY,
    flushes: 0,
    closed: false,
  }
  const dials: { address: SocketAddress; handlers: TcpHandlers; onOpen: () => void; connection: Recorder }[] = []
  const memory = network.runtime()
  const runtime: Runtime = {
    name: 'node',
    version: 'stub',
    monotonic: () => memory.monotonic(),
    cpuTime: () => 0,
    resolve: (host) => memory.resolve(host),
    openUdp: async (options, handlers) => {
      udp.handlers = handlers
      return {
        local: options.bind,
        acquire: () => (udp.buffers-- > 0 ? new Uint8Array(1500) : null),
        send: (buffer, length) => void sent.push(buffer[0] ?? 0, length),
        flush: () => void udp.flushes++,
        close: () => {
          udp.closed = true
        },
      }
    },
    listenTcp: (...args) => memory.listenTcp(...args),
    dialTcp: (address, _options, handlers, onOpen) => {
      const connection = new Recorder()
      dials.push({ address, handlers, onOpen, connection })
      return connection
    },
    serveHttp: (...args) => memory.serveHttp(...args),
    onTerminate: () => {},
    onReload: () => {},
    readFile: (path) => memory.readFile(path),
    print: (stream, text) => memory.print(stream, text),
    exit: (status) => memory.exit(status),
  }
  const fatal: Error[] = []
  const stubs = [stub, ...next]
  const engine = new Engine(
    () => {
      const [one] = stubs.splice(0, 1)
      if (one === undefined) throw new WebAssembly.RuntimeError('no engine left')
      return one.core
    },
    new EndpointSecret(),
    () => runtime.monotonic(),
  )
  const log = new Log((stream, text) => memory.print(stream, text))
  log.setLevel(LOG_INFO)
  const driver = new Driver({
    runtime,
    engine,
    aead: undefined,
    log,
    tcp: TCP,
    target: () => loopback(80),
    onResolve: () => {},
    onFatal: (error) => fatal.push(error),
    ...changes,
  })
  await driver.openUdp({ bind: loopback(1000) })
  assert.ok(udp.handlers)
  return { driver, network, sent, udp, handlers: udp.handlers, dials, fatal }
}

/** A driver with one accepted connection, handle 1. */
async function accepted(stub: StubCore) {
  const all = await bench(stub)
  const connection = new Recorder()
  const handlers = all.driver.accept(connection)
  assert.ok(handlers)
  return { ...all, connection, tcp: handlers }
}

test('a batch of datagrams goes to the engine in one call, a full array at once', async () => {
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

test('MUST 12: a datagram of more than 1500 bytes is reported by its length alone, one of 1500 is copied', async () => {
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

test('datagrams are received after the memory of the engine has grown', async () => {
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
  // the buffers taken before are used up by these
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

test('no timers are served while the engine waits for send buffers', async () => {
  const stub = stubCore()
  const { handlers, driver, udp, sent } = await bench(stub)
  udp.buffers = 0
  // uses up the buffers taken before
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

test('random bytes are filled in when the engine asks', async () => {
  const stub = stubCore()
  const { driver, sent } = await bench(stub)
  stub.thirst = 1
  stub.outgoing.push(5)
  driver.pump()
  assert.equal(sent, [5, 100])
  assert.is(stub.calls.filter((call) => call === 'entropy_filled').length, 1)
  driver.close()
})

test('MUST 40: TCP is paused while the engine has no room, and nothing is lost', async () => {
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
  // FIN came meanwhile: it follows the last byte, and there is nothing more to read
  assert.is(stub.calls.at(-1), 'stream_shutdown 1')
  driver.close()
})

test('the engine is told what its host holds, when that changed', async () => {
  const stub = stubCore()
  const { driver, tcp } = await accepted(stub)
  const told = (): string[] => stub.calls.filter((call) => call.startsWith('set_host_bytes'))
  stub.room = 10
  tcp.onData(new Uint8Array(30))
  driver.pump()
  driver.pump()
  assert.equal(told(), ['set_host_bytes 0 20'])
  // data that the runtime had in hand, and what a connection has queued
  tcp.onData(new Uint8Array(5))
  if (tcp.held) tcp.held.toTcp = 1000
  driver.pump()
  assert.equal(told().slice(1), ['set_host_bytes 1000 25'])
  stub.room = 100
  stub.events.push([EventType.WRITABLE, 1, 0])
  driver.pump()
  driver.pump()
  assert.equal(told().slice(2), ['set_host_bytes 1000 0'])
  driver.close()
})

test('a connection is offered less while others have much queued', async () => {
  const stub = stubCore()
  const { driver, tcp } = await accepted(stub)
  const { held } = tcp
  if (!held) throw new Error('nothing is counted')
  held.setCeiling(8 * 1_000_000)
  assert.is(held.queueLimit, 262144)
  held.toTcp = 900_000
  assert.is(held.queueLimit, 50_000)
  held.toTcp = 5_000_000
  assert.is(held.queueLimit, 4096)
  driver.close()
})

test('TCP goes on when the engine has room again', async () => {
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

test('MUST 40: only what TCP took is consumed; the rest follows when it drains', async () => {
  const stub = stubCore()
  const { driver, connection, tcp } = await accepted(stub)
  const data = Uint8Array.from({ length: 10000 }, (_, i) => i & 0xff)
  stub.readable.set(1, data)
  connection.room = 5000
  stub.events.push([EventType.READABLE, 1, 0])
  driver.pump()
  assert.equal(connection.actions, ['resume', 'write 4096/4096', 'write 904/4096'])
  // more data changes nothing as long as the socket is full
  stub.events.push([EventType.READABLE, 1, 0])
  driver.pump()
  assert.is(connection.bytes.length, 5000)
  connection.room = 100000
  tcp.onDrain()
  assert.equal(connection.bytes, [...data])
  driver.close()
})

test('several writes of one turn are drained once', async () => {
  const stub = stubCore()
  const { driver, tcp } = await accepted(stub)
  await until(() => driver.counts.drains > 1, 'the drain of the accept')
  const before = driver.counts.drains
  for (let i = 0; i < 50; i++) tcp.onData(new Uint8Array(10))
  assert.is(driver.counts.drains, before)
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.is(driver.counts.drains, before + 1)
  driver.close()
})

test('EOF ends, DETACH closes, ABORT resets, and later events of a handle do nothing', async () => {
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

test('MUST 33: DIAL leads to the target, data and EOF wait for the connection', async () => {
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

test('MUST 48: a connection is refused when the engine has no peer', async () => {
  const stub = stubCore({ stream_open: () => -3 })
  const { driver, network } = await bench(stub)
  assert.is(driver.accept(new Recorder()), null)
  assert.match(network.printed.join(''), 'no peer yet')
  driver.close()
})

test('a stream that throws ends alone', async () => {
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

const TRAP = (): never => {
  throw new WebAssembly.RuntimeError('unreachable')
}

test('a trap of the engine resets every connection, once, and the next engine gets socket and listener', async () => {
  const stub = stubCore({ stream_consume: TRAP })
  const fresh = stubCore()
  const { driver, handlers, udp, fatal, network, sent } = await bench(stub, {}, [fresh])
  const connection = new Recorder()
  const tcp = driver.accept(connection)
  const other = new Recorder()
  driver.accept(other)
  assert.ok(tcp)
  stub.readable.set(1, new Uint8Array([1]))
  stub.events.push([EventType.READABLE, 1, 0], [EventType.READABLE, 2, 0])
  driver.pump()
  assert.is(connection.actions.at(-1), 'reset')
  assert.is(other.actions.at(-1), 'reset')
  assert.match(network.printed.join(''), 'the engine trapped: unreachable; 2 streams lost')
  // nobody touches the broken engine again
  const calls = stub.calls.length
  handlers.onDatagram(new Uint8Array(10), PEER)
  handlers.onBatchEnd()
  handlers.onWritable()
  tcp.onData(new Uint8Array(10))
  tcp.onClose(new Error('x'))
  driver.pump()
  driver.setPeer(PEER)
  assert.is(driver.accept(new Recorder()), null)
  await until(() => !driver.dead, 'the next engine')
  assert.is(stub.calls.length, calls)
  assert.is(driver.complaints.counters.engine_traps, 1)
  assert.is(fatal.length, 0)
  assert.is(udp.closed, false)
  // handles begin anew, and events of old ones find nobody
  const next = new Recorder()
  assert.ok(driver.accept(next))
  tcp.onData(new Uint8Array(10))
  tcp.onClose(new Error('x'))
  fresh.outgoing.push(7)
  fresh.events.push([EventType.EOF, 1, 0])
  handlers.onDatagram(new Uint8Array(60).fill(3), PEER)
  handlers.onBatchEnd()
  assert.equal(next.actions, ['resume', 'end'])
  assert.equal(fresh.seen, [{ length: 60, opened: true, port: 7000, first: 3 }])
  assert.equal(sent, [7, 100])
  driver.close()
  assert.ok(udp.closed)
})

test('the next engine is told what the one before was, also what came while there was none', async () => {
  const stub = stubCore({ ping_peer: TRAP })
  const fresh = stubCore()
  const { driver } = await bench(stub, {}, [fresh])
  const config = coreConfig(parseConfig(new TextEncoder().encode('{"listen":":1","kcp_connect":":2"}')), undefined, 4)
  driver.start(config)
  driver.setPeer(loopback(7001))
  driver.setRendezvous(loopback(7002), loopback(7003), new Uint8Array([9, 8]))
  driver.pingPeer()
  assert.ok(driver.dead)
  driver.reconfigure({ ...config, keepalive: 77 })
  driver.setPeer(loopback(7004))
  await until(() => !driver.dead, 'the next engine')
  const order = ['entropy_filled', 'configure', 'set_peer', 'set_rendezvous']
  assert.equal(
    fresh.calls.filter((call) => order.includes(call)),
    order,
  )
  const { calls, u8, u32 } = fresh.core
  assert.is(u32[(calls.config_ptr() >>> 2) + ConfigField.keepalive], 77)
  const port = (ptr: number): number => (u32[ptr >>> 2] ?? 0) >>> 16
  assert.equal([calls.peer_ptr(), calls.rendezvous_ptr(), calls.local_ptr()].map(port), [7004, 7002, 7003])
  assert.equal([...u8.subarray(calls.service_ptr(), calls.service_ptr() + 2)], [9, 8])
  driver.close()
})

test('datagrams that the broken engine has not seen are no datagrams of the next', async () => {
  const stub = stubCore({ stream_open: TRAP })
  const fresh = stubCore()
  const { driver, handlers } = await bench(stub, {}, [fresh])
  handlers.onDatagram(new Uint8Array(50), PEER)
  assert.is(driver.accept(new Recorder()), null)
  await until(() => !driver.dead, 'the next engine')
  handlers.onBatchEnd()
  assert.equal(fresh.seen, [])
  driver.close()
})

test('deadlines of the next engine are served, those of the broken one are not', async () => {
  const stub = stubCore({ stream_open: TRAP })
  const fresh = stubCore()
  const { driver } = await bench(stub, {}, [fresh])
  stub.timeout = 80
  driver.pump()
  fresh.timeout = 40
  driver.accept(new Recorder())
  const calls = stub.calls.length
  await until(() => driver.counts.timerWakes > 0, 'a timer')
  assert.is(stub.calls.length, calls)
  fresh.timeout = 0
  driver.pump()
  assert.ok(fresh.calls.includes('handle_timeout'))
  driver.close()
})

test('send buffers that ran out before a trap are asked for again after it', async () => {
  const stub = stubCore({ stream_open: TRAP })
  const fresh = stubCore()
  const { driver, udp, sent } = await bench(stub, {}, [fresh])
  udp.buffers = 0
  stub.outgoing.push(...new Array(20).fill(1))
  driver.pump()
  const before = sent.length
  driver.accept(new Recorder())
  udp.buffers = 100
  fresh.outgoing.push(5)
  await until(() => sent.length > before, 'the next engine sends')
  assert.equal(sent.slice(before), [5, 100])
  driver.close()
})

test('three traps within a minute are the end: sockets are closed, and the owner is told once', async () => {
  const broken = () => stubCore({ stream_open: TRAP })
  const { driver, udp, fatal } = await bench(broken(), {}, [broken(), broken(), broken()])
  for (const n of [1, 2, 3]) {
    assert.is(fatal.length, 0)
    driver.accept(new Recorder())
    assert.is(udp.closed, n === 3)
    if (n < 3) await until(() => !driver.dead, 'the next engine')
  }
  assert.is(fatal.length, 1)
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.ok(driver.dead)
  assert.is(fatal.length, 1)
})

/** Runs something with a wall clock that the test moves by ms. */
async function withWallClock(body: (move: (ms: number) => void) => Promise<void>): Promise<void> {
  const { now } = Date
  let ahead = 0
  Date.now = () => now() + ahead
  try {
    await body((ms) => {
      ahead += ms
    })
  } finally {
    Date.now = now
  }
}

test('after a jump of the wall clock all randomness is drawn anew before anything is sent, once', async () => {
  await withWallClock(async (move) => {
    const stub = stubCore()
    const { driver, network, sent } = await bench(stub)
    const config = coreConfig(parseConfig(new TextEncoder().encode('{"listen":":1","kcp_connect":":2"}')), undefined, 4)
    driver.start({ ...config, nonceStrategy: NonceStrategy.COUNTER })
    const later = (jumps: number): string[] => {
      stub.calls.length = 0
      network.clockAhead += 1500
      // the wall clock goes along
      move(1500)
      stub.outgoing.push(1)
      driver.pump()
      assert.is(network.printed.filter((line) => line.includes('the clock jumped')).length, jumps)
      return stub.calls.filter((call) => /entropy|nonce|transmit/.test(call))
    }
    assert.equal(later(0), ['poll_transmit 1'])
    move(3_600_000)
    assert.equal(later(1), ['entropy_filled', 'renew_nonce', 'poll_transmit 1'])
    assert.equal(later(1), ['poll_transmit 1'])
    assert.is(sent.length, 6)
    driver.close()
  })
})

test('a deadline is served, and not before it is due', async () => {
  const stub = stubCore()
  let due = Number.POSITIVE_INFINITY
  const { driver } = await bench(stub, {})
  const inTicks = (): number =>
    due === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.ceil((due - performance.now()) * 8))
  Object.defineProperty(stub, 'timeout', { get: inTicks, set: () => {}, configurable: true })
  let served = 0
  const calls = stub.calls
  due = performance.now() + 30
  driver.pump()
  const wakes = driver.counts.timerWakes
  while (!calls.includes('handle_timeout')) await new Promise((resolve) => setTimeout(resolve, 1))
  served = performance.now()
  assert.ok(served >= due, `${served} < ${due}`)
  due = Number.POSITIVE_INFINITY
  driver.pump()
  assert.ok(driver.counts.timerWakes - wakes <= 4, `${driver.counts.timerWakes - wakes} wakes for one deadline`)
  driver.close()
})

test('an idle engine arms no timer', async () => {
  const stub = stubCore()
  const { driver } = await bench(stub)
  await new Promise((resolve) => setTimeout(resolve, 30))
  assert.is(driver.counts.timerWakes, 0)
  driver.close()
})

test('a deadline that stays at 0 does not starve the event loop', async () => {
  const stub = stubCore({ handle_timeout: () => 0 })
  const { driver } = await bench(stub)
  stub.timeout = 0
  driver.pump()
  const start = performance.now()
  await new Promise((resolve) => setTimeout(resolve, 50))
  const elapsed = performance.now() - start
  assert.ok(driver.counts.timerWakes <= elapsed + 2, `${driver.counts.timerWakes} wakes in ${elapsed} ms`)
  driver.close()
})

test('socket errors are logged once a second and change nothing', async () => {
  const stub = stubCore()
  const { driver, handlers, network } = await bench(stub)
  for (let i = 0; i < 100; i++) handlers.onError(new Error('ECONNREFUSED'))
  assert.is(network.printed.filter((line) => line.includes('udp: ECONNREFUSED')).length, 1)
  handlers.onDatagram(new Uint8Array(40), PEER)
  handlers.onBatchEnd()
  assert.is(stub.seen.length, 1)
  driver.close()
})

test('after ENOBUFS sending pauses a moment, what waits is kept and goes out by itself', async () => {
  const stub = stubCore()
  const { driver, handlers, sent } = await bench(stub)
  handlers.onError(Object.assign(new Error('send ENOBUFS'), { code: 'ENOBUFS' }))
  stub.outgoing.push(1, 2)
  driver.pump()
  assert.equal(sent, [])
  assert.equal(stub.outgoing, [1, 2])
  await until(() => sent.length > 0, 'it goes on')
  assert.equal(sent, [1, 100, 2, 100])
  handlers.onError(Object.assign(new Error('send EHOSTUNREACH'), { code: 'EHOSTUNREACH' }))
  stub.outgoing.push(3)
  driver.pump()
  assert.equal(sent.slice(4), [3, 100], 'a hint changes nothing')
  driver.close()
})

test.run()
