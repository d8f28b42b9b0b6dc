/** Flows of datagrams in virtual time: frames, the queue that drops the oldest, limits and timeouts. */
import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { DatagramQueue } from '../../host/datagrams/datagram-queue.ts'
import { UdpEntrance } from '../../host/datagrams/entrance.ts'
import { FLOWS_MAX, FlowTable } from '../../host/datagrams/flow-table.ts'
import { FrameReader, LENGTH_BYTES, writeLength } from '../../host/datagrams/frames.ts'
import { NO_HOST_COUNTERS } from '../../host/driver/diagnostics.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, UdpHandlers, UdpSocket } from '../../host/runtime.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const test = suite('datagrams')

function frameOf(data: Uint8Array): Uint8Array {
  const frame = new Uint8Array(LENGTH_BYTES + data.length)
  writeLength(frame, 0, data.length)
  frame.set(data, LENGTH_BYTES)
  return frame
}

const text = (data: Uint8Array): string => new TextDecoder().decode(data)
const bytes = (letters: string): Uint8Array => new TextEncoder().encode(letters)

/** The datagrams in a stream of bytes. */
class Reading {
  readonly found: string[] = []
  readonly reader = new FrameReader()

  take(chunk: Uint8Array): void {
    this.reader.take(chunk, chunk.length, (memory, start, length) => {
      this.found.push(text(memory.slice(start, start + length)))
    })
  }
}

test('datagrams are found wherever the stream is divided, and a stream that ends within one is noticed', () => {
  const lengths = fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.constantFrom(2046, 2047, 5000, 65507)), {
    maxLength: 8,
  })
  fc.assert(
    fc.property(lengths, fc.array(fc.integer({ min: 1, max: 5000 }), { maxLength: 60 }), (all, cuts) => {
      const sent = all.map((length, index) => String.fromCharCode(97 + index).repeat(length))
      const stream = sent.flatMap((one) => [...frameOf(bytes(one))])
      const whole = Uint8Array.from(stream)
      const reading = new Reading()
      let at = 0
      for (const cut of [...cuts, whole.length]) {
        const chunk = whole.slice(at, at + cut)
        at += chunk.length
        reading.take(chunk)
      }
      assert.equal(reading.found, sent)
      assert.not(reading.reader.isWithin)
      reading.take(Uint8Array.of(0))
      assert.ok(reading.reader.isWithin)
    }),
    { numRuns: 200 },
  )
})

test('the queue keeps the newest datagrams in order, within 128 KiB and 1024', () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 0, max: 3000 }) },
    { weight: 1, arbitrary: fc.constantFrom(65507, 60_000, 0) },
    { weight: 4, arbitrary: fc.constant('take' as const) },
    { weight: 1, arbitrary: fc.constant('expire' as const) },
  )
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 300 }), (steps) => {
      const queue = new DatagramQueue()
      let model: { data: Uint8Array; at: number }[] = []
      let now = 0
      for (const one of steps) {
        now++
        if (one === 'take') {
          const [first, ...rest] = model
          assert.is(queue.isEmpty, first === undefined)
          if (first === undefined) continue
          assert.equal(queue.take(), frameOf(first.data))
          model = rest
        } else if (one === 'expire') {
          const before = now - 5
          assert.is(queue.expire(before), model.filter(({ at }) => at < before).length)
          model = model.filter(({ at }) => at >= before)
        } else {
          const data = new Uint8Array(one).fill(now & 0xff)
          const dropped = queue.put(data, now)
          assert.ok(dropped <= model.length)
          model = [...model.slice(dropped), { data, at: now }]
          const held = model.reduce((sum, { data: { length } }) => sum + LENGTH_BYTES + length, 0)
          assert.ok(held <= 131072)
          // no more is dropped than room requires: frames are not divided
          const isSmall = steps.every((other) => typeof other === 'string' || other <= 3000)
          if (dropped > 0 && isSmall) assert.ok(held > 131072 - 3 * 3002, `${dropped} dropped with ${held} bytes`)
        }
      }
    }),
    { numRuns: 300 },
  )
  const many = new DatagramQueue()
  for (let number = 0; number < 1024; number++) assert.is(many.put(new Uint8Array(1), number), 0)
  assert.is(many.put(new Uint8Array(1), 1024), 1)
})

/** The stream of a flow: what the driver and the engine do with it. */
class Stream {
  readonly connection: TcpConnection
  readonly reading = new Reading()
  ending = ''
  readonly handlers: TcpHandlers = {
    onData: (chunk) => this.reading.take(chunk),
    onEnd: () => this.#ends('end '),
    onDrain() {},
    onClose: () => this.#ends('close '),
    onReset: () => this.#ends('reset '),
  }

  constructor(connection: TcpConnection) {
    this.connection = connection
  }

  #ends(how: string): void {
    this.ending += how
  }

  answer(...datagrams: string[]): void {
    const buffer = this.connection.writeBuffer()
    let length = 0
    for (const one of datagrams) {
      buffer.set(frameOf(bytes(one)), length)
      length += LENGTH_BYTES + one.length
    }
    assert.is(this.connection.write(buffer, length), length)
  }
}

interface Sent {
  readonly data: string
  readonly to: SocketAddress
}

/** A UDP port with its flows. Streams open at once unless `isSlow`. */
class Scene {
  readonly clock = new VirtualClock()
  readonly counters = { ...NO_HOST_COUNTERS }
  readonly streams: Stream[] = []
  readonly sent: Sent[] = []
  timeout = 120
  isSlow = false
  isRefused = false
  #handlers: UdpHandlers | undefined
  readonly entrance: UdpEntrance

  constructor() {
    const log = new Log(
      () => {},
      () => new Date(this.clock.wall()),
      () => () => {},
    )
    const { clock, counters } = this
    const table = new FlowTable({ clock, log, counters, timeout: () => this.timeout })
    const local = { family: 4, address: '127.0.0.1', port: 53, scope: 0 } as const
    const socket: UdpSocket = {
      local,
      acquire: () => new Uint8Array(1536),
      send: (buffer, length, to) => void this.sent.push({ data: text(buffer.slice(0, length)), to }),
      flush() {},
      close() {},
    }
    const runtime = {
      clock,
      resolve: async () => [local],
      openUdp: async (_: unknown, handlers: UdpHandlers) => {
        this.#handlers = handlers
        return socket
      },
    } as unknown as Runtime
    const accept = (connection: TcpConnection): TcpHandlers | null => {
      if (this.isRefused) return null
      const stream = new Stream(connection)
      this.streams.push(stream)
      if (!this.isSlow) connection.resume()
      return stream.handlers
    }
    this.entrance = new UdpEntrance({ runtime, log, table, path: 'portable', accept, onChange() {} }, '127.0.0.1:53')
  }

  static async open(): Promise<Scene> {
    const scene = new Scene()
    await scene.entrance.open()
    return scene
  }

  /** A datagram of a source. */
  send(data: string, port: number, address = '127.0.0.1'): void {
    this.#handlers?.onDatagram(bytes(data), { family: 4, address, port, scope: 0 })
  }

  async later(ms: number): Promise<void> {
    await this.clock.advance(ms)
  }

  stream(number: number): Stream {
    const stream = this.streams[number]
    assert.ok(stream, `stream ${number}`)
    return stream as Stream
  }
}

test('each source has a stream, and answers go to their source', async () => {
  const scene = await Scene.open()
  scene.send('a1', 1)
  scene.send('b1', 2)
  scene.send('', 1)
  scene.send('a2', 1)
  await scene.clock.settle()
  assert.equal(
    scene.streams.map(({ reading }) => reading.found),
    [['a1', '', 'a2'], ['b1']],
  )
  scene.stream(1).answer('x', '')
  scene.stream(0).answer('y')
  assert.equal(
    scene.sent.map(({ data, to }) => [data, to.port]),
    [
      ['x', 2],
      ['', 2],
      ['y', 1],
    ],
  )
  assert.is(scene.counters.flows, 2)
  assert.is(scene.counters.flow_datagrams_in, 4)
  assert.is(scene.counters.flow_datagrams_out, 3)
})

test('what waits for the stream is dropped after 250 ms, or from the front where 128 KiB wait', async () => {
  const scene = await Scene.open()
  scene.send('first', 1)
  await scene.clock.settle()
  const { connection, reading } = scene.stream(0)
  connection.pause()
  scene.send('old', 1)
  await scene.later(200)
  scene.send('new', 1)
  await scene.later(100)
  connection.resume()
  await scene.clock.settle()
  assert.equal(reading.found, ['first', 'new'])
  assert.is(scene.counters.flow_drops_queue, 1)
  connection.pause()
  for (let number = 0; number < 200; number++) scene.send(String(number).padEnd(1000), 1)
  connection.resume()
  await scene.clock.settle()
  const numbers = reading.found.slice(2).map(Number)
  assert.equal(
    numbers,
    Array.from({ length: numbers.length }, (_, index) => 200 - numbers.length + index),
  )
  assert.ok(numbers.length >= 127 && numbers.length <= 130, `${numbers.length}`)
  assert.is(scene.counters.flow_drops_queue, 1 + 200 - numbers.length)
})

test('until the stream is open, datagrams wait for up to 3 s', async () => {
  const scene = await Scene.open()
  scene.isSlow = true
  scene.send('one', 1)
  await scene.later(2500)
  scene.send('two', 1)
  await scene.later(1000)
  scene.stream(0).connection.resume()
  await scene.clock.settle()
  assert.equal(scene.stream(0).reading.found, ['two'])
})

test('a question with its answer ends after 10 s, without one after 30 s, others after udp_timeout', async () => {
  const scene = await Scene.open()
  for (const port of [1, 2, 3, 4]) scene.send('?', port)
  scene.stream(0).answer('!')
  scene.stream(2).answer('!', '!')
  scene.send('?', 4)
  await scene.later(9000)
  assert.equal(
    scene.streams.map(({ ending }) => ending),
    ['', '', '', ''],
  )
  await scene.later(3000)
  assert.equal(
    scene.streams.map(({ ending }) => ending),
    ['end ', '', '', ''],
  )
  await scene.later(20_000)
  assert.equal(
    scene.streams.map(({ ending }) => ending),
    ['end reset ', 'end ', '', ''],
  )
  scene.send('?', 3)
  await scene.later(90_000)
  assert.equal(
    scene.streams.map(({ ending }) => ending),
    ['end reset ', 'end reset ', '', 'end '],
  )
  // a source that ended begins anew
  scene.send('again', 1)
  await scene.clock.settle()
  assert.equal(scene.stream(4).reading.found, ['again'])
  await scene.later(300_000)
  assert.is(scene.counters.flows, 0)
  assert.is(scene.clock.armed, 0)
})

test('the peer ends or resets a stream: the flow is over, and the next datagram begins another', async () => {
  const scene = await Scene.open()
  scene.send('a', 1)
  scene.send('b', 2)
  await scene.clock.settle()
  scene.stream(0).answer('half')
  const [first, second] = [scene.stream(0), scene.stream(1)]
  const buffer = second.connection.writeBuffer()
  buffer.set([0, 9, 65])
  second.connection.write(buffer, 3)
  first.connection.end()
  second.connection.reset('the peer sent RESET')
  await scene.clock.settle()
  assert.is(first.ending, 'end close ')
  assert.is(second.ending, '')
  assert.is(scene.counters.flow_drops_cut, 1)
  assert.is(scene.counters.flows, 0)
  scene.send('a', 1)
  scene.send('b', 2)
  await scene.clock.settle()
  assert.equal(
    scene.streams.map(({ reading }) => reading.found),
    [['a'], ['b'], ['a'], ['b']],
  )
})

test('a source without a stream is dropped and counted, and tries again with its next datagram', async () => {
  const scene = await Scene.open()
  scene.isRefused = true
  scene.send('lost', 1)
  scene.isRefused = false
  scene.send('arrives', 1)
  await scene.clock.settle()
  assert.is(scene.counters.flows_refused, 1)
  assert.equal(scene.stream(0).reading.found, ['arrives'])
})

test('strangers push out questions that are over, but no flow that is in use', async () => {
  const scene = await Scene.open()
  const used = 100
  const addresses = ['10.0.0.1', '10.0.0.2', '10.0.0.3']
  for (let port = 1; port <= used; port++) {
    scene.send('1', port)
    scene.send('2', port)
  }
  // one address does not take more than half
  for (let port = 1; port <= FLOWS_MAX; port++) scene.send('?', port, addresses[0])
  assert.is(scene.counters.flows, used + FLOWS_MAX / 2)
  for (let port = 1; port <= FLOWS_MAX; port++) scene.send('?', port, addresses[1])
  assert.is(scene.counters.flows, FLOWS_MAX)
  // those are too young to give way
  const before = scene.streams.length
  scene.send('?', 1, addresses[2])
  assert.is(scene.streams.length, before)
  await scene.later(2000)
  for (let port = 1; port <= 500; port++) scene.send('?', port, addresses[2])
  assert.is(scene.streams.length, before + 500)
  assert.is(scene.counters.flows, FLOWS_MAX)
  assert.equal(
    scene.streams.slice(0, used).map(({ ending }) => ending),
    Array(used).fill(''),
  )
  assert.is(scene.stream(used).ending, 'reset ')
})

test('a resolver that asks each question from another port is served without end', async () => {
  const scene = await Scene.open()
  scene.send('1', 1, '10.0.0.9')
  scene.send('2', 1, '10.0.0.9')
  // more in the idle time of a question than one address may have flows
  for (let port = 2; port <= 3 * FLOWS_MAX; port++) {
    scene.send('?', port, '10.0.0.9')
    if (port % 100 === 0) await scene.later(100)
  }
  assert.is(scene.counters.flows_refused, 0)
  assert.is(scene.stream(0).ending, '', 'a flow that is in use stays')
  const over = scene.streams.slice(1, FLOWS_MAX)
  assert.ok(
    over.every(({ ending }) => ending.startsWith('end ')),
    'questions that are over end in order',
  )
})

test('questions from ports that are used again make room for others', async () => {
  const scene = await Scene.open()
  for (let port = 1; port <= FLOWS_MAX / 2; port++) {
    scene.send('?', port, '10.0.0.9')
    scene.stream(port - 1).answer('!')
    scene.send('?', port, '10.0.0.9')
  }
  await scene.later(5000)
  scene.send('?', 60_000, '10.0.0.9')
  assert.is(scene.counters.flows_refused, 1, 'they may still be in use')
  await scene.later(6000)
  for (let port = 60_001; port <= 60_100; port++) scene.send('?', port, '10.0.0.9')
  assert.is(scene.counters.flows_refused, 1)
})

test('few flows wait at the same time: where all queues are in use, old datagrams give way', async () => {
  const scene = await Scene.open()
  scene.isSlow = true
  for (let port = 1; port <= 300; port++) scene.send('?', port)
  assert.is(scene.counters.flow_drops_queue, 300 - 128)
  await scene.later(3500)
  for (let port = 301; port <= 310; port++) scene.send('!', port)
  for (const { connection } of scene.streams) connection.resume()
  await scene.clock.settle()
  assert.equal(
    scene.streams.slice(300).map(({ reading }) => reading.found),
    Array.from({ length: 10 }, () => ['!']),
  )
})

test('a shorter udp_timeout of a reload applies to flows that are open', async () => {
  const scene = await Scene.open()
  scene.send('1', 1)
  scene.send('2', 1)
  scene.timeout = 5
  await scene.entrance.reload({ udp_listen: '127.0.0.1:53' })
  await scene.later(6000)
  assert.is(scene.stream(0).ending, 'end ')
})

test.run()
