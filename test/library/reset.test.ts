/** What ends a stream other than its two ends: the other side gets a reset, never a clean end. */
import type { DuplexStream, Logger } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { atOnce, bytesOf, errorOf, eventOf, pause, psk, soon, until, withPair } from './pair.ts'

const test = suite('library/reset')

const RESET = 'ERR_KCPTUN_RESET'

atOnce(test, 'a stream destroyed by the server is a reset for the client', () =>
  withPair(
    (stream) => {
      stream.on('error', () => {})
      stream.once('data', () => stream.destroy())
    },
    async (client) => {
      const stream = await client.connect(soon())
      stream.write('x')
      assert.is((await errorOf(bytesOf(stream))).code, RESET)
      assert.ok(stream.destroyed)
    },
  ),
)

atOnce(test, 'a stream destroyed by the client is a reset for the server, also after the client ended it', () => {
  const errors: Promise<Error & { code?: string }>[] = []
  return withPair(
    (stream) => {
      errors.push(errorOf(bytesOf(stream)))
    },
    async (client) => {
      const first = await client.connect(soon())
      first.write('x')
      first.destroy()
      await until('the first stream ends', () => errors.length === 1)
      assert.is((await errors[0])?.code, RESET)
      const second = await client.connect(soon())
      second.write(new Uint8Array(1 << 20))
      second.end()
      second.destroy()
      await until('the second stream ends', () => errors.length === 2)
      assert.is((await errors[1])?.code, RESET)
    },
  )
})

atOnce(test, 'destroy() in the middle of a large transfer: the reader gets no end', () =>
  withPair(
    (stream) => {
      stream.on('error', () => {})
      stream.write(new Uint8Array(16 << 20))
      stream.once('data', () => stream.destroy())
    },
    async (client) => {
      const stream = await client.connect(soon())
      let length = 0
      stream.on('data', (chunk) => {
        if (length === 0) stream.write('stop')
        length += chunk.length
      })
      assert.is((await errorOf(bytesOf(stream))).code, RESET)
      assert.ok(length < 16 << 20)
    },
  ),
)

atOnce(test, 'destroy() fails the writes that wait', () =>
  withPair(
    (stream) => stream.on('error', () => {}),
    async (client) => {
      const stream = await client.connect(soon())
      const results: unknown[] = []
      const write = stream.write as (bytes: Uint8Array, done: (error: unknown) => void) => boolean
      for (let i = 0; i < 2; i++) write.call(stream, new Uint8Array(32 << 20), (error) => results.push(error))
      await pause(20)
      stream.destroy()
      await until('both writes have failed', () => results.length === 2)
      for (const error of results) assert.instance(error, Error)
    },
  ),
)

atOnce(test, 'an error passed to destroy() is that of the stream', () =>
  withPair(
    (stream) => stream.on('error', () => {}),
    async (client) => {
      const stream = await client.connect(soon())
      const reason = new Error('enough')
      const failed = eventOf(stream, 'error')
      stream.destroy(reason)
      assert.is(await failed, reason)
    },
  ),
)

for (const isAsync of [false, true])
  atOnce(
    test,
    `a handler that ${isAsync ? 'rejects' : 'throws'} resets its stream, and the error is logged`,
    async () => {
      const lines: string[] = []
      const logger: Logger = { error: (text) => lines.push(text), warn() {}, info() {}, debug() {} }
      let served: DuplexStream | undefined
      const handler = (stream: DuplexStream): unknown => {
        served = stream
        if (isAsync) return pause(5).then(() => Promise.reject(new Error('no such service')))
        throw new Error('no such service')
      }
      await withPair(
        handler,
        async (client) => {
          const stream = await client.connect(soon()).catch((error) => error)
          const error = stream instanceof Error ? (stream as { code?: string }) : await errorOf(bytesOf(stream))
          assert.is(error.code, RESET)
          assert.ok(served?.destroyed, 'the stream of the handler is closed')
          assert.equal(lines, ['the handler of streams failed: no such service'])
        },
        { server: { bind: '127.0.0.1:0', psk, logger } },
      )
    },
  )

atOnce(test, 'a WHATWG pair is reset: opened or not, reads, writes and closed reject', () =>
  withPair(
    (stream) => {
      stream.on('error', () => {})
      stream.once('data', () => stream.destroy())
    },
    async (client) => {
      const { readable, writable, closed } = client.open()
      const writer = writable.getWriter()
      await writer.write('x')
      const reading = errorOf(readable.getReader().read())
      assert.is((await errorOf(closed)).code, RESET)
      assert.is((await reading).code, RESET)
      assert.is((await errorOf(writer.write('y'))).code, RESET)
    },
  ),
)

atOnce(test, 'an aborted WHATWG writer is a reset for the peer', () => {
  let failed: Promise<Error & { code?: string }> | undefined
  return withPair(
    (stream) => {
      failed = errorOf(bytesOf(stream))
    },
    async (client) => {
      const { writable, closed, opened } = client.open()
      const writer = writable.getWriter()
      await writer.write('x')
      await opened
      await until('the stream arrived', () => failed !== undefined)
      const reason = new Error('enough')
      await writer.abort(reason)
      assert.is(await errorOf(closed), reason)
      assert.is((await failed)?.code, RESET)
    },
  )
})

test.run()
