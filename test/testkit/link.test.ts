/** The emulated link, on which other tests depend, in both directions and with several clients. */

import type { RemoteInfo, Socket } from 'node:dgram'
import { createSocket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Link, LinkOptions } from '../../testkit/link.ts'
import { openLink } from '../../testkit/link.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'

const TIMEOUT_MS = 20_000
const test = suite('emulated link')

interface Host {
  readonly socket: Socket
  readonly got: { readonly bytes: Buffer; readonly from: RemoteInfo; readonly at: number }[]
}

async function openHost(address: string): Promise<Host> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  const got: Host['got'] = []
  socket.on('message', (bytes: Buffer, from: RemoteInfo) => void got.push({ bytes, from, at: performance.now() }))
  await new Promise<void>((done) => socket.bind(0, address, done))
  return { socket, got }
}

async function withLink(
  options: Omit<LinkOptions, 'target'>,
  body: (link: Link, server: Host, client: Host) => Promise<void>,
  address = '127.0.0.1',
): Promise<void> {
  const [server, client] = await Promise.all([openHost(address), openHost(address)])
  const link = await openLink({ ...options, target: { host: address, port: server.socket.address().port } })
  try {
    await body(link, server, client)
  } finally {
    server.socket.close()
    client.socket.close()
    await link.close()
  }
}

/** Sends numbered datagrams no faster than the link receives them, so that no socket buffer overflows. */
async function sendNumbers(link: Link, client: Host, count: number): Promise<void> {
  const start = link.counters.up.packets
  for (let i = 0; i < count; i++) {
    const bytes = Buffer.alloc(100)
    bytes.writeUInt32BE(i)
    client.socket.send(bytes, link.port, link.host)
    if (i % 50 === 49 || i === count - 1) {
      await waitFor('the link has them', () => link.counters.up.packets === start + i + 1, TIMEOUT_MS)
    }
  }
}

const numbers = (host: Host): number[] => host.got.map(({ bytes }) => bytes.readUInt32BE())

for (const address of ['127.0.0.1', '::1']) {
  test(`datagrams cross it unchanged in both directions after the delay: ${address}`, async () => {
    const options = { delay: 30 }
    await withLink(
      options,
      async (link, server, client) => {
        const start = performance.now()
        client.socket.send('ping', link.port, link.host)
        await waitFor('the server has it', () => server.got.length === 1, TIMEOUT_MS)
        const [ping] = server.got
        assert.is(ping?.bytes.toString(), 'ping')
        assert.ok((ping?.at ?? 0) - start >= 29, 'not before the delay')
        server.socket.send('pong', ping?.from.port ?? 0, ping?.from.address ?? '')
        await waitFor('the client has the answer', () => client.got.length === 1, TIMEOUT_MS)
        assert.is(client.got[0]?.bytes.toString(), 'pong')
        assert.is(client.got[0]?.from.port, link.port)
        assert.ok((client.got[0]?.at ?? 0) - start >= 58, 'not before two delays')
      },
      address,
    )
  })
}

test('loss follows the seed: the same datagrams are lost each time', async () => {
  const runs: number[][] = []
  for (const seed of [5, 5, 6]) {
    await withLink({ loss: 0.2, seed }, async (link, server, client) => {
      await sendNumbers(link, client, 500)
      await waitFor('the rest arrives', () => server.got.length === link.counters.up.delivered, TIMEOUT_MS)
      assert.is(link.counters.up.lost + link.counters.up.delivered, 500)
      runs.push(numbers(server))
    })
  }
  assert.equal(runs[0], runs[1])
  assert.not.equal(runs[0], runs[2])
  const arrived = runs[0]?.length ?? 0
  assert.ok(arrived > 350 && arrived < 450, `${arrived} of 500 arrived at 20 % loss`)
})

test('losses occur in bursts when configured, at the same rate', async () => {
  await withLink({ loss: 0.1, burst: 5, seed: 1 }, async (link, server, client) => {
    await sendNumbers(link, client, 4000)
    await waitFor('the rest arrives', () => server.got.length === link.counters.up.delivered, TIMEOUT_MS)
    const { lost } = link.counters.up
    assert.ok(lost > 200 && lost < 700, `${lost} of 4000 lost`)
    const runs = numbers(server).filter((value, i, all) => value - (all[i - 1] ?? -1) > 1).length
    assert.ok(lost / runs > 3, `mean burst length ${lost / runs}`)
  })
})

test('jitter keeps the order, reordering breaks it, duplicates arrive twice, corruption flips one bit', async () => {
  await withLink({ delay: 2, jitter: 10 }, async (link, server, client) => {
    await sendNumbers(link, client, 300)
    await waitFor('all arrive', () => server.got.length === 300, TIMEOUT_MS)
    assert.equal(
      numbers(server),
      Array.from({ length: 300 }, (_, i) => i),
    )
  })
  await withLink({ delay: 2, reorder: 0.1, duplicate: 0.1, corrupt: 0.1, seed: 3 }, async (link, server, client) => {
    await sendNumbers(link, client, 500)
    const { up } = link.counters
    await waitFor('all arrive', () => server.got.length === 500 + up.duplicated, TIMEOUT_MS)
    assert.ok(up.duplicated > 20 && up.reordered > 20 && up.corrupted > 20, JSON.stringify(up))
    const setBits = server.got.map(({ bytes }) =>
      bytes.subarray(4).reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0),
    )
    assert.ok(setBits.every((bits) => bits <= 1))
    assert.ok(setBits.filter((bits) => bits === 1).length > 15)
    const values = numbers(server)
    assert.ok(
      values.some((value, i) => value < (values[i - 1] ?? 0)),
      'some were reordered',
    )
  })
})

test('a rate limit delays datagrams and drops them when its queue is full', async () => {
  // 128 bytes on the wire at 1 Mbit/s take about 1 ms; the queue holds 40 of them
  await withLink({ rate: 1e6, queue: 40 * 128 }, async (link, server, client) => {
    const start = performance.now()
    for (let i = 0; i < 100; i++) client.socket.send(Buffer.alloc(100), link.port, link.host)
    const { up } = link.counters
    await waitFor('all were processed', () => up.packets === 100, TIMEOUT_MS)
    await waitFor('all arrive', () => server.got.length === 100 - up.overflowed, TIMEOUT_MS)
    assert.ok(up.overflowed > 0, 'the queue overflowed')
    assert.ok(server.got.length >= 40)
    assert.ok((server.got.at(-1)?.at ?? 0) - start > 35, 'the last one was queued behind the others')
  })
})

test('two clients are distinguished and get their own answers; rebind changes their address', async () => {
  await withLink({}, async (link, server, client) => {
    const other = await openHost('127.0.0.1')
    server.socket.on('message', (bytes: Buffer, from: RemoteInfo) => server.socket.send(bytes, from.port, from.address))
    client.socket.send('first', link.port, link.host)
    other.socket.send('second', link.port, link.host)
    await waitFor('both have an answer', () => client.got.length === 1 && other.got.length === 1, TIMEOUT_MS)
    assert.is(client.got[0]?.bytes.toString(), 'first')
    assert.is(other.got[0]?.bytes.toString(), 'second')
    assert.is(link.clients, 2)
    link.rebind()
    client.socket.send('third', link.port, link.host)
    await waitFor('the answer comes to the new address', () => client.got.length === 2, TIMEOUT_MS)
    assert.is(new Set(server.got.map(({ from }) => from.port)).size, 3)
    other.socket.close()
  })
})

test('a blackholed link delivers nothing, a healed one everything', async () => {
  await withLink({ delay: 1 }, async (link, server, client) => {
    link.blackhole('up')
    await sendNumbers(link, client, 10)
    assert.is(link.counters.up.lost, 10)
    link.heal()
    await sendNumbers(link, client, 10)
    await waitFor('all arrive', () => server.got.length === 10, TIMEOUT_MS)
    await sleep(5)
    assert.is(server.got.length, 10)
  })
})

test.run()
