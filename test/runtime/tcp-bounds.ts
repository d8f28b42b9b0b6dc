/** TCP of an adapter: listeners, bounds, and calls in the wrong state. */

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { SocketAddress } from '../../host/net/address.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { LOCALHOST, type Subject } from './subject.ts'
import { type End, MIB, OPTIONS, pattern, tcpScene } from './tcp-scene.ts'

/** Maximum number of unread bytes that both kernels and the adapter may hold together. */
const MAX_IN_FLIGHT_BYTES = 40 * MIB

/** A program that opens 300 connections to a port and resets each as soon as it is established. */
const RESETS = `
  for (let i = 0; i < 300; i++) {
    const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1', () => socket.resetAndDestroy())
    socket.on('error', () => {})
  }`

export function tcpBoundsConformance({ runtime }: Subject): void {
  const test = suite(`${runtime.name}: TCP listeners and bounds`)
  const { listeners, peers, listen, dial, pair, withPeer, outcome, halfClose } = tcpScene(runtime, test)

  test('a closed listener refuses connections, established ones continue', async () => {
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

  test('connections reset before or right after accept affect no others', async () => {
    const accepted: End[] = []
    const listener = await listen(LOCALHOST, (end) => {
      accepted.push(end.resume())
    })
    // another process, so that this one finds all of them reset when it accepts
    const { status, stderr } = spawnSync('node', ['-e', RESETS, `${listener.local.port}`], { timeout: 30_000 })
    assert.is(status, 0, `${stderr}`)
    // and while it accepts
    const storm = spawn('node', ['-e', RESETS, `${listener.local.port}`], { stdio: 'ignore' })
    await once(storm, 'exit')
    // a later connection is recognized by its data
    const late = dial(listener.local).resume()
    late.send(pattern(100_000, 1), true)
    const find = (): End | undefined => accepted.find(({ received, ended }) => received === 100_000 && ended)
    await waitFor('the data of a later connection', () => find() !== undefined)
    const other = find()
    other?.send(pattern(1000, 2), true)
    await waitFor('the end of all', () => late.closed && accepted.every(({ closed }) => closed))
    assert.is(late.received, 1000)
    assert.is(late.error, undefined)
    // connections that the kernel already dropped may never have appeared
    const others = accepted.filter((end) => end !== other)
    assert.ok(others.length > 0, 'none of them was seen')
    for (const { error } of others) assert.is(error?.code, 'ECONNRESET')
  })

  test('an accept() that throws closes its connection and nothing else', async () => {
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

  test('a connection refused by accept() sees EOF, not an error', async () => {
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
    const result = outcome(peer)
    await waitFor('the end', () => peer.destroyed)
    assert.is(result.how, 'end')
  })

  test('a peer that does not read stops the writer within a bound, and all accepted bytes arrive', async () => {
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

  test('bytes held by the runtime are counted and bounded, and drop to zero when written or discarded', async () => {
    for (const way of ['read', 'reset'] as const) {
      const [end, peer] = await withPeer()
      peer.pause()
      // leaves little of the queue limit
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

  test('close() flushes and sends FIN: the peer receives every byte and EOF, although its own data was not read', async () => {
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
    const result = outcome(peer)
    peer.resume()
    await waitFor('the end', () => peer.destroyed)
    assert.is(result.how, 'end')
    assert.is(result.bytes, taken)
    assert.equal(end.events, [])
    assert.is(end.received, 0)
  })

  test('close() of a connection whose peer keeps sending completes', async () => {
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

  test('a port in use rejects with EADDRINUSE, a foreign address with EADDRNOTAVAIL', async () => {
    const listener = await listen(LOCALHOST, () => {})
    const code = (bind: SocketAddress): Promise<string | undefined> =>
      listen(bind, () => {}).then(
        () => 'opened',
        (error: NodeJS.ErrnoException) => error.code,
      )
    assert.is(await code(listener.local), 'EADDRINUSE')
    assert.is(await code({ ...LOCALHOST, address: '192.0.2.1' }), 'EADDRNOTAVAIL')
  })

  test('calls on a closed connection have no effect', async () => {
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
