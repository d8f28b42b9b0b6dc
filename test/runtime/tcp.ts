/** TCP of an adapter. */

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HeldBytes } from '../../host/driver/held-bytes.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { TcpConnection, TcpHandlers, TcpListener, TcpOptions } from '../../host/runtime.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { LOCALHOST, LOCALHOST6, type Subject } from './subject.ts'

const OPTIONS: TcpOptions = { nodelay: true, keepalive: true }
const MIB = 1 << 20
/** What the kernel of the two ends and the adapter may hold together of bytes that nobody reads. */
const MAX_IN_FLIGHT_BYTES = 40 * MIB

/** A program that opens 300 connections to a port and resets each of them as soon as it stands. */
const RESETS = `
  for (let i = 0; i < 300; i++) {
    const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1', () => socket.resetAndDestroy())
    socket.on('error', () => {})
  }`

/** One end: keeps what it is told and writes what it is asked to. */
class End implements TcpHandlers {
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
  /** Owner's call that runs now: no callback may come. */
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

  /** Writes as the socket takes it; `end` sends FIN behind. */
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

function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0
    bytes[i] = x >>> 16
  }
  return bytes
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export function tcpConformance({ runtime }: Subject, hasIpv6: boolean): void {
  const test = suite(`${runtime.name}: TCP`)
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

  /** Two ends of one connection, both of the adapter. */
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

  /** An accepted end and its peer, a socket of the runtime. */
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

  /** A dialled end and its peer, a socket of the runtime. */
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

  /** How a peer's connection ends: 'end' or the code of an error; reads everything. */
  function outcome(peer: Socket): { how: string; bytes: number } {
    const result = { how: '', bytes: 0 }
    peer.on('data', (chunk) => {
      result.bytes += chunk.length
    })
    peer.on('error', (error: NodeJS.ErrnoException) => {
      result.how ||= error.code ?? 'error'
    })
    // libuv takes an RST right behind data for EOF; a write of nothing fails after an RST
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

  test('half-close: the dialling side ends first, the answer still comes', async () => {
    const [dialled, accepted] = await pair()
    await halfClose(dialled, accepted)
  })

  test('half-close: the accepting side ends first, the answer still comes', async () => {
    const [dialled, accepted] = await pair()
    await halfClose(accepted, dialled)
  })

  test('half-close: both at once', async () => {
    const [dialled, accepted] = await pair()
    dialled.resume().end()
    accepted.resume().end()
    await waitFor('the end of both', () => dialled.closed && accepted.closed)
    assert.equal(dialled.events, ['open', 'end', 'close'])
    assert.equal(accepted.events, ['end', 'close'])
    assert.is(dialled.error, undefined)
    assert.is(accepted.error, undefined)
  })

  const ipv6 = 'a connection over IPv6'
  if (!hasIpv6) {
    skip(test, ipv6, 'no IPv6 here')
  } else {
    test(ipv6, async () => {
      const [dialled, accepted] = await pair(LOCALHOST6)
      assert.is(accepted.connection?.remote?.family, 6)
      assert.is(accepted.connection?.remote?.address, '::1')
      await halfClose(dialled, accepted)
    })
  }

  test('both sides know who the other is', async () => {
    const [accepted, peer] = await withPeer()
    assert.equal(accepted.connection?.remote, { ...LOCALHOST, port: peer.localPort })
    const [dialled, server] = await dialledPeer()
    assert.equal(dialled.connection?.remote, { ...LOCALHOST, port: server.localPort })
  })

  test('8 MiB both ways at once arrive whole at readers that pause again and again', async () => {
    const [dialled, accepted] = await pair()
    const up = pattern(8 * MIB, 3)
    const down = pattern(8 * MIB, 4)
    for (const end of [dialled, accepted]) {
      end.afterData = () => {
        end.pause()
        setTimeout(() => end.resume(), 1)
      }
      end.resume()
    }
    dialled.send(up, true)
    accepted.send(down, true)
    await waitFor('the end of both', () => dialled.closed && accepted.closed, 50_000)
    assert.is(accepted.received, up.length)
    assert.is(dialled.received, down.length)
    assert.is(accepted.hash.digest('hex'), sha256(up))
    assert.is(dialled.hash.digest('hex'), sha256(down))
    assert.is(dialled.error, undefined)
    assert.is(accepted.error, undefined)
  })

  test('a connection starts paused: nothing comes before resume()', async () => {
    const [accepted, peer] = await withPeer()
    const [dialled, server] = await dialledPeer()
    peer.end('early')
    server.end('early')
    // loopback is quick: these bytes overtake nothing
    const [other, third] = await pair()
    third.resume()
    other.send(pattern(1000, 5))
    await waitFor('bytes of a later connection', () => third.received === 1000)
    await sleep(20)
    assert.is(accepted.received + dialled.received, 0)
    accepted.resume()
    dialled.resume()
    await waitFor('the early bytes', () => accepted.received === 5 && dialled.received === 5)
    await waitFor('both ends', () => accepted.ended && dialled.ended)
  })

  test('while paused, writing goes on', async () => {
    const [accepted, peer] = await withPeer()
    const answer = pattern(6 * MIB, 6)
    peer.write(pattern(4 * MIB, 7))
    peer.pause()
    accepted.send(answer)
    await waitFor('a full socket', () => accepted.waiting > 0)
    const heard = outcome(peer)
    peer.resume()
    await waitFor('all of it', () => heard.bytes === answer.length)
    assert.is(accepted.waiting, 0)
    accepted.resume()
    await waitFor('the other direction', () => accepted.received === 4 * MIB)
  })

  test('a reset by the peer is an onClose with ECONNRESET, without onEnd', async () => {
    for (const [end, peer] of [await withPeer(), await dialledPeer()]) {
      end.resume()
      peer.write('x')
      await waitFor('a byte', () => end.received === 1)
      peer.resetAndDestroy()
      await waitFor('onClose', () => end.closed)
      assert.is(end.error?.code, 'ECONNRESET')
      assert.not.ok(end.ended)
    }
  })

  test('a reset by the peer shows after either half-close too', async () => {
    const [finReceived, peer] = await withPeer()
    finReceived.resume()
    peer.end()
    await waitFor('FIN', () => finReceived.ended)
    peer.resetAndDestroy()
    await waitFor('onClose', () => {
      if (!finReceived.closed) finReceived.send(pattern(10, 1))
      return finReceived.closed
    })
    assert.instance(finReceived.error, Error)

    const [finSent, other] = await withPeer()
    const heard = outcome(other)
    other.removeAllListeners('end')
    finSent.resume().end()
    other.on('end', () => other.resetAndDestroy())
    await waitFor('onClose', () => finSent.closed)
    assert.is(finSent.error?.code, 'ECONNRESET')
    assert.not.ok(finSent.ended)
    assert.is(heard.bytes, 0)
  })

  test('a reset that comes while paused shows at resume() at the latest', async () => {
    const [end, peer] = await withPeer()
    peer.write('held back')
    peer.resetAndDestroy()
    const [other, third] = await pair()
    third.resume()
    other.send(pattern(1000, 5))
    await waitFor('bytes of a later connection', () => third.received === 1000)
    if (!end.closed) end.resume()
    await waitFor('onClose', () => end.closed)
    assert.is(end.error?.code, 'ECONNRESET')
    assert.not.ok(end.ended)
  })

  test('reset() is an RST for the peer, and nothing is told any more', async () => {
    for (const [end, peer] of [await withPeer(), await dialledPeer()]) {
      const heard = outcome(peer)
      end.resume()
      peer.write('unread or not')
      end.reset()
      await waitFor('the end at the peer', () => heard.how !== '')
      assert.is(heard.how, 'ECONNRESET')
      assert.not.ok(end.closed || end.ended)
    }
  })

  test('reset() is an RST also with bytes queued, after end(), and after FIN from the peer', async () => {
    const [queued, slow] = await withPeer()
    slow.pause()
    queued.send(pattern(24 * MIB, 8))
    assert.ok(queued.waiting > 0)
    queued.reset()
    const heard = outcome(slow)
    slow.resume()
    await waitFor('the end at the peer', () => heard.how !== '')
    assert.is(heard.how, 'ECONNRESET')

    const [ended, reader] = await withPeer()
    reader.pause()
    ended.send(pattern(100_000, 8), true)
    ended.reset()
    const second = outcome(reader)
    reader.resume()
    await waitFor('the end at the second peer', () => second.how !== '')
    // FIN may be in front of the RST
    await waitFor('its close', () => reader.destroyed)

    const [fin, finished] = await withPeer()
    const third = outcome(finished)
    fin.resume()
    finished.end('x')
    await waitFor('FIN', () => fin.ended)
    fin.reset()
    await waitFor('the end at the third peer', () => third.how !== '')
    assert.is(third.how, 'ECONNRESET')
    assert.equal(fin.events, ['end'])
    assert.equal(queued.events, [])
    assert.equal(ended.events, [])
  })

  test('a refused dial is an onClose with ECONNREFUSED and no onOpen', async () => {
    const listener = await listen(LOCALHOST, () => {})
    listener.close()
    const end = dial(listener.local)
    end.send(pattern(10, 1), true)
    await waitFor('onClose', () => end.closed)
    assert.is(end.error?.code, 'ECONNREFUSED')
    assert.equal(end.events, ['close'])
  })

  test('a dial that is given up at once tells nothing, and the peer sees the end of it', async () => {
    const accepted: End[] = []
    const listener = await listen(LOCALHOST, (end) => accepted.push(end.resume()))
    for (const how of ['reset', 'close'] as const) {
      const end = dial(listener.local)
      end[how]()
      const [other] = [dial(listener.local)]
      await waitFor('a later dial', () => other.open)
      await waitFor('its acceptance', () => accepted.some((one) => one.connection?.remote !== undefined))
      await waitFor('the end of the first', () => accepted.filter((one) => !one.ended && !one.closed).length === 1)
      assert.equal(end.events, [])
      other.reset()
      await waitFor('the end of the second', () => accepted.every((one) => one.ended || one.closed))
    }
  })

  test('end() before the handshake is remembered; what was written before it arrives', async () => {
    const accepted: End[] = []
    const listener = await listen(LOCALHOST, (end) => accepted.push(end.resume()))
    const early = dial(listener.local)
    early.end()
    await waitFor('FIN', () => accepted[0]?.ended === true)
    accepted[0]?.send(pattern(1000, 1), true)
    early.resume()
    await waitFor('the end of both', () => early.closed && accepted[0]?.closed === true)
    assert.is(early.received, 1000)
    assert.is(early.error, undefined)

    const bytes = pattern(2 * MIB, 9)
    const writer = dial(listener.local).resume()
    writer.send(bytes, true)
    await waitFor('FIN', () => accepted[1]?.ended === true)
    assert.is(accepted[1]?.hash.digest('hex'), sha256(bytes))
  })

  test('a closed listener refuses, its connections go on', async () => {
    const accepted: End[] = []
    const listener = await listen(LOCALHOST, (end) => accepted.push(end))
    const first = dial(listener.local)
    await waitFor('the connection', () => first.open && accepted.length === 1)
    listener.close()
    listener.close()
    await waitFor('a refusal', async () => {
      const late = dial(listener.local)
      await waitFor('an answer', () => late.open || late.closed)
      return late.closed
    })
    const [second] = accepted
    if (second === undefined) throw new Error('not accepted')
    await halfClose(first, second)
  })

  test('connections that are reset before or right after they are accepted end alone', async () => {
    const accepted: End[] = []
    const listener = await listen(LOCALHOST, (end) => {
      accepted.push(end.resume())
    })
    // another process: this one is to find all of them reset when it accepts
    const { status, stderr } = spawnSync('node', ['-e', RESETS, `${listener.local.port}`], { timeout: 30_000 })
    assert.is(status, 0, `${stderr}`)
    // and while it accepts
    const storm = spawn('node', ['-e', RESETS, `${listener.local.port}`], { stdio: 'ignore' })
    await once(storm, 'exit')
    // the one that comes later is told by what it says
    const late = dial(listener.local).resume()
    late.send(pattern(100_000, 1), true)
    const said = (): End | undefined => accepted.find(({ received, ended }) => received === 100_000 && ended)
    await waitFor('what a later connection says', () => said() !== undefined)
    const other = said()
    other?.send(pattern(1000, 2), true)
    await waitFor('the end of all', () => late.closed && accepted.every(({ closed }) => closed))
    assert.is(late.received, 1000)
    assert.is(late.error, undefined)
    // those that the system no longer knew of may never have shown up
    const others = accepted.filter((end) => end !== other)
    assert.ok(others.length > 0, 'none of them was seen')
    for (const { error } of others) assert.is(error?.code, 'ECONNRESET')
  })

  test('an accept() that throws costs its connection, and nothing else', async () => {
    const accepted: End[] = []
    let broken = true
    const listener = await listen(LOCALHOST, (end) => {
      if (broken) throw new Error('a fault of ours')
      accepted.push(end.resume())
    })
    const first = dial(listener.local).resume()
    await waitFor('the end of the first', () => first.closed || first.ended)
    broken = false
    const late = dial(listener.local)
    await waitFor('a later connection', () => late.open && accepted.length === 1)
    const [other] = accepted
    if (other === undefined) throw new Error('not accepted')
    await halfClose(late, other)
  })

  test('a connection that accept() refuses sees EOF, not an error', async () => {
    const listener = await runtime.listenTcp(
      LOCALHOST,
      OPTIONS,
      () => null,
      () => {},
    )
    listeners.push(listener)
    const peer = connect({ port: listener.local.port, host: '127.0.0.1' })
    peers.push(peer)
    peer.on('connect', () => peer.write('hello'))
    const heard = outcome(peer)
    await waitFor('the end', () => peer.destroyed)
    assert.is(heard.how, 'end')
  })

  test('a peer that does not read stops the writer within a bound, and what was taken arrives', async () => {
    for (const chunk of [65536, 5000]) {
      const [end, peer] = await withPeer()
      peer.pause()
      const buffer = pattern(chunk, 10)
      const sent = createHash('sha256')
      let taken = 0
      for (let quiet = 0; quiet < 3; ) {
        const room = end.connection?.writeBuffer() ?? new Uint8Array(0)
        room.set(buffer)
        const n = end.connection?.write(room, chunk) ?? 0
        assert.ok(n >= 0 && n <= chunk)
        sent.update(buffer.subarray(0, n))
        taken += n
        assert.ok(taken < MAX_IN_FLIGHT_BYTES, `${taken} bytes taken`)
        if (n === chunk) {
          quiet = 0
          continue
        }
        const before = end.drains
        await sleep(30)
        if (end.drains === before) quiet += 1
      }
      const received = createHash('sha256')
      let bytes = 0
      peer.on('data', (data) => {
        received.update(data)
        bytes += data.length
      })
      const drains = end.drains
      peer.resume()
      await waitFor('everything that was taken', () => bytes === taken)
      await waitFor('onDrain', () => end.drains > drains)
      assert.is(received.digest('hex'), sent.digest('hex'))
    }
  })

  test('what the runtime holds is counted and bounded, and is nothing again when it is taken or gone', async () => {
    for (const way of ['read', 'reset'] as const) {
      const [end, peer] = await withPeer()
      peer.pause()
      // little is left of what all may have queued
      end.held.setCeiling(8 * 32_768)
      const bytes = pattern(32_000_000, 5)
      end.send(bytes)
      assert.ok(end.waiting > 0, 'the system took everything')
      assert.ok(end.held.toTcp <= 65536 + 4096, `${end.held.toTcp} bytes queued`)
      assert.is(end.held.fromTcp, 0)
      if (way === 'reset') end.reset()
      else peer.resume()
      await waitFor('nothing held', () => end.held.toTcp === 0 && (way === 'reset' || end.waiting === 0))
    }
    const [end, peer] = await withPeer()
    end.resume()
    end.afterData = () => {
      end.pause()
      end.afterData = undefined
    }
    peer.write(pattern(2_000_000, 6))
    await waitFor('data', () => end.received > 0)
    await sleep(50)
    assert.ok(end.held.fromTcp >= 0)
    end.resume()
    await waitFor('the rest', () => end.received === 2_000_000)
    assert.is(end.held.fromTcp, 0)
  })

  test('close() flushes, then FIN: the peer gets every byte and EOF, though its own bytes were not read', async () => {
    const [end, peer] = await withPeer()
    peer.pause()
    peer.write(pattern(200_000, 11))
    let taken = 0
    for (;;) {
      const n = end.connection?.write(end.connection.writeBuffer(), 65536) ?? 0
      taken += n
      if (n < 65536) break
    }
    end.close()
    const heard = outcome(peer)
    peer.resume()
    await waitFor('the end', () => peer.destroyed)
    assert.is(heard.how, 'end')
    assert.is(heard.bytes, taken)
    assert.equal(end.events, [])
    assert.is(end.received, 0)
  })

  test('close() of a connection whose peer goes on sending comes to an end', async () => {
    const [end, peer] = await withPeer()
    let how = ''
    peer.on('error', (error: NodeJS.ErrnoException) => {
      how = error.code ?? 'error'
    })
    peer.resume()
    end.close()
    const timer = setInterval(() => peer.write('still here'), 50)
    try {
      await waitFor('a reset', () => how !== '')
    } finally {
      clearInterval(timer)
    }
    assert.ok(how === 'ECONNRESET' || how === 'EPIPE', how)
  })

  test('a taken port rejects with EADDRINUSE, a foreign address with EADDRNOTAVAIL', async () => {
    const listener = await listen(LOCALHOST, () => {})
    const code = (bind: SocketAddress): Promise<string | undefined> =>
      listen(bind, () => {}).then(
        () => 'opened',
        (error: NodeJS.ErrnoException) => error.code,
      )
    assert.is(await code(listener.local), 'EADDRINUSE')
    assert.is(await code({ ...LOCALHOST, address: '192.0.2.1' }), 'EADDRNOTAVAIL')
  })

  test('calls on a connection that is gone do nothing', async () => {
    const [dialled, accepted] = await pair()
    await halfClose(dialled, accepted)
    for (const { connection } of [dialled, accepted]) {
      if (connection === undefined) throw new Error('no connection')
      assert.is(connection.write(connection.writeBuffer(), 10), 0)
      connection.pause()
      connection.resume()
      connection.end()
      connection.close()
      connection.reset()
      connection.close()
    }
    await sleep(10)
  })

  test.run()
}
