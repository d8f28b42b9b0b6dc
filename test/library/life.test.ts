/** Clients and servers from start to end: signals, close, events, the log, and what they leave alone. */
import { createClient, createServer, type DuplexStream, generatePsk, type Logger } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { atOnce, bytesOf, type Client, errorOf, eventOf, pause, psk, soon, textOf, until, withPair } from './pair.ts'

const test = suite('library/life')

const echo = (stream: DuplexStream): unknown => stream.on('error', () => {}).pipe(stream)

atOnce(test, 'close() delivers what was written to streams that were ended, and resets the others', async () => {
  const got: Promise<unknown>[] = []
  const server = await createServer({ bind: '127.0.0.1:0', psk }, (stream) => {
    got.push(
      bytesOf(stream).then(
        ({ length }) => length,
        (error) => error.code,
      ),
    )
  })
  const client = await createClient({ server: server.address ?? '', psk })
  const ended = await client.connect(soon())
  ended.end(new Uint8Array(4 << 20))
  await until('the first arrives', () => got.length === 1)
  const open = await client.connect(soon())
  const closed = eventOf(open, 'close')
  await until('the second arrives', () => got.length === 2)
  await client.close()
  // no error event: the application did it
  await closed
  assert.equal(await Promise.all(got), [4 << 20, 'ERR_KCPTUN_RESET'])
  await server.close()
})

atOnce(test, 'close(): twice, `closed`, one event, and nothing works any more', async () => {
  const client = await createClient({ server: '127.0.0.1:9', psk })
  let events = 0
  client.on('close', (error) => {
    assert.is(error, undefined)
    events++
  })
  await Promise.all([client.close(), client.close()])
  await client.close()
  await client.closed
  await pause(0)
  assert.is(events, 1)
  assert.is(client.address, undefined)
  client.ref().unref()
})

atOnce(test, 'await using closes', async () => {
  let outer: Client
  {
    await using client = await createClient({ server: '127.0.0.1:9', psk })
    outer = client
  }
  await outer.closed
})

atOnce(test, 'a signal that is aborted before, during and after the start', async () => {
  const reason = new Error('stop')
  const options = { server: '127.0.0.1:9', psk }
  assert.is(await errorOf(createClient({ ...options, signal: AbortSignal.abort(reason) })), reason)
  const during = new AbortController()
  const starting = errorOf(createClient({ ...options, signal: during.signal }))
  during.abort(reason)
  assert.is(await starting, reason)
  const after = new AbortController()
  const client = await createClient({ ...options, signal: after.signal })
  const { closed } = client.open()
  const event = eventOf(client, 'close')
  after.abort(reason)
  assert.is(await errorOf(client.closed), reason)
  assert.is(await event, reason)
  assert.is((await errorOf(closed)).code, 'ERR_KCPTUN_CLOSED')
  assert.is((await errorOf(client.connect())).code, 'ERR_KCPTUN_CLOSED')
  await client.close()
})

atOnce(test, 'a start that is aborted leaves no socket', async () => {
  const server = await createServer({ bind: '127.0.0.1:0', psk }, echo)
  const bind = server.address ?? ''
  await server.close()
  const controller = new AbortController()
  const starting = errorOf(createServer({ bind, psk, signal: controller.signal }, echo))
  controller.abort()
  await starting
  // the port is free again
  let next: Awaited<ReturnType<typeof createServer>> | undefined
  for (let i = 0; i < 100 && next === undefined; i++) {
    next = await createServer({ bind, psk }, echo).catch(() => undefined)
    if (next === undefined) await pause(20)
  }
  assert.ok(next !== undefined)
  await next?.close()
})

atOnce(test, 'several clients and servers with keys of their own', async () => {
  const one = async (name: string): Promise<void> => {
    const own = { psk: generatePsk() }
    await using server = await createServer({ ...own, bind: '127.0.0.1:0' }, (stream) => stream.resume().end(name))
    const clients = [0, 1, 2].map(() => createClient({ ...own, server: server.address ?? '' }))
    for (const client of await Promise.all(clients)) {
      const stream = await client.connect(soon())
      stream.end()
      assert.is(await textOf(stream), name)
      await client.close()
    }
  }
  await Promise.all(['a', 'b', 'c'].map(one))
})

atOnce(test, 'events: up with a round trip, down, up again; once and off', async () => {
  const server = await createServer({ bind: '127.0.0.1:0', psk }, echo)
  const bind = server.address ?? ''
  const client = await createClient({ server: bind, psk, keepalive: 1 })
  const events: string[] = []
  const never = (): void => assert.unreachable('it was removed')
  client.on('up', ({ rtt }) => events.push(rtt > 0 ? 'up' : `up ${rtt}`))
  client.on('down', (reason) => events.push(`down ${reason.includes(bind)}`))
  client.once('up', () => events.push('once'))
  client.on('up', never).off('up', never)
  await until('up', () => events.length === 2)
  await server.close()
  await until('down', () => events.length === 3, 30)
  const again = await createServer({ bind, psk }, echo)
  await until('up again', () => events.length === 4, 30)
  assert.equal(events, ['up', 'once', 'down true', 'up'])
  await client.close()
  await again.close()
})

atOnce(test, 'lines go to the logger at their levels, and to nothing else; a logger may throw or close', async () => {
  const lines: string[] = []
  const at =
    (level: string) =>
    (text: string): void => {
      lines.push(`${level} ${text}`)
    }
  const logger: Logger = { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') }
  await withPair(
    echo,
    async (client) => {
      const stream = await client.connect(soon())
      stream.end()
      await bytesOf(stream)
    },
    { client: { logger, loglevel: 8 } },
  )
  for (const pattern of [/^info client start$/, /^debug .* session opened$/, /^info udp bind: /])
    assert.ok(
      lines.some((line) => pattern.test(line)),
      `${pattern}: ${lines.join('\n')}`,
    )
  const warnings: string[] = []
  const quiet: Logger = { ...logger, warn: (text) => warnings.push(text) }
  await using stranger = await createServer({ bind: '127.0.0.1:0', psk: generatePsk(), logger: quiet }, echo)
  await using client = await createClient({ server: stranger.address ?? '', psk })
  await errorOf(client.connect(soon()))
  assert.match(warnings.join(), /failed authentication/)
})

atOnce(test, 'no handlers of signals or exceptions, and no listeners left on a signal', async () => {
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGPIPE', 'uncaughtException', 'unhandledRejection']
  const counts = (): number[] => names.map((name) => process.listenerCount(name))
  const before = counts()
  await withPair(echo, async (client) => {
    const stream = await client.connect(soon())
    stream.end()
    await bytesOf(stream)
    assert.equal(counts(), before)
  })
  assert.equal(counts(), before)
  let listeners = 0
  const signal = {
    aborted: false,
    reason: undefined,
    addEventListener: () => listeners++,
    removeEventListener: () => listeners--,
  }
  await withPair(
    echo,
    async (client) => {
      const stream = await client.connect({ signal: signal as never })
      assert.is(listeners, 1)
      stream.end()
      await bytesOf(stream)
    },
    { client: { signal: signal as never } },
  )
  assert.is(listeners, 0)
})

test.run()
