/** A driver around a stub engine, for tests of the driver's mechanics. */

import * as assert from 'uvu/assert'
import { Driver } from '../../host/driver/driver.ts'
import type { DriverOptions } from '../../host/driver/driver-options.ts'
import { Engine } from '../../host/engine/engine.ts'
import { EndpointSecret } from '../../host/engine/secret.ts'
import { LOG_INFO, Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { Clock, Runtime, TcpConnection, TcpHandlers, UdpHandlers, UdpSocket } from '../../host/runtime.ts'
import { dialTo, loopback, MemoryNetwork } from './memory-runtime.ts'
import type { StubCore } from './stub-core.ts'

export const PEER = loopback(7000)

/** A TCP connection that records the calls made on it. */
export class Recorder implements TcpConnection {
  readonly remote = undefined
  readonly actions: string[] = []
  readonly bytes: number[] = []
  /** Number of bytes it still accepts. */
  room = Number.POSITIVE_INFINITY
  #buffer = new Uint8Array(65536)
  handlers: TcpHandlers | undefined
  attach(handlers: TcpHandlers): void {
    this.handlers = handlers
  }
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

/** A driver on a stub, and on the `next` ones after traps, with a UDP socket whose buffers can run out. Default clock: real time. */
export async function bench(
  stub: StubCore,
  changes: Partial<DriverOptions> = {},
  next: StubCore[] = [],
  clock?: Clock,
) {
  const network = new MemoryNetwork()
  const sent: number[] = []
  const udp: {
    handlers?: UdpHandlers
    buffers: number
    flushes: number
    closed: boolean
    methods: Partial<UdpSocket>
  } = {
    methods: {},
    buffers: Number.POSITIVE_INFINITY,
    flushes: 0,
    closed: false,
  }
  const dials: { address: SocketAddress; handlers: TcpHandlers; onOpen: () => void; connection: Recorder }[] = []
  const memory = network.runtime()
  const runtime: Runtime = {
    name: 'node',
    version: 'stub',
    clock: clock ?? memory.clock,
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
        hold: (isHeld) => udp.methods.hold?.(isHeld),
        collect: () => udp.methods.collect?.(),
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
  const secret = new EndpointSecret()
  const engine = new Engine(
    () => {
      const [one] = stubs.splice(0, 1)
      if (one === undefined) throw new WebAssembly.RuntimeError('no engine left')
      return one.core
    },
    secret,
    runtime.clock,
  )
  const log = new Log((stream, text) => memory.print(stream, text))
  log.setLevel(LOG_INFO)
  const driver = new Driver({
    runtime,
    engine,
    keys: undefined,
    log,
    dial: dialTo(runtime, loopback(80)),
    onResolve: () => {},
    onFatal: (error) => fatal.push(error),
    ...changes,
  })
  const socket = await driver.sockets.add((handlers) => runtime.openUdp({ bind: loopback(1000) }, handlers))
  driver.sockets.send(socket, undefined)
  assert.ok(udp.handlers)
  return { driver, network, sent, udp, handlers: udp.handlers, dials, fatal, secret }
}
