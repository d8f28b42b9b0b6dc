/** Opening streams: what connect() and open() do while there is no server, no key, no time or no client any more. */
import { createClient, createServer, generatePsk } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { atOnce, errorOf, pause, psk, soon, textOf, until, withPair } from './pair.ts'

const test = suite('library/opening')

/** A UDP port where nobody answers: that of a server with another key. */
async function withStranger(use: (server: string) => Promise<void>): Promise<void> {
  await using server = await createServer({ bind: '127.0.0.1:0', psk: generatePsk() }, () => {})
  await use(server.address ?? '')
}

atOnce(test, 'a server with another key does not answer: connect() rejects with a reset within seconds', () =>
  withStranger(async (server) => {
    await using client = await createClient({ server, psk })
    const error = await errorOf(client.connect(soon()))
    assert.is(error.code, 'ERR_KCPTUN_RESET')
    assert.match(error.message, /does not answer/)
    const again = await errorOf(client.connect(soon()))
    assert.is(again.code, 'ERR_KCPTUN_RESET')
  }),
)

atOnce(test, 'of several servers one that answers is used', () =>
  withStranger(async (stranger) => {
    await using server = await createServer({ bind: '127.0.0.1:0', psk }, (stream) => stream.resume().end('here'))
    await using client = await createClient({ server: [stranger, server.address ?? ''], psk })
    const stream = await client.connect(soon())
    assert.is(await textOf(stream.end()), 'here')
  }),
)

atOnce(test, 'no server at all', async () => {
  const server = await createServer({ bind: '127.0.0.1:0', psk }, () => {})
  const address = server.address ?? ''
  await server.close()
  await using client = await createClient({ server: address, psk })
  assert.is((await errorOf(client.connect(soon()))).code, 'ERR_KCPTUN_RESET')
})

atOnce(test, 'when_down = hold: connect() waits until its signal is aborted', () =>
  withStranger(async (server) => {
    await using client = await createClient({ server, psk, when_down: 'hold' })
    const error = await errorOf(client.connect({ signal: AbortSignal.timeout(200) }))
    assert.is(error.name, 'TimeoutError')
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    const connecting = errorOf(client.connect({ signal: controller.signal }))
    controller.abort(reason)
    assert.is(await connecting, reason)
    assert.is(await errorOf(client.connect({ signal: AbortSignal.abort(reason) })), reason)
    await until('nothing is left of them', () => client.stats().gauges['waitsnd'] === 0)
  }),
)

atOnce(test, 'a signal has no effect on a stream that is open', () =>
  withPair(
    (stream) => stream.pipe(stream),
    async (client) => {
      const controller = new AbortController()
      const stream = await client.connect({ signal: controller.signal })
      controller.abort()
      stream.end('x')
      assert.is(await textOf(stream), 'x')
    },
  ),
)

atOnce(test, 'no stream after close()', async () => {
  const client = await createClient({ server: '127.0.0.1:9', psk })
  const closing = client.close()
  assert.is((await errorOf(client.connect())).code, 'ERR_KCPTUN_CLOSED')
  assert.throws(
    () => client.open(),
    (error: { code?: string }) => error.code === 'ERR_KCPTUN_CLOSED',
  )
  await closing
  assert.is((await errorOf(client.connect())).code, 'ERR_KCPTUN_CLOSED')
  assert.throws(() => client.stats(), /closed/)
})

atOnce(test, 'close() ends what waits for an answer', () =>
  withStranger(async (server) => {
    const client = await createClient({ server, psk, when_down: 'hold' })
    const connecting = errorOf(client.connect())
    const { opened, closed, readable } = client.open()
    const failed = [errorOf(opened), errorOf(closed), errorOf(readable.getReader().read())]
    await pause(20)
    await client.close()
    for (const error of [await connecting, ...(await Promise.all(failed))])
      assert.ok(['ERR_KCPTUN_RESET', 'ERR_KCPTUN_CLOSED'].includes(error.code ?? ''), error.message)
  }),
)

atOnce(test, 'too many streams are refused', () =>
  withPair(
    (stream) => stream.on('error', () => {}),
    async (client) => {
      const streams = []
      for (let i = 0; i < 3; i++) streams.push(await client.connect(soon()))
      assert.is((await errorOf(client.connect(soon()))).code, 'ERR_KCPTUN_REFUSED')
      for (const stream of streams) stream.destroy()
    },
    { client: { max_sessions: 3 } },
  ),
)

atOnce(test, 'a WHATWG pair that is closed before it is open', () =>
  withStranger(async (server) => {
    await using client = await createClient({ server, psk, when_down: 'hold' })
    const { opened, closed, close, readable, writable } = client.open()
    const writing = writable.getWriter()
    await writing.write('x')
    await close()
    await closed
    assert.is((await errorOf(opened)).code, 'ERR_KCPTUN_RESET')
    assert.is((await errorOf(readable.getReader().read())).code, 'ERR_KCPTUN_RESET')
    assert.is((await errorOf(writing.write('y'))).code, 'ERR_KCPTUN_RESET')
  }),
)

atOnce(
  test,
  'a WHATWG pair whose readable is cancelled still writes; closed by close(), it delivers what was written',
  () => {
    const received: string[] = []
    return withPair(
      async (stream) => {
        stream.write(new Uint8Array(1 << 20))
        stream.on('data', (chunk) => received.push(String(chunk)))
        stream.on('end', () => stream.end())
        stream.on('error', () => received.push('reset'))
      },
      async (client) => {
        const one = client.open()
        await one.readable.cancel()
        const writer = one.writable.getWriter()
        await writer.write('one')
        await writer.close()
        await one.closed
        const two = client.open()
        const second = two.writable.getWriter()
        await second.write(' two')
        await second.close()
        await two.close()
        await two.closed
        await until('both arrived', () => received.length === 2)
        assert.equal(received, ['one', ' two'])
      },
    )
  },
)

test.run()
