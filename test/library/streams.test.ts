/** Streams of the library between a client and a server in one process, through the package's main entry. */
import { createHash, randomBytes } from 'node:crypto'
import { createClient, createServer, type DuplexStream, generatePsk } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('library/streams')

const psk = generatePsk()

/** Runs `use` with a client of a server that serves streams by `onStream`, and closes both. */
async function withPair(
  onStream: (stream: DuplexStream) => unknown,
  use: (client: Awaited<ReturnType<typeof createClient>>) => Promise<void>,
): Promise<void> {
  const server = await createServer({ bind: '127.0.0.1:0', psk }, onStream)
  const client = await createClient({ server: server.address ?? '', psk })
  try {
    await use(client)
  } finally {
    await client.close()
    await server.close()
  }
}

/** All bytes up to the end, as text. An async iterator would destroy the stream at its end. */
function textOf(stream: DuplexStream): Promise<string> {
  const parts: Uint8Array[] = []
  return new Promise((resolve, reject) => {
    stream.on('data', (part) => parts.push(part))
    stream.on('end', () => resolve(Buffer.concat(parts).toString()))
    stream.on('error', reject)
  })
}

test('bytes pass both ways, and each direction ends by itself', () =>
  withPair(
    async (stream) => {
      const question = await textOf(stream)
      stream.end(`answer to ${question}`)
    },
    async (client) => {
      const stream = await client.connect({ signal: AbortSignal.timeout(10_000) })
      stream.end('question')
      assert.is(await textOf(stream), 'answer to question')
    },
  ))

test('a large transfer is complete, and a slow reader holds the writer back', () => {
  const bytes = randomBytes(8 << 20)
  const digest = createHash('sha256').update(bytes).digest('hex')
  return withPair(
    (stream) => {
      stream.resume()
      stream.end(bytes)
    },
    async (client) => {
      const stream = await client.connect()
      stream.end()
      const hash = createHash('sha256')
      let length = 0
      for await (const part of stream) {
        hash.update(part)
        length += part.length
        if (length < 1 << 20) await new Promise((resolve) => setTimeout(resolve, 1))
      }
      assert.is(length, bytes.length)
      assert.is(hash.digest('hex'), digest)
    },
  )
})

test('a destroyed stream is a reset at the other end, never an end', () =>
  withPair(
    (stream) => {
      stream.on('error', () => {})
      stream.once('data', () => stream.destroy())
    },
    async (client) => {
      const stream = await client.connect()
      stream.write('x')
      const error = await textOf(stream).then(
        () => undefined,
        (reason) => reason,
      )
      assert.is(error?.code, 'ERR_KCPTUN_RESET')
    },
  ))

test('a WHATWG pair: opened, both directions, closed', () =>
  withPair(
    (stream) => stream.pipe(stream),
    async (client) => {
      const { readable, writable, opened, closed } = client.open()
      const writer = writable.getWriter()
      await writer.write(new TextEncoder().encode('hello'))
      await writer.close()
      assert.is((await opened).remoteAddress?.startsWith('127.0.0.1:'), true)
      assert.is(await new Response(readable).text(), 'hello')
      await closed
    },
  ))

test.run()
