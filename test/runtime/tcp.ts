/** TCP of an adapter: data and termination of connections. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { LOCALHOST, LOCALHOST6, type Subject } from './subject.ts'
import { type End, MIB, pattern, sha256, tcpScene } from './tcp-scene.ts'

export function tcpConformance({ runtime }: Subject, hasIpv6: boolean): void {
  const test = suite(`${runtime.name}: TCP`)
  const { listen, dial, pair, withPeer, dialledPeer, outcome, halfClose } = tcpScene(runtime, test)

  test('half-close: when the dialling side ends first, it still receives the response', async () => {
    const [dialled, accepted] = await pair()
    await halfClose(dialled, accepted)
  })

  test('half-close: when the accepting side ends first, it still receives the response', async () => {
    const [dialled, accepted] = await pair()
    await halfClose(accepted, dialled)
  })

  test('half-close: both sides end at once', async () => {
    const [dialled, accepted] = await pair()
    dialled.resume().end()
    accepted.resume().end()
    await waitFor('the end of both', () => dialled.closed && accepted.closed)
    assert.equal(dialled.events, ['open', 'end', 'close'])
    assert.equal(accepted.events, ['end', 'close'])
    assert.is(dialled.error, undefined)
    assert.is(accepted.error, undefined)
  })

  const ipv6 = 'a connection over IPv6 works'
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

  test('both sides report the address of the other', async () => {
    const [accepted, peer] = await withPeer()
    assert.equal(accepted.connection?.remote, { ...LOCALHOST, port: peer.localPort })
    const [dialled, server] = await dialledPeer()
    assert.equal(dialled.connection?.remote, { ...LOCALHOST, port: server.localPort })
  })

  test('8 MiB in both directions at once arrive whole at readers that pause repeatedly', async () => {
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

  test('a connection starts paused: no data arrives before resume()', async () => {
    const [accepted, peer] = await withPeer()
    const [dialled, server] = await dialledPeer()
    peer.end('early')
    server.end('early')
    // loopback is fast: by then the early bytes have arrived as well
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

  test('a paused connection can still write', async () => {
    const [accepted, peer] = await withPeer()
    const answer = pattern(6 * MIB, 6)
    peer.write(pattern(4 * MIB, 7))
    peer.pause()
    accepted.send(answer)
    await waitFor('a full socket', () => accepted.waiting > 0)
    const result = outcome(peer)
    peer.resume()
    await waitFor('all of it', () => result.bytes === answer.length)
    assert.is(accepted.waiting, 0)
    accepted.resume()
    await waitFor('the other direction', () => accepted.received === 4 * MIB)
  })

  test('a reset by the peer is reported by onClose with ECONNRESET, without onEnd', async () => {
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

  test('a reset by the peer is also reported after either half-close', async () => {
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
    const result = outcome(other)
    other.removeAllListeners('end')
    finSent.resume().end()
    other.on('end', () => other.resetAndDestroy())
    await waitFor('onClose', () => finSent.closed)
    assert.is(finSent.error?.code, 'ECONNRESET')
    assert.not.ok(finSent.ended)
    assert.is(result.bytes, 0)
  })

  test('a reset while paused is reported at resume() at the latest', async () => {
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

  test('reset() sends RST to the peer, and no callback follows', async () => {
    for (const [end, peer] of [await withPeer(), await dialledPeer()]) {
      const result = outcome(peer)
      end.resume()
      peer.write('unread or not')
      end.reset()
      await waitFor('the end at the peer', () => result.how !== '')
      assert.is(result.how, 'ECONNRESET')
      assert.not.ok(end.closed || end.ended)
    }
  })

  test('reset() also sends RST with bytes queued, after end(), and after FIN from the peer', async () => {
    const [queued, slow] = await withPeer()
    slow.pause()
    queued.send(pattern(24 * MIB, 8))
    assert.ok(queued.waiting > 0)
    queued.reset()
    const result = outcome(slow)
    slow.resume()
    await waitFor('the end at the peer', () => result.how !== '')
    assert.is(result.how, 'ECONNRESET')

    const [ended, reader] = await withPeer()
    reader.pause()
    ended.send(pattern(100_000, 8), true)
    ended.reset()
    const second = outcome(reader)
    reader.resume()
    await waitFor('the end at the second peer', () => second.how !== '')
    // FIN may precede the RST
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

  test('a refused dial is reported by onClose with ECONNREFUSED, without onOpen', async () => {
    const listener = await listen(LOCALHOST, () => {})
    listener.close()
    const end = dial(listener.local)
    end.send(pattern(10, 1), true)
    await waitFor('onClose', () => end.closed)
    assert.is(end.error?.code, 'ECONNREFUSED')
    assert.equal(end.events, ['close'])
  })

  test('an aborted dial makes no callback, and the peer sees the end', async () => {
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

  test('end() and data before the handshake take effect after it', async () => {
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

  test.run()
}
