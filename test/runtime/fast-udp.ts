/**
 * Batched UDP where it differs from a socket that sends and receives single datagrams: runs of datagrams, routes
 * without segmentation offload, full buffers. Runs in its own network namespace where root can create one.
 * fast-udp.*.test.ts run it.
 */

import { spawn, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NotAvailable } from '../../host/errors.ts'
import { AF_INET, SOCK_DGRAM } from '../../host/linux/libc.ts'
import { openFastUdp, openUdpByMode } from '../../host/linux/open-udp.ts'
import { syscallsOf } from '../../host/linux/syscalls.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { DatagramKind, Libc, Runtime, UdpHandlers, UdpSocket } from '../../host/runtime.ts'
import { clock } from '../../runtime-shared/clock.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { inNamespace } from '../system/inside.ts'
import { ANY6, LOCALHOST, LOCALHOST6 } from './subject.ts'

/** Datagrams of putRun. */
const RUN = 31
const ANY4: SocketAddress = { family: 4, address: '0.0.0.0', port: 0, scope: 0 }

/** Runs `ip`. */
async function ip(command: string): Promise<void> {
  const [code] = await once(spawn('ip', command.split(' ')), 'close')
  assert.is(code, 0, command)
}

/** Records the number and length of each received datagram, by sender. */
class Inbox implements UdpHandlers {
  readonly from = new Map<number, [number, number][]>()
  readonly errors: string[] = []
  readonly addresses: SocketAddress[] = []
  readonly lengths: number[] = []
  count = 0
  batches = 0
  writable = 0

  onDatagram(data: Uint8Array, address: SocketAddress): void {
    const { port } = address
    if (this.addresses.at(-1) !== address) this.addresses.push(address)
    const list = this.from.get(port) ?? []
    list.push([((data[0] ?? 0) << 8) | (data[1] ?? 0), data.length])
    this.from.set(port, list)
    this.count++
    this.lengths.push(data.length)
    for (const byte of data.subarray(2)) if (byte !== data[2]) this.errors.push('torn')
  }

  onBatchEnd(): void {
    this.batches++
  }

  onWritable(): void {
    this.writable++
  }

  onError(error: NodeJS.ErrnoException): void {
    this.errors.push(error.code ?? error.message)
  }
}

export function fastUdpTests(runtime: Runtime): void {
  const test = suite(`${runtime.name}: fast UDP`)
  const names = {
    runs: 'runs of one size with a shorter last datagram arrive in order, one by one, with the right sender',
    mixed: 'receivers and sizes may alternate',
    plain: 'the socket of another program receives the same datagrams',
    fragments: 'with do not fragment, only datagrams that may be fragmented are',
    mtu: 'a route that rejects runs gets single datagrams from then on, without loss',
    asked: 'answers leave from the address that was asked, merged runs too',
    vanished: 'an address that vanished is replaced by the one that the system selects, and runs stay merged',
    linkLocal: 'an answer from a link-local address leaves through its interface',
    free: 'an announced address is left to the system',
    brought: 'an inherited bound socket is used, and datagrams that wait in it are received',
    held: 'a held socket reports nothing until it is asked, and by itself again afterwards, also what arrived meanwhile',
    full: 'a full socket buffer delays datagrams without loss',
    forbidden: 'a sandbox that forbids the batch calls is treated as a system without them',
    none: 'without these calls `fast` is rejected, and `auto` uses the portable path and reports the reason',
  }
  const inside = inNamespace(`fast-${runtime.name}`, (why) => {
    for (const name of Object.values(names)) skip(test, name, why)
    test.run()
  })
  if (!inside) return

  const sockets: UdpSocket[] = []
  async function open(bind: SocketAddress, connect?: SocketAddress): Promise<[UdpSocket, Inbox]> {
    const inbox = new Inbox()
    const socket = await runtime.openUdp(
      { bind, path: 'fast', replyFromAsked: true, ...(connect && { connect }) },
      inbox,
    )
    sockets.push(socket)
    return [socket, inbox]
  }
  /**
   * Sends datagrams until one arrives: Bun loses a SIGIO now and then when a child process has just ended.
   * @returns their sender, as the server knows it
   */
  async function ask(client: UdpSocket, to: SocketAddress, inbox: Inbox): Promise<SocketAddress> {
    const found = (): SocketAddress | undefined => inbox.addresses.findLast(({ port }) => port === client.local.port)
    await waitFor('the request', () => {
      put(client, 0, 100, to)
      client.flush()
      return found() !== undefined
    })
    const from = found()
    if (from === undefined) throw new Error('no sender')
    return from
  }
  /** Sends a run of 30 datagrams and a shorter one. */
  function putRun(socket: UdpSocket, to: SocketAddress): void {
    for (let i = 0; i < RUN; i++) put(socket, i, i === RUN - 1 ? 300 : 1200, to)
    socket.flush()
  }
  /** Queues one datagram of a run: its number, then the low byte of the number as filler. */
  function put(socket: UdpSocket, number: number, length: number, to: SocketAddress): void {
    const buffer = socket.acquire()
    if (buffer === null) throw new Error('no buffer')
    buffer.fill(number & 255, 0, length)
    buffer[0] = number >> 8
    buffer[1] = number & 255
    socket.send(buffer, length, to)
  }
  test.after.each(() => {
    for (const socket of sockets.splice(0)) socket.close()
  })

  test(names.runs, async () => {
    for (const bind of [LOCALHOST, LOCALHOST6]) {
      const [server, atServer] = await open(bind)
      const [first] = await open(bind)
      const [second] = await open(bind, server.local)
      const lengths: number[] = []
      for (let round = 0; round < 20; round++) {
        const wanted = 2 * (round + 1) * 31
        for (let i = 0; i < 31; i++) {
          const length = i === 30 ? 700 - round : 1400
          lengths.push(length)
          put(first, round * 31 + i, length, server.local)
          put(second, round * 31 + i, length, server.local)
        }
        first.flush()
        second.flush()
        await waitFor(`round ${round}`, () => atServer.count === wanted)
      }
      const expected = lengths.map((length, i) => [i, length])
      assert.equal(atServer.from.get(first.local.port), expected)
      assert.equal(atServer.from.get(second.local.port), expected)
      assert.ok(atServer.batches < atServer.count / 10, `${atServer.batches} batches of ${atServer.count}`)
      assert.equal(atServer.errors, [])
    }
  })

  test(names.mixed, async () => {
    const [a, atA] = await open(LOCALHOST)
    const [b, atB] = await open(LOCALHOST)
    const [client] = await open(LOCALHOST)
    const sent: [number, number][][] = [[], []]
    for (let i = 0; i < 120; i++) {
      const length = [100, 100, 1500, 3, 100, 1400, 1400][(i * i) % 7] ?? 100
      const which = (i >> 2) & 1
      sent[which]?.push([i, length])
      put(client, i, length, which === 0 ? a.local : b.local)
    }
    client.flush()
    await waitFor('all', () => atA.count + atB.count === 120)
    assert.equal(atA.from.get(client.local.port), sent[0])
    assert.equal(atB.from.get(client.local.port), sent[1])
  })

  test(names.plain, async () => {
    const [client, atClient] = await open(LOCALHOST)
    const peer = createSocket('udp4')
    const lengths: number[] = []
    peer.on('message', (data, from) => {
      lengths.push(data.length)
      peer.send(data, from.port, from.address)
    })
    peer.bind(0, '127.0.0.1')
    await once(peer, 'listening')
    try {
      for (let i = 0; i < 30; i++) put(client, i, 1200, { ...LOCALHOST, port: peer.address().port })
      client.flush()
      await waitFor('them there and back', () => atClient.count === 30)
      assert.equal(lengths, new Array<number>(30).fill(1200))
    } finally {
      peer.close()
    }
  })

  test(names.mtu, async () => {
    assert.is(spawnSync('ip', ['link', 'set', 'lo', 'mtu', '1280']).status, 0)
    const [server, atServer] = await open(LOCALHOST)
    const [client, atClient] = await open(LOCALHOST)
    for (let round = 1; round <= 3; round++) {
      for (let i = 0; i < 30; i++) put(client, i, 1400, server.local)
      client.flush()
      await waitFor(`round ${round}`, () => atServer.count === round * 30)
    }
    assert.equal(atClient.errors, [])
    assert.is(spawnSync('ip', ['link', 'set', 'lo', 'mtu', '65536']).status, 0)
  })

  for (const [bind, local] of [
    [LOCALHOST, LOCALHOST],
    [ANY6, { family: 6, address: '::1' }],
    [ANY6, LOCALHOST],
  ] as const) {
    test(`${names.fragments}: ${bind.address} to ${local.address}`, async () => {
      assert.is(spawnSync('ip', ['link', 'set', 'lo', 'mtu', '1280']).status, 0)
      const [server, atServer] = await open(bind)
      const [client, atClient] = await open(bind)
      const to = { ...server.local, ...local, port: server.local.port }
      const arrives = async (length: number, kind?: DatagramKind): Promise<boolean> => {
        const before = atServer.count
        const buffer = client.acquire()
        if (buffer === null) throw new Error('no buffer')
        client.send(buffer, length, to, true, kind)
        // arrives in any case, behind it
        put(client, 9, 50, to)
        client.flush()
        await waitFor('the small datagram', () => atServer.count > before && (atServer.lengths.at(-1) ?? 0) === 50)
        return atServer.count === before + 2
      }
      // by default the system fragments
      assert.is(await arrives(1400), true)
      assert.is(client.dontFragment?.(true), true)
      assert.is(await arrives(1200), true)
      assert.is(await arrives(1400, 'size test'), false)
      assert.equal(atClient.errors, [])
      assert.is(await arrives(1400, 'may fragment'), true)
      assert.is(await arrives(1400), false)
      assert.equal(atClient.errors, ['EMSGSIZE'])
      // a run is merged as before, and not given up because of what was too long
      putRun(client, to)
      await waitFor('the run', () => atServer.lengths.at(-1) === 300)
      assert.is(client.dontFragment?.(false), false)
      assert.is(await arrives(1400), true)
      assert.is(spawnSync('ip', ['link', 'set', 'lo', 'mtu', '65536']).status, 0)
    })
  }

  test(names.asked, async () => {
    await ip('addr add fd00::2/128 dev lo nodad')
    for (const [bind, asked, own] of [
      [ANY4, '127.0.0.2', '127.0.0.1'],
      [ANY4, '127.0.0.3', '127.0.0.3'],
      [ANY6, 'fd00::2', '::1'],
      [ANY6, '127.0.0.2', '127.0.0.1'],
    ] as const) {
      const [server, atServer] = await open(bind)
      const family = asked.includes(':') ? 6 : 4
      const to = { family, address: asked, port: server.local.port, scope: 0 } as const
      // connected: hears nobody else
      const [client, atClient] = await open({ family, address: own, port: 0, scope: 0 }, to)
      putRun(client, to)
      await waitFor('the request', () => atServer.count === RUN)
      const [from, ...others] = atServer.addresses
      assert.equal(others, [], 'one peer, one object')
      if (from === undefined) throw new Error('no sender')
      for (let round = 1; round <= 3; round++) {
        putRun(server, from)
        await waitFor(`answer ${round} of ${asked}`, () => atClient.count === round * RUN)
      }
      assert.ok(atClient.batches <= 3, `${atClient.batches} batches: the runs were not merged`)
      assert.equal(atServer.errors, [])
    }
  })

  test(names.vanished, async () => {
    for (const [bind, asked, own] of [
      [ANY4, '192.0.2.9', '127.0.0.1'],
      [ANY6, 'fd00::9', '::1'],
      [ANY6, '192.0.2.9', '127.0.0.1'],
    ] as const) {
      const family = asked.includes(':') ? 6 : 4
      const prefix = family === 6 ? 128 : 32
      await ip(`addr add ${asked}/${prefix} dev lo${family === 6 ? ' nodad' : ''}`)
      const [server, atServer] = await open(bind)
      const [client, atClient] = await open({ family, address: own, port: 0, scope: 0 })
      const to = { family, address: asked, port: server.local.port, scope: 0 } as const
      const from = await ask(client, to, atServer)
      await ip(`addr del ${asked}/${prefix} dev lo`)
      for (let round = 1; round <= 3; round++) {
        putRun(server, from)
        await waitFor(`answer ${round} of ${asked}`, () => atClient.count === round * RUN)
      }
      assert.not.equal(atClient.addresses.at(-1)?.address, asked)
      assert.ok(atClient.batches <= 3, `${atClient.batches} batches: the runs were not merged`)
      assert.equal(atServer.errors, [])
    }
  })

  test(names.linkLocal, async () => {
    for (const name of ['d0', 'd1']) {
      await ip(`link add ${name} type veth peer name p${name}`)
      await ip(`link set p${name} up`)
      await ip(`addr add fe80::1/64 dev ${name} nodad`)
      await ip(`addr add fe80::2/64 dev ${name} nodad`)
      await ip(`link set ${name} up`)
    }
    const [server, atServer] = await open(ANY6)
    const calls = runtime.os && syscallsOf(runtime.os)
    for (const name of ['d0', 'd1']) {
      const scope = calls?.interfaceIndex(name) ?? 0
      const to = { family: 6, address: 'fe80::1', port: server.local.port, scope } as const
      const [client, atClient] = await open({ family: 6, address: 'fe80::2', port: 0, scope }, to)
      putRun(server, await ask(client, to, atServer))
      await waitFor('the answer', () => atClient.count === RUN)
    }
    assert.equal(atServer.errors, [])
  })

  test(names.free, async () => {
    const [server, atServer] = await open(ANY4)
    server.leaveFree?.({ family: 4, address: '127.0.0.2', port: 0, scope: 0 })
    const [client, atClient] = await open(LOCALHOST)
    for (const asked of ['127.0.0.2', '127.0.0.3']) {
      const before = atServer.count
      put(client, before, 100, { ...LOCALHOST, address: asked, port: server.local.port })
      client.flush()
      await waitFor('the request', () => atServer.count === before + 1)
      const from = atServer.addresses.at(-1)
      if (from === undefined) throw new Error('no sender')
      put(server, 0, 100, from)
      server.flush()
      await waitFor('the answer', () => atClient.count === before + 1)
    }
    assert.equal(
      atClient.addresses.map(({ address }) => address),
      ['127.0.0.1', '127.0.0.3'],
    )
  })

  test(names.brought, async () => {
    if (runtime.os === undefined) return
    const syscalls = syscallsOf(runtime.os)
    const fd = syscalls.socket(AF_INET, SOCK_DGRAM)
    syscalls.bind(fd, LOCALHOST, 'here')
    const local = syscalls.localAddress(fd)
    const [client] = await open(LOCALHOST)
    for (let i = 0; i < 3; i++) put(client, i, 100, local)
    client.flush()
    const inbox = new Inbox()
    const socketOptions = { reuseport: false, netdev: '', sndbuf: 0, rcvbuf: 0, fd, refused: () => {} }
    const socket = await runtime.openUdp({ bind: LOCALHOST, path: 'fast', socketOptions }, inbox)
    sockets.push(socket)
    assert.equal(socket.local, local)
    await waitFor('what waited', () => inbox.count === 3)
  })

  const shaper = 'tc qdisc add dev lo root tbf rate 10mbit burst 10k latency 1s'
  if (spawnSync('sh', ['-c', `${shaper} && tc qdisc del dev lo root`]).status !== 0) {
    skip(test, names.full, 'the kernel has no tbf queueing')
  } else {
    test(names.held, async () => {
      const [server, inbox] = await open(LOCALHOST)
      const [client] = await open(LOCALHOST, server.local)
      await ask(client, server.local, inbox)
      const turns = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30))
      await turns()
      server.hold?.(true)
      const before = inbox.count
      putRun(client, server.local)
      await turns()
      assert.is(inbox.count, before)
      server.collect?.()
      assert.is(inbox.count, before + RUN)
      putRun(client, server.local)
      await turns()
      assert.is(inbox.count, before + RUN)
      server.hold?.(false)
      await waitFor('what arrived meanwhile', () => inbox.count === before + 2 * RUN)
      putRun(client, server.local)
      await waitFor('what arrives later', () => inbox.count === before + 3 * RUN)
    })

    test(names.full, async () => {
      spawnSync('sh', ['-c', shaper])
      const [server, atServer] = await open(LOCALHOST)
      const inbox = new Inbox()
      const socketOptions = { reuseport: false, netdev: '', sndbuf: 8192, rcvbuf: 0, refused: () => {} }
      const client = await runtime.openUdp({ bind: LOCALHOST, path: 'fast', socketOptions }, inbox)
      sockets.push(client)
      // ten times the send buffer, and less than the receive buffer of a slow receiver
      for (let i = 0; i < 80; i++) put(client, i, 1200, server.local)
      client.flush()
      await waitFor('all', () => atServer.count === 80)
      assert.equal(
        atServer.from.get(client.local.port)?.map(([number]) => number),
        Array.from({ length: 80 }, (_, i) => i),
      )
      assert.equal(inbox.errors, [])
      spawnSync('sh', ['-c', 'tc qdisc del dev lo root'])
    })
  }

  test(names.forbidden, async () => {
    let descriptors = 0
    const done = (): number => 0
    const libc: Libc = {
      pointerBytes: 8,
      address: done,
      socket: () => ++descriptors,
      bind: done,
      connect: done,
      listen: done,
      setsockopt: done,
      getsockopt: done,
      getsockname: done,
      send: done,
      recv: done,
      recvmmsg: done,
      sendmmsg: () => -1,
      if_nametoindex: done,
      timerfd_create: done,
      timerfd_settime: done,
      pidfd_open: done,
      fcntl: done,
      poll: done,
      close: () => --descriptors,
      monotonic: () => 0n,
      errno: () => 38,
      errorName: (errno) => (errno === 38 ? 'ENOSYS' : '?'),
    }
    const calls = { clock, libc: () => libc, watch: () => ({ close: () => {} }) }
    const openUdp = openUdpByMode(calls, runtime.openUdp)
    const socket = await openUdp({ bind: LOCALHOST, path: 'auto' }, new Inbox())
    sockets.push(socket)
    assert.is(socket.path, 'portable (fast: not available: sendmmsg ENOSYS)')
    assert.is(descriptors, 0, 'no descriptor stays open')
  })

  test(names.none, async () => {
    const none = (): never => {
      throw new NotAvailable('not available: a reason')
    }
    const openUdp = openUdpByMode({ clock, libc: none, watch: none }, runtime.openUdp)
    await openUdp({ bind: LOCALHOST, path: 'fast' }, new Inbox()).then(
      () => assert.unreachable(),
      (error) => assert.ok(error instanceof NotAvailable),
    )
    const socket = await openUdp({ bind: LOCALHOST, path: 'auto' }, new Inbox())
    sockets.push(socket)
    assert.is(socket.path, 'portable (fast: not available: a reason)')
    sockets.push(await openUdp({ bind: LOCALHOST }, new Inbox()))
    assert.is(sockets[1]?.path, 'portable')
    const [fast] = await open(LOCALHOST)
    assert.match(fast.path ?? '', /^fast /)
    assert.throws(() => openFastUdp({ clock, libc: none, watch: none }, { bind: LOCALHOST }, new Inbox()), /a reason/)
  })

  test.run()
}
