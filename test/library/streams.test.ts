/** Streams of the library: bytes in order, each direction for itself, in both shapes of a stream. */
import { createHash, randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, errorOf, soon, textOf, until, withPair } from './pair.ts'

const test = suite('library/streams')

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

test('bytes pass both ways, and each direction ends by itself', () =>
  withPair(
    async (stream) => {
      const question = await textOf(stream)
      stream.end(`answer to ${question}`)
    },
    async (client) => {
      const stream = await client.connect(soon())
      stream.end('question')
      assert.is(await textOf(stream), 'answer to question')
    },
  ))

test('a server that ends first still reads', () => {
  let got = ''
  return withPair(
    async (stream) => {
      stream.end('welcome')
      got = await textOf(stream)
    },
    async (client) => {
      const stream = await client.connect(soon())
      assert.is(await textOf(stream), 'welcome')
      stream.write('later')
      stream.end(' still')
      await until('the server has read', () => got === 'later still')
    },
  )
})

test('a server that ends at once: the end is not lost, whenever it is looked for', () =>
  withPair(
    (stream) => stream.resume().end(),
    async (client) => {
      for (let i = 0; i < 20; i++) {
        const stream = await client.connect(soon())
        if (i % 2 === 1) await new Promise((resolve) => setTimeout(resolve, 20))
        stream.end()
        assert.is(await textOf(stream), '')
      }
    },
  ))

test('text, empty writes, views of larger buffers, and a write of 32 MiB', () => {
  const bytes = randomBytes(32 << 20)
  return withPair(
    async (stream) => stream.end(sha(await bytesOf(stream))),
    async (client) => {
      const stream = await client.connect(soon())
      stream.write('grüße')
      stream.write('')
      stream.write(new Uint8Array(0))
      stream.write(bytes.subarray(3, 10))
      stream.end(bytes)
      const all = Buffer.concat([Buffer.from('grüße'), bytes.subarray(3, 10), bytes])
      assert.is(await textOf(stream), sha(all))
    },
  )
})

test('a write after the end is an error of the writer', () =>
  withPair(
    (stream) => stream.pipe(stream).on('error', () => {}),
    async (client) => {
      const stream = await client.connect(soon())
      stream.end('x')
      const failed = errorOf(bytesOf(stream))
      stream.write('y')
      assert.is((await failed).code, 'ERR_STREAM_WRITE_AFTER_END')
    },
  ))

test('100 streams at once do not mix', () =>
  withPair(
    (stream) => stream.pipe(stream),
    async (client) => {
      const one = async (i: number): Promise<void> => {
        const stream = await client.connect(soon())
        const bytes = randomBytes(1 + ((i * 7919) % 100_000))
        const echo = bytesOf(stream)
        for (let at = 0; at < bytes.length; at += 30_000) stream.write(bytes.subarray(at, at + 30_000))
        stream.end()
        assert.is(sha(await echo), sha(bytes), `stream ${i}`)
      }
      await Promise.all(Array.from({ length: 100 }, (_, i) => one(i)))
    },
  ))

test('a listener that writes while it reads', () =>
  withPair(
    (stream) => {
      stream.on('data', (chunk) => stream.write(chunk))
      stream.on('end', () => stream.end())
    },
    async (client) => {
      const stream = await client.connect(soon())
      let count = 0
      stream.on('data', (chunk) => {
        count += chunk.length
        if (count < 200) stream.write('again')
        else stream.end()
      })
      stream.write('first')
      await bytesOf(stream)
      assert.is(count, 200)
    },
  ))

test('a WHATWG pair: opened, both directions, closed', () =>
  withPair(
    (stream) => stream.pipe(stream),
    async (client) => {
      const { readable, writable, opened, closed } = client.open()
      const writer = writable.getWriter()
      await writer.write(new TextEncoder().encode('hello'))
      await writer.write('there')
      await writer.write(new Uint16Array([0x2121]))
      await writer.close()
      assert.is((await opened).remoteAddress?.startsWith('127.0.0.1:'), true)
      assert.is(await new Response(readable).text(), 'hellothere!!')
      await closed
    },
  ))

test('chunks of a WHATWG stream may be transferred', () =>
  withPair(
    (stream) => stream.resume().end(new Uint8Array(4 << 20).fill(5)),
    async (client) => {
      const { readable, writable } = client.open()
      await writable.close()
      let length = 0
      for (const reader = readable.getReader(); ; ) {
        const { value, done } = await reader.read()
        if (done) break
        const moved: Uint8Array = structuredClone(value, { transfer: [value.buffer as ArrayBuffer] })
        assert.ok(moved.every((byte) => byte === 5))
        length += moved.length
      }
      assert.is(length, 4 << 20)
    },
  ))

test.run()
