/** TCP connections for the conformance tests of an adapter: endpoints of the adapter, and peers on node:net. */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { Test } from 'uvu'
import * as assert from 'uvu/assert'
import { HeldBytes } from '../../host/driver/held-bytes.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, TcpListener, TcpOptions } from '../../host/runtime.ts'
import { waitFor } from '../../testkit/wait.ts'
import { LOCALHOST } from './subject.ts'

export const OPTIONS: TcpOptions = { nodelay: true, keepalive: true }
export const MIB = 1 << 20

/** One endpoint: records its events and writes on request. */
export class End implements TcpHandlers {
  readonly hash = createHash('sha256')
  readonly events: string[] = []
  connection: TcpConnection | undefined
  received = 0
  drains = 0
  error: NodeJS.ErrnoException | undefined
  /** Called after each chunk. */
  afterData: (() => void) | undefined
  /** Between pause() and resume(). */
  paused = true
  dataWhilePaused = false
  /** An owner's call is running: no callback may be made. */
  inside = false
  reentered = false
  readonly held = new HeldBytes()
  readonly #rest: { bytes: Uint8Array; from: number; end: boolean }[] = []
  #full = false

  constructor(connection?: TcpConnection) {
    this.connection = connection
  }

  get open(): boolean {
    return this.events.includes('open')
  }

  get ended(): boolean {
    return this.events.includes('end')
  }

  get closed(): boolean {
    return this.events.includes('close')
  }

  onOpen(): void {
    this.#note('open')
  }

  onData(chunk: Uint8Array): void {
    if (this.inside) this.reentered = true
    if (this.paused) this.dataWhilePaused = true
    this.hash.update(chunk)
    this.received += chunk.length
    this.afterData?.()
  }

  onEnd(): void {
    this.#note('end')
  }

  onDrain(): void {
    if (this.inside) this.reentered = true
    this.drains += 1
    this.#full = false
    this.#push()
  }

  onClose(error?: NodeJS.ErrnoException): void {
    this.#note('close')
    this.error = error
  }

  resume(): this {
    this.paused = false
    this.#call((connection) => connection.resume())
    return this
  }

  pause(): void {
    this.paused = true
    this.connection?.pause()
  }

  /** Writes as the socket accepts it; `end` sends FIN after it. */
  send(bytes: Uint8Array, end = false): void {
    this.#rest.push({ bytes, from: 0, end })
    this.#push()
  }

  /** Bytes that wait for onDrain. */
  get waiting(): number {
    return this.#rest.reduce((sum, { bytes, from }) => sum + bytes.length - from, 0)
  }

  end(): void {
    this.#call((connection) => connection.end())
  }

  reset(): void {
    this.#call((connection) => connection.reset())
  }

  close(): void {
    this.#call((connection) => connection.close())
  }

  #call(what: (connection: TcpConnection) => void): void {
    const { connection } = this
    if (connection === undefined) throw new Error('no connection')
    const before = this.inside
    this.inside = true
    what(connection)
    this.inside = before
  }

  #push(): void {
    const { connection } = this
    if (connection === undefined) throw new Error('no connection')
    for (let job = this.#rest[0]; job !== undefined && !this.#full; job = this.#rest[0]) {
      while (job.from < job.bytes.length) {
        const buffer = connection.writeBuffer()
        const part = job.bytes.subarray(job.from, job.from + buffer.length)
        buffer.set(part)
        const before = this.inside
        this.inside = true
        const taken = connection.write(buffer, part.length)
        this.inside = before
        job.from += taken
        if (taken < part.length) {
          this.#full = true
          return
        }
      }
      this.#rest.shift()
      if (job.end) this.end()
    }
  }

  #note(event: string): void {
    if (this.inside) this.reentered = true
    this.events.push(event)
  }
}

export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0
    bytes[i] = x >>> 16
  }
  return bytes
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Connections of one suite; they are closed after each test. */
export function tcpScene(runtime: Runtime, test: Test) {
  const listeners: TcpListener[] = []
  const ends: End[] = []
  const servers: Server[] = []
  const peers: Socket[] = []

  async function listen(bind: SocketAddress, onEnd: (end: End) => void): Promise<TcpListener> {
    const listener = await runtime.listenTcp(
      bind,
      OPTIONS,
      (connection) => {
        const end = new End(connection)
        ends.push(end)
        onEnd(end)
        return end
      },
      () => {},
    )
    listeners.push(listener)
    return listener
  }

  function dial(to: SocketAddress): End {
    const end = new End()
    ends.push(end)
    end.inside = true
    end.connection = runtime.dialTcp(to, OPTIONS, end, () => end.onOpen())
    end.inside = false
    return end
  }

  /** Both endpoints of one connection, both of the adapter. */
  async function pair(bind: SocketAddress = LOCALHOST): Promise<[End, End]> {
    let accepted: End | undefined
    const listener = await listen(bind, (end) => {
      accepted = end
    })
    const dialled = dial(listener.local)
    await waitFor('the connection', () => dialled.open && accepted !== undefined)
    if (accepted === undefined) throw new Error('not accepted')
    return [dialled, accepted]
  }

  /** An accepted endpoint and its peer, a socket of the runtime. */
  async function withPeer(): Promise<[End, Socket]> {
    let accepted: End | undefined
    const listener = await listen(LOCALHOST, (end) => {
      accepted = end
    })
    const peer = connect({ port: listener.local.port, host: '127.0.0.1', allowHalfOpen: true })
    peers.push(peer)
    await once(peer, 'connect')
    await waitFor('the connection', () => accepted !== undefined)
    if (accepted === undefined) throw new Error('not accepted')
    return [accepted, peer]
  }

  /** A dialled endpoint and its peer, a socket of the runtime. */
  async function dialledPeer(): Promise<[End, Socket]> {
    const server = createServer({ allowHalfOpen: true })
    servers.push(server)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const bound = server.address()
    if (bound === null || typeof bound === 'string') throw new Error('no address')
    const connection = once(server, 'connection')
    const end = dial({ ...LOCALHOST, port: bound.port })
    const [peer] = await connection
    peers.push(peer)
    await waitFor('the dial', () => end.open)
    return [end, peer]
  }

  /** Reads everything. The result says how the peer's connection ends: 'end' or an error code. */
  function outcome(peer: Socket): { how: string; bytes: number } {
    const result = { how: '', bytes: 0 }
    peer.on('data', (chunk) => {
      result.bytes += chunk.length
    })
    peer.on('error', (error: NodeJS.ErrnoException) => {
      result.how ||= error.code ?? 'error'
    })
    // libuv reports an RST right after data as EOF; an empty write fails after an RST
    peer.on('end', () => {
      if (peer.destroyed || peer.writableEnded) return
      peer.write(new Uint8Array(0), (error) => {
        if (error) return
        result.how ||= 'end'
        peer.end()
      })
    })
    return result
  }

  test.after.each(() => {
    const all = ends.splice(0)
    for (const listener of listeners.splice(0)) listener.close()
    for (const end of all) end.connection?.reset()
    for (const peer of peers.splice(0)) peer.destroy()
    for (const server of servers.splice(0)) server.close()
    for (const end of all) {
      assert.not.ok(end.reentered, 'a callback came inside a call')
      assert.not.ok(end.dataWhilePaused, 'data came while paused')
      assert.ok(end.events.filter((event) => event === 'close').length <= 1, 'onClose came twice')
      assert.ok(end.events.filter((event) => event === 'end').length <= 1, 'onEnd came twice')
    }
  })

  async function halfClose(first: End, second: End): Promise<void> {
    const question = pattern(100_000, 1)
    const answer = pattern(3 * MIB, 2)
    first.resume()
    second.resume()
    first.send(question, true)
    await waitFor('FIN of the first', () => second.ended)
    assert.is(second.hash.digest('hex'), sha256(question))
    assert.not.ok(first.ended || first.closed || second.closed)
    second.send(answer, true)
    await waitFor('the end of both', () => first.closed && second.closed)
    assert.is(first.hash.digest('hex'), sha256(answer))
    assert.ok(first.ended)
    assert.is(first.error, undefined)
    assert.is(second.error, undefined)
    assert.equal(
      first.events.filter((event) => event !== 'open'),
      ['end', 'close'],
    )
  }

  return { listeners, peers, listen, dial, pair, withPeer, dialledPeer, outcome, halfClose }
}
