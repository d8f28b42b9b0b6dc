// time limit: 180 s
/**
 * A million datagrams through two drivers, sealed, opened and acknowledged, leave nothing on the heap and cause almost no
 * garbage. The sockets are in memory and do not allocate.
 */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { openAead, type RuntimeCrypto } from '../../host/crypto/open.ts'
import { Driver } from '../../host/driver/driver.ts'
import { KeyRing } from '../../host/driver/key-ring.ts'
import { coreConfig } from '../../host/engine/config-block.ts'
import { Core, instantiate } from '../../host/engine/core.ts'
import { Engine } from '../../host/engine/engine.ts'
import { EndpointSecret } from '../../host/engine/secret.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, UdpHandlers, UdpSocket } from '../../host/runtime.ts'
import { clock } from '../../runtime-shared/clock.ts'
import { variants } from '../../testkit/crypto-variants.ts'
import { within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { dialTo, loopback, MemoryNetwork } from './memory-runtime.ts'

const test = suite('heap')

const METHOD = 'xchacha20poly1305_ietf'
/** Small datagrams: heap use does not depend on their size, the run time does. */
const MTU = 400
const WARM_UP_PACKETS = 150_000
const PACKETS = 1_000_000
const SEND_BUFFERS = 512
const BUFFER_BYTES = 1536
const CHUNK_BYTES = 65536
/** Long enough for a loaded machine. */
const TRANSFER_TIMEOUT_MS = 120_000
/**
 * Heap growth allowed per datagram: in bytes on Node; in objects on Bun, which also counts off-heap bytes. View tables
 * that are still filling account for some.
 */
const GROWTH_PER_PACKET = process.versions.bun === undefined ? 1 : 0.05
const ROUND_PACKETS = 20_000
const ROUNDS = 9
/** Bytes of garbage allowed per datagram. A single short-lived view of 100 bytes per datagram would exceed it. */
const GARBAGE_PER_PACKET = 48

/** Returns a function that forces a garbage collection. */
function collector(): () => void {
  if (process.versions.bun !== undefined) return () => Bun.gc(true)
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  if (typeof gc !== 'function') throw new Error('garbage collection cannot be forced')
  return () => void gc()
}
const gc = collector()

/** Heap in use: bytes on Node, objects on Bun. */
async function heapUsed(): Promise<number> {
  if (process.versions.bun === undefined) return process.memoryUsage().heapUsed
  const { heapStats } = await import('bun:jsc')
  return heapStats().objectCount
}

/** The same after collecting garbage. One collection is not enough on Bun, which also scans the stack. */
async function heapKept(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return heapUsed()
}

/** Counts datagrams without allocating. */
class PacketCounter {
  count = 0
  #limit = Number.POSITIVE_INFINITY
  #onLimit = (): void => {}

  add(): void {
    if (++this.count < this.#limit) return
    this.#limit = Number.POSITIVE_INFINITY
    this.#onLimit()
  }

  /** Resolves after `more` further datagrams. */
  after(more: number): Promise<void> {
    const reached = new Promise<void>((resolve) => {
      this.#onLimit = resolve
    })
    this.#limit = this.count + more
    return within(`${more} datagrams`, TRANSFER_TIMEOUT_MS, reached)
  }
}

/**
 * A socket whose datagrams arrive at its peer in the next turn of the loop. Buffers, views and queues are allocated
 * once.
 */
class PipeUdp implements UdpSocket {
  readonly local: SocketAddress
  readonly #handlers: UdpHandlers
  /** The first `#freeCount` are free. */
  readonly #free = Array.from({ length: SEND_BUFFERS }, () => new Uint8Array(BUFFER_BYTES))
  #freeCount = SEND_BUFFERS
  readonly #queue = new Array<Uint8Array<ArrayBuffer> | undefined>(SEND_BUFFERS).fill(undefined)
  readonly #lengths = new Uint32Array(SEND_BUFFERS)
  #queued = 0
  /** Memory of datagrams that arrived, and their views by length. */
  readonly #arrived = new Uint8Array(BUFFER_BYTES)
  readonly #views = Array.from({ length: BUFFER_BYTES + 1 }, (_, length) => this.#arrived.subarray(0, length))
  #starved = false
  #scheduled = false
  readonly #packets: PacketCounter
  peer: PipeUdp | undefined

  constructor(local: SocketAddress, handlers: UdpHandlers, packets: PacketCounter) {
    this.local = local
    this.#packets = packets
    this.#handlers = handlers
  }

  acquire(): Uint8Array | null {
    this.#starved = this.#freeCount === 0
    return this.#starved ? null : (this.#free[--this.#freeCount] ?? null)
  }

  send(buffer: Uint8Array<ArrayBuffer>, length: number): void {
    this.#queue[this.#queued] = buffer
    this.#lengths[this.#queued++] = length
    this.#packets.add()
  }

  flush(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#deliver)
  }

  close(): void {}

  readonly #deliver = (): void => {
    this.#scheduled = false
    for (let i = 0; i < this.#queued; i++) {
      const buffer = this.#queue[i]
      if (buffer === undefined) continue
      this.peer?.receive(buffer, this.#lengths[i] ?? 0, this.local)
      this.#free[this.#freeCount++] = buffer
    }
    this.#queued = 0
    this.peer?.batchEnd()
    if (!this.#starved) return
    this.#starved = false
    this.#handlers.onWritable()
  }

  receive(buffer: Uint8Array, length: number, from: SocketAddress): void {
    this.#arrived.set(buffer)
    const view = this.#views[length]
    if (view !== undefined) this.#handlers.onDatagram(view, from)
  }

  batchEnd(): void {
    this.#handlers.onBatchEnd()
  }
}

/** An application that sends as much as it may, or accepts everything. */
class Application implements TcpConnection {
  readonly remote = undefined
  handlers: TcpHandlers | undefined
  received = 0
  stopped = false
  readonly #chunk = new Uint8Array(CHUNK_BYTES).fill(0x61)
  readonly #buffer = new Uint8Array(CHUNK_BYTES)
  #paused = true
  #scheduled = false

  attach(handlers: TcpHandlers): void {
    this.handlers = handlers
  }
  writeBuffer(): Uint8Array {
    return this.#buffer
  }
  write(_buffer: Uint8Array, length: number): number {
    this.received += length
    return length
  }
  pause(): void {
    this.#paused = true
  }
  resume(): void {
    this.#paused = false
    this.kick()
  }
  end(): void {}
  reset(): void {
    this.stopped = true
  }
  close(): void {
    this.stopped = true
  }

  kick(): void {
    if (this.#scheduled || this.stopped || this.#paused) return
    this.#scheduled = true
    setImmediate(this.#send)
  }

  readonly #send = (): void => {
    this.#scheduled = false
    if (this.stopped || this.#paused) return
    this.handlers?.onData(this.#chunk)
    this.kick()
  }
}

/** A client that sends and a server that discards. */
async function tunnel(crypto: RuntimeCrypto) {
  const key = new Uint8Array(32).fill(9)
  const log = new Log(() => {})
  const target = new Application()
  const packets = new PacketCounter()
  const sockets: PipeUdp[] = []
  const memory = new MemoryNetwork().runtime()
  const runtime: Runtime = {
    name: 'node',
    version: 'pipe',
    clock,
    cpuTime: () => 0,
    resolve: (host) => memory.resolve(host),
    openUdp: async (options, handlers) => {
      const socket = new PipeUdp(options.bind, handlers, packets)
      sockets.push(socket)
      return socket
    },
    listenTcp: (...args) => memory.listenTcp(...args),
    dialTcp: (_address, _options, handlers, onOpen) => {
      target.handlers = handlers
      setImmediate(onOpen)
      return target
    },
    serveHttp: (...args) => memory.serveHttp(...args),
    onTerminate: () => {},
    onReload: () => {},
    readFile: (path) => memory.readFile(path),
    print: (stream, text) => memory.print(stream, text),
    exit: (status) => memory.exit(status),
  }
  const open = async (config: object, port: number): Promise<Driver> => {
    const psk = btoa(String.fromCharCode(...key))
    const bytes = new TextEncoder().encode(JSON.stringify({ ...config, method: METHOD, psk, kcp: { mtu: MTU } }))
    const aead = await openAead(METHOD, key, crypto)
    const driver = new Driver({
      runtime,
      engine: new Engine(() => new Core(instantiate()), new EndpointSecret(), runtime.clock),
      keys: new KeyRing([{ name: '', maxSessions: 0, notAfter: undefined, aead }], () => runtime.clock.monotonic()),
      log,
      dial: dialTo(runtime, loopback(80)),
      onResolve: () => {},
      onFatal: (error) => {
        throw error
      },
    })
    driver.start(coreConfig(parseConfig(bytes), aead, 4))
    const socket = await driver.sockets.add((handlers) => runtime.openUdp({ bind: loopback(port) }, handlers))
    driver.sockets.send(socket, undefined)
    return driver
  }
  const server = await open({ connect: '127.0.0.1:80', kcp_bind: '127.0.0.1:5000' }, 5000)
  const client = await open({ listen: '127.0.0.1:90', kcp_connect: '127.0.0.1:5000' }, 5001)
  const [a, b] = sockets
  assert.ok(a && b)
  a.peer = b
  b.peer = a
  client.setPeer(loopback(5000))
  const application = new Application()
  application.handlers = client.accept(application) ?? undefined
  assert.ok(application.handlers)
  return {
    /** Datagrams in both directions. */
    packets,
    received: () => target.received,
    close() {
      application.stopped = true
      client.close()
      server.close()
    },
  }
}

const backends: readonly (readonly [string, RuntimeCrypto])[] = variants
  .filter(({ method }) => method === METHOD)
  .map(({ name, crypto }) => [name, crypto])
const [fastest] = backends.slice(-1)

if (fastest !== undefined) {
  test(`a million datagrams leave nothing on the heap (${fastest[0]})`, async () => {
    const flow = await tunnel(fastest[1])
    await flow.packets.after(WARM_UP_PACKETS)
    const before = await heapKept()
    const from = flow.packets.count
    await flow.packets.after(PACKETS)
    const perPacket = ((await heapKept()) - before) / (flow.packets.count - from)
    assert.ok(flow.received() > PACKETS, 'payload arrived')
    flow.close()
    console.log(`heap growth per datagram: ${perPacket.toFixed(4)}`)
    assert.ok(perPacket < GROWTH_PER_PACKET, `${perPacket} per datagram stay on the heap`)
  })
}

for (const [name, crypto] of backends) {
  const title = `sending and receiving datagrams causes almost no garbage (${name})`
  if (process.versions.bun !== undefined) {
    skip(test, title, 'this runtime updates its heap statistics only when it collects')
    continue
  }
  test(title, async () => {
    const flow = await tunnel(crypto)
    await flow.packets.after(WARM_UP_PACKETS)
    const rounds: number[] = []
    for (let i = 0; i < ROUNDS; i++) {
      gc()
      const before = await heapUsed()
      const from = flow.packets.count
      await flow.packets.after(ROUND_PACKETS)
      rounds.push(((await heapUsed()) - before) / (flow.packets.count - from))
    }
    flow.close()
    rounds.sort((a, b) => a - b)
    console.log(`garbage per datagram: ${rounds.map((bytes) => bytes.toFixed(0)).join(' ')} bytes`)
    // on a loaded machine batches are smaller, and fewer datagrams share the cost of a batch: use one of the best rounds
    const bytes = rounds[2] ?? Number.NaN
    assert.ok(bytes < GARBAGE_PER_PACKET, `${bytes} bytes of garbage per datagram, rounds ${rounds}`)
  })
}

test.run()
