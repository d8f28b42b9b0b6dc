/** Transports over the message channels of the web platform. */
import { createClient, createServer, type DuplexStream, overDataChannel, overMessagePort } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, errorOf, eventOf, pause, psk, soon } from './pair.ts'

const test = suite('library/message-channels')

const echo = (stream: DuplexStream): unknown => stream.on('error', () => {}).pipe(stream)

test('overMessagePort: a stream through a MessageChannel; closed ports end the server', async () => {
  const { port1, port2 } = new MessageChannel()
  const server = await createServer({ transport: overMessagePort(port1), psk }, echo)
  const client = await createClient({ transport: overMessagePort(port2), psk })
  // what is no datagram is ignored
  port2.postMessage('text')
  port2.postMessage({ some: 'object' })
  const stream = await client.connect(soon())
  stream.end(new Uint8Array(500_000).fill(7))
  const bytes = await bytesOf(stream)
  assert.is(bytes.length, 500_000)
  assert.ok(bytes.every((byte) => byte === 7))
  await client.close()
  await Promise.race([server.closed, pause(500)])
  await server.close()
})

/** An RTCDataChannel in memory. */
class FakeChannel extends EventTarget {
  binaryType = 'blob'
  readyState = 'connecting'
  bufferedAmount = 0
  bufferedAmountLowThreshold = 0
  /** The most that was buffered. */
  peak = 0
  other: FakeChannel | undefined

  open(): void {
    this.readyState = 'open'
    this.dispatchEvent(new Event('open'))
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    if (this.readyState !== 'open') throw new Error('InvalidStateError')
    assert.ok(data.length <= 1152)
    this.bufferedAmount += data.length
    this.peak = Math.max(this.peak, this.bufferedAmount)
    setTimeout(() => {
      const wasAbove = this.bufferedAmount > this.bufferedAmountLowThreshold
      this.bufferedAmount -= data.length
      const isBlob = this.other?.binaryType !== 'arraybuffer'
      const message = isBlob ? new Blob([data]) : data.buffer
      this.other?.dispatchEvent(Object.assign(new Event('message'), { data: message }))
      if (wasAbove && this.bufferedAmount <= this.bufferedAmountLowThreshold)
        this.dispatchEvent(new Event('bufferedamountlow'))
    }, 5)
  }

  close(): void {
    if (this.readyState === 'closed') return
    this.readyState = 'closed'
    this.dispatchEvent(new Event('close'))
    this.other?.close()
  }
}

function channels(): [FakeChannel, FakeChannel] {
  const [one, two] = [new FakeChannel(), new FakeChannel()]
  one.other = two
  two.other = one
  return [one, two]
}

test('overDataChannel: waits until it is open, holds back, and ends with the channel', async () => {
  const [one, two] = channels()
  const starting = Promise.all([
    createServer({ transport: overDataChannel(one), psk }, echo),
    createClient({ transport: overDataChannel(two), psk }),
  ])
  await pause(10)
  one.open()
  two.open()
  const [server, client] = await starting
  const stream = await client.connect(soon())
  stream.end(new Uint8Array(2 << 20))
  assert.is((await bytesOf(stream)).length, 2 << 20)
  assert.ok(two.peak < 512 * 1024, `${two.peak} bytes were buffered`)
  const closed = eventOf(server, 'close')
  await client.close()
  assert.is(two.readyState, 'closed')
  await closed
  await server.closed
})

test('overDataChannel: a channel that closes before it is open', async () => {
  const [one] = channels()
  const starting = errorOf(createClient({ transport: overDataChannel(one), psk }))
  one.close()
  const error = await starting
  assert.is(error.code, 'ERR_KCPTUN_START')
  assert.match(error.message, /closed before it was open/)
})

test.run()
