/** UDP of an adapter. */

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { SocketAddress } from '../../host/net/address.ts'
import type { UdpHandlers, UdpMode, UdpOptions, UdpSocket } from '../../host/runtime.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { ANY6, LOCALHOST, LOCALHOST6, type Subject } from './subject.ts'

/** Upper limit of the number of send buffers. */
const MAX_BUFFERS = 4096
/** Lower limit of the number of send buffers. */
const MIN_BUFFERS = 64

/** Records its callbacks. */
class Recorder implements UdpHandlers {
  readonly received: { bytes: number[]; length: number; from: SocketAddress }[] = []
  readonly errors: NodeJS.ErrnoException[] = []
  batchEnds = 0
  writable = 0
  /** Datagrams since the last onBatchEnd. */
  open = 0
  /** An owner's call is running: no callback may be made. */
  inside = false
  reentered = false

  onDatagram(data: Uint8Array, from: SocketAddress): void {
    this.#look()
    this.open += 1
    this.received.push({ bytes: Array.from(data.subarray(0, 8)), length: data.length, from })
  }

  onBatchEnd(): void {
    this.#look()
    this.open = 0
    this.batchEnds += 1
  }

  onWritable(): void {
    this.#look()
    this.writable += 1
  }

  onError(error: NodeJS.ErrnoException): void {
    this.#look()
    this.errors.push(error)
  }

  #look(): void {
    if (this.inside) this.reentered = true
  }
}

export function udpConformance({ runtime, hidesRefusals }: Subject, hasIpv6: boolean, path: UdpMode): void {
  const test = suite(`${runtime.name}: UDP, ${path}`)
  const sockets: UdpSocket[] = []

  async function open(options: UdpOptions): Promise<[UdpSocket, Recorder]> {
    const recorder = new Recorder()
    const socket = await runtime.openUdp({ ...options, path }, recorder)
    sockets.push(socket)
    return [socket, recorder]
  }

  /** Sends one datagram immediately. */
  function send(socket: UdpSocket, bytes: readonly number[], to: SocketAddress): void {
    const buffer = socket.acquire()
    if (buffer === null) throw new Error('no buffer')
    buffer.set(bytes)
    socket.send(buffer, bytes.length, to)
    socket.flush()
  }

  test.after.each(() => {
    for (const socket of sockets.splice(0)) socket.close()
  })

  async function echo(bind: SocketAddress): Promise<void> {
    const [server, atServer] = await open({ bind })
    const [client, atClient] = await open({ bind })
    assert.is(server.local.family, bind.family)
    assert.is(server.local.address, bind.address)
    assert.ok(server.local.port > 0)
    send(client, [1, 2, 3], server.local)
    await waitFor('the request', () => atServer.received.length === 1)
    const request = atServer.received[0]
    assert.equal(request?.bytes, [1, 2, 3])
    assert.equal(request?.from, client.local)
    send(server, [4, 5], request?.from ?? client.local)
    await waitFor('the answer', () => atClient.received.length === 1)
    assert.equal(atClient.received[0]?.bytes, [4, 5])
    assert.equal(atClient.received[0]?.from, server.local)
  }

  test('a datagram and its answer are delivered over IPv4', () => echo(LOCALHOST))

  const echo6 = 'a datagram and its answer are delivered over IPv6'
  const dual = 'an IPv6 wildcard socket also serves IPv4'
  if (!hasIpv6) {
    skip(test, echo6, 'no IPv6 here')
    skip(test, dual, 'no IPv6 here')
  } else {
    test(echo6, () => echo(LOCALHOST6))

    test(dual, async () => {
      const [server, atServer] = await open({ bind: ANY6 })
      const [client, atClient] = await open({ bind: LOCALHOST })
      send(client, [7], { ...LOCALHOST, port: server.local.port })
      await waitFor('the request', () => atServer.received.length === 1)
      const from = atServer.received[0]?.from ?? LOCALHOST
      assert.equal(from, { ...client.local, family: 6, address: '::ffff:127.0.0.1' })
      send(server, [8], from)
      send(server, [9], client.local)
      await waitFor('both answers', () => atClient.received.length === 2)
      assert.equal(
        atClient.received.map(({ bytes }) => bytes[0]),
        [8, 9],
      )
    })
  }

  test('2000 datagrams arrive in order, and each is followed by a batch end', async () => {
    const [server, atServer] = await open({ bind: LOCALHOST })
    const [client, atClient] = await open({ bind: LOCALHOST })
    // a round fits into the smallest default socket buffer
    const round = 40
    for (let sent = 0; sent < 2000; sent += round) {
      for (let i = sent; i < sent + round; i++) {
        const buffer = client.acquire()
        if (buffer === null) throw new Error('no buffer')
        buffer[0] = i >> 8
        buffer[1] = i & 255
        client.send(buffer, 2, server.local)
      }
      atClient.inside = true
      client.flush()
      atClient.inside = false
      await waitFor('the round', () => atServer.received.length === sent + round && atServer.open === 0)
    }
    const order = atServer.received.map(({ bytes }) => ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0))
    assert.equal(
      order,
      Array.from({ length: 2000 }, (_, i) => i),
    )
    assert.ok(atServer.batchEnds > 0 && atServer.batchEnds <= 1000)
    assert.not.ok(atClient.reentered)
    assert.equal(atClient.errors, [])
  })

  test('datagrams of one peer have the same address object, those of two peers different ones', async () => {
    const [server, atServer] = await open({ bind: LOCALHOST })
    const [first] = await open({ bind: LOCALHOST })
    const [second] = await open({ bind: LOCALHOST })
    for (const [i, client] of [first, first, second, first, second].entries()) {
      send(client, [i], server.local)
      await waitFor('the datagram', () => atServer.received.length === i + 1)
    }
    const [a, b, c, d, e] = atServer.received.map(({ from }) => from)
    assert.is(a, b)
    assert.is(a, d)
    assert.is(c, e)
    assert.is.not(a, c)
    assert.equal(a, first.local)
    assert.equal(c, second.local)
  })

  test('datagrams of 0, 1, 1500, 1501 and 9000 bytes are delivered with their length', async () => {
    const [server, atServer] = await open({ bind: LOCALHOST })
    const peer = createSocket('udp4')
    try {
      const lengths = [0, 1, 1500, 1501, 9000, 0]
      for (const [i, length] of lengths.entries()) {
        peer.send(new Uint8Array(length).fill(i), server.local.port, '127.0.0.1')
        await waitFor(`${length} bytes`, () => atServer.received.length === i + 1)
      }
      assert.equal(
        atServer.received.map(({ length }) => length),
        lengths,
      )
      assert.equal(atServer.received[4]?.bytes, [4, 4, 4, 4, 4, 4, 4, 4])
    } finally {
      peer.close()
    }
  })

  test('datagrams of 0 and 1500 bytes are sent', async () => {
    const [client] = await open({ bind: LOCALHOST })
    const peer = createSocket('udp4')
    const lengths: number[] = []
    peer.on('message', (data) => lengths.push(data.length))
    peer.bind(0, '127.0.0.1')
    await once(peer, 'listening')
    try {
      const to = { ...LOCALHOST, port: peer.address().port }
      send(client, [], to)
      send(client, new Array<number>(1500).fill(1), to)
      send(client, [], to)
      await waitFor('all', () => lengths.length === 3)
      assert.equal(lengths, [0, 1500, 0])
    } finally {
      peer.close()
    }
  })

  test('a connected socket survives ECONNREFUSED and receives only from its peer', async () => {
    const [gone] = await open({ bind: LOCALHOST })
    const remote = gone.local
    gone.close()
    const [client, atClient] = await open({ bind: LOCALHOST, connect: remote })
    if (process.platform === 'linux' && !(hidesRefusals && path === 'portable')) {
      await waitFor('the refusal', async () => {
        send(client, [1], remote)
        return atClient.errors.some(({ code }) => code === 'ECONNREFUSED')
      })
    } else {
      send(client, [1], remote)
    }
    // many at once: the pending error of the first makes the second call fail
    for (let i = 0; i < 20; i++) {
      const buffer = client.acquire()
      if (buffer !== null) client.send(buffer, 1, remote)
    }
    client.flush()

    // Deno closes a moment later
    let opened: [UdpSocket, Recorder] | undefined
    await waitFor('the port', async () => {
      opened = await open({ bind: remote }).catch(() => undefined)
      return opened !== undefined
    })
    if (opened === undefined) throw new Error('not opened')
    const [peer, atPeer] = opened
    const [other] = await open({ bind: LOCALHOST })
    await waitFor('a datagram after the refusal', async () => {
      send(client, [2], LOCALHOST)
      await sleep(5)
      return atPeer.received.length > 0
    })
    send(other, [66], client.local)
    send(peer, [3], client.local)
    await waitFor('its answer', () => atClient.received.length > 0)
    assert.equal(
      atClient.received.map(({ bytes }) => bytes),
      [[3]],
    )
    assert.equal(atClient.received[0]?.from, remote)
  })

  test('acquire() is bounded; onWritable is called once there is room again, and not before', async () => {
    const [server] = await open({ bind: LOCALHOST })
    const [client, atClient] = await open({ bind: LOCALHOST })
    const buffers: Uint8Array[] = []
    for (let buffer = client.acquire(); buffer !== null; buffer = client.acquire()) {
      assert.ok(buffer.length >= 1500)
      buffers.push(buffer)
      assert.ok(buffers.length <= MAX_BUFFERS, 'no bound')
    }
    assert.ok(buffers.length >= MIN_BUFFERS, `${buffers.length} buffers`)
    assert.is(new Set(buffers).size, buffers.length)
    assert.is(client.acquire(), null)
    await sleep(20)
    assert.is(atClient.writable, 0)
    atClient.inside = true
    for (const buffer of buffers) client.send(buffer, 100, server.local)
    client.flush()
    atClient.inside = false
    await waitFor('onWritable', () => atClient.writable > 0)
    assert.is(atClient.writable, 1)
    assert.not.ok(atClient.reentered)
    assert.is.not(client.acquire(), null)
  })

  test('sending more datagrams than there are buffers continues after onWritable', async () => {
    const [server, atServer] = await open({ bind: LOCALHOST })
    const [client, atClient] = await open({ bind: LOCALHOST })
    let sent = 0
    let writable = 0
    while (sent < 3000) {
      const buffer = client.acquire()
      if (buffer === null) {
        client.flush()
        await waitFor('onWritable', () => atClient.writable > writable)
        writable = atClient.writable
      } else {
        client.send(buffer, 1, server.local)
        sent += 1
      }
    }
    client.flush()
    // most are dropped by the receiver's full buffer
    await waitFor('some of them', () => atServer.received.length >= 50)
    assert.equal(atClient.errors, [])
  })

  test('a datagram that cannot be sent does not affect others', async () => {
    const [server, atServer] = await open({ bind: LOCALHOST })
    const [client, atClient] = await open({ bind: LOCALHOST })
    atClient.inside = true
    for (const to of [server.local, { ...LOCALHOST, port: 0 }, { ...LOCALHOST6, port: 9 }, server.local]) {
      const buffer = client.acquire()
      if (buffer === null) throw new Error('no buffer')
      client.send(buffer, 3, to)
    }
    client.flush()
    atClient.inside = false
    await waitFor('the good ones', () => atServer.received.length === 2)
    await waitFor('a hint', () => atClient.errors.length > 0)
    assert.not.ok(atClient.reentered)
    send(client, [5], server.local)
    await waitFor('another good one', () => atServer.received.length === 3)
  })

  test('a port in use rejects with EADDRINUSE, a foreign address with EADDRNOTAVAIL', async () => {
    const [server] = await open({ bind: LOCALHOST })
    const code = (options: UdpOptions): Promise<string | undefined> =>
      open(options).then(
        () => 'opened',
        (error: NodeJS.ErrnoException) => error.code,
      )
    assert.is(await code({ bind: server.local }), 'EADDRINUSE')
    assert.is(await code({ bind: { ...LOCALHOST, address: '192.0.2.1' } }), 'EADDRNOTAVAIL')
  })

  test('no callback follows close(), which may be called in a callback and twice', async () => {
    const [client] = await open({ bind: LOCALHOST })
    const received: number[] = []
    const socket = await runtime.openUdp(
      { bind: LOCALHOST, path },
      {
        onDatagram(data) {
          received.push(data[0] ?? 0)
          socket.close()
        },
        onBatchEnd: () => received.push(-1),
        onWritable: () => received.push(-2),
        onError: () => received.push(-3),
      },
    )
    for (const i of [1, 2, 3]) {
      const buffer = client.acquire()
      if (buffer === null) throw new Error('no buffer')
      buffer[0] = i
      client.send(buffer, 1, socket.local)
    }
    client.flush()
    await waitFor('the first', () => received.length > 0)
    socket.close()
    const buffer = socket.acquire()
    if (buffer !== null) socket.send(buffer, 1, client.local)
    socket.flush()
    await sleep(30)
    assert.equal(received, [1])
  })

  test.run()
}
