/** Back-pressure: who does not read stops who writes, in both directions and in bounded memory. */
import type { DuplexStream } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, memoryUsed, pause, soon, until, withPair } from './pair.ts'

const test = suite('library/back-pressure')

const MIB = 1 << 20
/** More than windows and queues of one stream hold on loopback. */
const TOTAL = 64 * MIB
const CHUNK = new Uint8Array(65536)

/** Writes up to TOTAL bytes while the stream takes them. @returns bytes written before it stayed full */
async function fill(stream: DuplexStream): Promise<number> {
  let written = 0
  let isFull = false
  stream.on('drain', () => {
    isFull = false
  })
  for (let idle = 0; idle < 40 && written < TOTAL; ) {
    while (!isFull && written < TOTAL) {
      isFull = !stream.write(CHUNK)
      written += CHUNK.length
      idle = 0
    }
    await pause(10)
    idle++
  }
  return written
}

test('a client that does not read stops the server', () => {
  let written = 0
  return withPair(
    async (stream) => {
      stream.on('error', () => {})
      written = await fill(stream)
      stream.end()
    },
    async (client, server) => {
      const stream = await client.connect(soon())
      stream.end()
      await until('the writer is stopped', () => written > 0)
      assert.ok(written < TOTAL / 2, `${written} bytes were taken`)
      assert.ok(memoryUsed(server.stats()) < TOTAL / 2)
      // it goes on where it stopped
      assert.is((await bytesOf(stream)).length, written)
    },
  )
})

test('a server that does not read stops the client, and other streams go on', () => {
  let held: DuplexStream | undefined
  return withPair(
    (stream) => {
      stream.on('error', () => {})
      if (held === undefined) held = stream
      else stream.pipe(stream)
    },
    async (client, server) => {
      const stream = await client.connect(soon())
      stream.on('error', () => {})
      const written = await fill(stream)
      assert.ok(written < TOTAL / 2, `${written} bytes were taken`)
      assert.ok(memoryUsed(client.stats()) < TOTAL / 2)
      assert.ok(memoryUsed(server.stats()) < TOTAL / 2)
      const other = await client.connect(soon())
      other.end('still alive')
      assert.is((await bytesOf(other)).toString(), 'still alive')
      stream.destroy()
    },
  )
})

test('a WHATWG writer waits for a reader', () => {
  let held: DuplexStream | undefined
  return withPair(
    (stream) => {
      stream.on('error', () => {})
      held = stream
    },
    async (client) => {
      const { writable, readable } = client.open()
      const writer = writable.getWriter()
      let written = 0
      const writing = (async () => {
        for (; written < TOTAL; written += CHUNK.length) {
          await writer.ready
          await writer.write(CHUNK)
        }
        await writer.close()
      })()
      let before = -1
      while (before !== written) {
        before = written
        await pause(400)
      }
      assert.ok(written < TOTAL / 2, `${written} bytes were taken`)
      held?.end()
      const received = bytesOf(held as DuplexStream)
      await writing
      assert.is((await received).length, TOTAL)
      assert.is(await new Response(readable).text(), '')
    },
  )
})

test('many small writes arrive in order', () =>
  withPair(
    (stream) => stream.pipe(stream),
    async (client) => {
      const stream = await client.connect(soon())
      const echo = bytesOf(stream)
      const lines = Array.from({ length: 20_000 }, (_, i) => `${i}\n`)
      for (const line of lines) stream.write(line)
      stream.end()
      assert.is((await echo).toString(), lines.join(''))
    },
  ))

test('a buffer may be used again once its write is called back', () => {
  const size = 200_000
  const count = 100
  return withPair(
    (stream) => {
      for (let i = 0; i < count; i++) {
        const buffer = Buffer.alloc(size, i)
        const write = stream.write as (bytes: Uint8Array, done: () => void) => boolean
        write.call(stream, buffer, () => buffer.fill(0xff))
      }
      stream.end()
    },
    async (client) => {
      const stream = await client.connect(soon())
      stream.end()
      await pause(100)
      const received = await bytesOf(stream)
      assert.is(received.length, count * size)
      for (let i = 0; i < count; i++) {
        const part = received.subarray(i * size, (i + 1) * size)
        assert.ok(
          part.every((byte) => byte === i),
          `write ${i} has other bytes`,
        )
      }
    },
  )
})

test.run()
