/** A datagram transport of the application in place of UDP: identities, sizes, back-pressure, errors and its end. */
import { createHash, randomBytes } from 'node:crypto'
import { createClient, createServer, type DuplexStream } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MemoryLink } from './memory-link.ts'
import { atOnce, bytesOf, type Client, errorOf, eventOf, pause, psk, type Server, soon, textOf, until } from './pair.ts'

const test = suite('library/transport')

const echo = (stream: DuplexStream): unknown => stream.on('error', () => {}).pipe(stream)

async function withLink(link: MemoryLink, use: (client: Client, server: Server) => Promise<void>): Promise<void> {
  const server = await createServer({ transport: link.server, psk }, echo)
  const client = await createClient({ transport: link.client('alice'), psk })
  try {
    await use(client, server)
  } finally {
    await Promise.all([client.close(), server.close()])
  }
}

/** Sends bytes through an echo, and compares what comes back. */
async function transfer(client: Client, length: number): Promise<void> {
  const sha = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
  const bytes = randomBytes(length)
  const stream = await client.connect(soon())
  stream.end(bytes)
  const received = await bytesOf(stream)
  assert.is(received.length, length)
  assert.is(sha(received), sha(bytes))
}

for (const [name, options] of [
  ['delivers during send()', { isSync: true }],
  ['loses and reorders datagrams', { loss: 0.05, reorder: true }],
] as const)
  atOnce(test, `a transport that ${name}`, () =>
    withLink(new MemoryLink(options), (client) => transfer(client, 1 << 20)),
  )

for (const maxDatagramSize of [252, 576, 1152, 1452, 9000])
  atOnce(test, `datagrams of at most ${maxDatagramSize} bytes`, async () => {
    const link = new MemoryLink({ maxDatagramSize })
    await withLink(link, (client) => transfer(client, 200_000))
    for (const { lengths } of [link.server, ...link.clients.values()]) {
      const longest = Math.max(...lengths)
      assert.ok(longest <= maxDatagramSize, `${longest} bytes`)
      assert.ok(longest >= Math.min(maxDatagramSize, 1452) - 16, `only ${longest} bytes`)
    }
  })

test('an invalid maxDatagramSize', async () => {
  for (const maxDatagramSize of [0, 251, 1000.5, Number.NaN, '1000' as never]) {
    const { client } = { client: new MemoryLink({ maxDatagramSize }).client('x') }
    const error = await errorOf(createClient({ transport: client, psk }))
    assert.is(error.code, 'ERR_KCPTUN_CONFIG')
    assert.match(error.message, /transport\.maxDatagramSize/)
  }
  for (const key of ['server', 'bind', 'obfs', 'netdev']) {
    const error = await errorOf(createClient({ transport: new MemoryLink().client('x'), psk, [key]: '127.0.0.1:1' }))
    assert.match(error.message, /conflicts with transport/)
  }
})

atOnce(test, 'send() is not called between false and writable()', async () => {
  const link = new MemoryLink()
  await withLink(link, async (client) => {
    let isBlocked = false
    let wrong = 0
    let blocks = 0
    const end = link.clients.get('alice')
    if (end === undefined) return
    end.hook = () => {
      if (isBlocked) wrong++
      isBlocked = blocks++ % 10 === 9
      if (isBlocked)
        setTimeout(() => {
          isBlocked = false
          end.receiver?.writable()
        }, 1)
      return !isBlocked
    }
    await transfer(client, 200_000)
    assert.is(wrong, 0)
    assert.ok(blocks > 100)
  })
})

atOnce(test, 'an error thrown by send() loses that datagram, and is logged', async () => {
  const link = new MemoryLink()
  const lines: string[] = []
  const logger = { error() {}, warn: (text: string) => lines.push(text), info() {}, debug() {} }
  const server = await createServer({ transport: link.server, psk }, echo)
  const client = await createClient({ transport: link.client('alice'), psk, logger })
  const end = link.clients.get('alice')
  let sent = 0
  if (end !== undefined)
    end.hook = () => {
      if (sent++ % 20 === 5) throw new Error('wire cut')
      return undefined
    }
  await transfer(client, 100_000)
  assert.match(lines.join('\n'), /wire cut/)
  end?.receiver?.error(new Error('smoke'))
  await pause(0)
  assert.match(lines.join('\n'), /transport: smoke/)
  await Promise.all([client.close(), server.close()])
})

atOnce(test, 'close() of the client closes the transport once; it has no address', async () => {
  const link = new MemoryLink()
  await withLink(link, async (client, server) => {
    assert.is(client.address, undefined)
    assert.is(server.address, undefined)
    await transfer(client, 10)
  })
  for (const { closes } of [link.server, ...link.clients.values()]) assert.is(closes, 1)
})

for (const error of [new Error('unplugged'), undefined])
  atOnce(
    test,
    `a transport that ends ${error === undefined ? 'by itself' : 'with an error'} ends the client`,
    async () => {
      const link = new MemoryLink()
      const server = await createServer({ transport: link.server, psk }, echo)
      const end = link.client('alice')
      const client = await createClient({ transport: end, psk })
      const stream = await client.connect(soon())
      const closed = eventOf(stream, 'close')
      const failed = error && eventOf(stream, 'error')
      const event = eventOf(client, 'close')
      end.receiver?.close(error)
      end.receiver?.close(new Error('again'))
      const outcome = await client.closed.then(
        () => undefined,
        (reason) => reason,
      )
      assert.is(outcome, error)
      assert.is(await event, error)
      await closed
      if (failed) assert.is((await failed).code, 'ERR_KCPTUN_CLOSED')
      await client.close()
      assert.is(end.closes, 0)
      // nothing is wrong with calls that come late
      end.receiver?.datagram(new Uint8Array(100))
      end.receiver?.writable()
      end.receiver?.error(new Error('late'))
      await server.close()
    },
  )

atOnce(test, 'a transport that cannot be opened, or that ends meanwhile', async () => {
  const base = { send() {}, close() {} }
  const cause = new Error('no carrier')
  const cases = [
    { ...base, open: () => Promise.reject(cause) },
    {
      ...base,
      open() {
        throw cause
      },
    },
    { ...base, open: (receiver: { close(error: Error): void }) => receiver.close(cause) },
  ]
  for (const transport of cases) {
    const error = await errorOf(createClient({ transport, psk }))
    assert.match(error.message, /no carrier/)
  }
  const never = { ...base, open: () => new Promise<void>(() => {}) }
  const error = await errorOf(createClient({ transport: never, psk, signal: AbortSignal.timeout(50) }))
  assert.is(error.name, 'TimeoutError')
})

atOnce(test, 'a server tells its clients apart by identity', async () => {
  const link = new MemoryLink()
  const server = await createServer({ transport: link.server, psk }, async (stream) => {
    stream.end(`${stream.remoteAddress}: ${await textOf(stream)}`)
  })
  const names = Array.from({ length: 50 }, (_, i) => `peer ${i} ü`)
  const clients = await Promise.all(names.map((name) => createClient({ transport: link.client(name), psk })))
  await Promise.all(
    clients.map(async (client, i) => {
      const stream = await client.connect(soon())
      stream.end(`hello ${i}`)
      assert.is(await textOf(stream), `${names[i]}: hello ${i}`)
    }),
  )
  await Promise.all([...clients, server].map((endpoint) => endpoint.close()))
})

atOnce(test, 'a client under another identity keeps its streams', () => {
  const link = new MemoryLink()
  return withLink(link, async (client, server) => {
    const migrated = eventOf(server, 'migrate')
    const stream = await client.connect(soon())
    const received = bytesOf(stream)
    let sent = 0
    for (; sent < 40; sent++) {
      stream.write(new Uint8Array(5000).fill(sent))
      if (sent === 20) link.rename('alice', 'bob')
      await pause(5)
    }
    assert.is(await migrated, 'bob')
    stream.end()
    const bytes = await received
    assert.is(bytes.length, sent * 5000)
    assert.ok(bytes.every((byte, i) => byte === Math.floor(i / 5000)))
  })
})

atOnce(test, 'garbage is ignored', async () => {
  const link = new MemoryLink()
  await withLink(link, async (client) => {
    const receivers = [link.server.receiver, link.clients.get('alice')?.receiver]
    const feed = (): void => {
      for (const receiver of receivers) {
        for (const length of [0, 1, 24, 100, 1500, 1501, 70_000])
          receiver?.datagram(randomBytes(length), `stranger ${length}`)
        for (const value of [undefined, null, 'text', 5, {}, new ArrayBuffer(100)]) receiver?.datagram(value as never)
      }
    }
    feed()
    const timer = setInterval(feed, 1)
    await transfer(client, 100_000)
    clearInterval(timer)
  })
})

test('many datagrams of a stranger take no memory of the endpoint', async () => {
  const link = new MemoryLink()
  await withLink(link, async (client, server) => {
    await transfer(client, 10)
    const before = server.stats().gauges['memory_used'] ?? 0
    for (let i = 0; i < 70_000; i++) {
      link.server.receiver?.datagram(new Uint8Array(100), `stranger ${i}`)
      if (i % 1000 === 0) await pause(0)
    }
    await until('all are counted', () => (server.stats().counters['drop_auth'] ?? 0) >= 70_000)
    assert.ok((server.stats().gauges['memory_used'] ?? 0) <= before)
    // the identity of the client was forgotten: it is the same client
    await transfer(client, 1000)
  })
})

test.run()
