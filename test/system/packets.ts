/**
 * Packet and raw sockets, and what makes descriptors of system calls usable: batches, filters, the event loop, adoption.
 * packets.*.test.ts run it, in a network namespace of its own where root can make one.
 */

import { spawnSync } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NotAvailable } from '../../host/errors.ts'
import { PacketSocket } from '../../host/linux/packet-socket.ts'
import { syscallsOf } from '../../host/linux/syscalls.ts'
import { writeRecord } from '../../host/net/address.ts'
import type { OperatingSystem, TcpConnection, TcpHandlers } from '../../host/runtime.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { inNamespace } from './inside.ts'
import {
  FAMILIES,
  type Family,
  LOCALHOST,
  numbered,
  PacketBench,
  packetTo,
  portFilter,
  RX_CAPACITY,
  SLOTS,
  TX_STRIDE,
} from './packet-bench.ts'

/** The loopback interface of every namespace. */
const LO = 1
const NOBODY = 65534
const PAGE_BYTES = 65536

/** Callbacks of one TCP connection, in order. */
class Story implements TcpHandlers {
  readonly lines: string[] = []
  #text = new TextDecoder()

  readonly opened = (): void => void this.lines.push('open')

  onData(chunk: Uint8Array): void {
    this.lines.push(`data ${this.#text.decode(chunk)}`)
  }

  onEnd(): void {
    this.lines.push('end')
  }

  onDrain(): void {}

  onClose(error?: NodeJS.ErrnoException): void {
    this.lines.push(`close ${error?.code}`)
  }
}

function write(connection: TcpConnection, text: string): void {
  const buffer = connection.writeBuffer()
  assert.is(connection.write(buffer, new TextEncoder().encodeInto(text, buffer).written), text.length)
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

/** @param runtime part of the namespace's name: two of them may run at once */
export async function packetsTests(os: OperatingSystem, runtime: string): Promise<void> {
  const test = suite('packets')
  const names = {
    ...Object.fromEntries(
      FAMILIES.map((family) => [family, `packets to one port fill the slots in order, IPv${family}`]),
    ),
    cut: 'a packet longer than its slot is truncated, and its length reported',
    again: 'a new filter and interface apply to the open socket',
    refused: 'packets refused by the system are reported and skipped; the others are sent',
    down: 'packets arrive again after an interface went down and came back, twice',
    grow: 'memory may grow between batches',
    close: 'no callback follows close(), which may be called within a batch',
    listener: 'a cover socket listens, and its connections carry text with a tiny window',
    refusedDial: 'a refused cover connection is reported once, and never as open',
    released: 'a cover connection that is closed while it connects reports nothing',
    source: 'reports the source address of packets to a destination, and the index of an interface',
    dropped: 'after root is dropped open sockets keep working and can be attached again; new ones fail with the remedy',
  }
  const inside = inNamespace(`packets-${runtime}`, (why) => {
    for (const name of Object.values(names)) skip(test, name, why)
    test.run()
  })
  if (!inside) return
  const benches: PacketBench[] = []
  const open = (family: Family): PacketBench => {
    const bench = new PacketBench(os, family)
    benches.push(bench)
    return bench
  }
  test.after.each(() => {
    for (const bench of benches.splice(0)) bench.close()
  })

  for (const family of FAMILIES) {
    test(`packets to one port fill the slots in order, IPv${family}`, async () => {
      const bench = open(family)
      const other = open(family)
      bench.attach(1000)
      other.attach(1001, LO)
      for (let sent = 0; sent < 640; sent += SLOTS) {
        // every third one is for the other port, every sixteenth descriptor has nothing
        const packets = range(sent, sent + SLOTS).map((number) =>
          number % 16 === 15 ? undefined : packetTo(family, number % 3 === 0 ? 1001 : 1000, numbered(number)),
        )
        await bench.send(packets)
        const wanted = range(0, sent + SLOTS).filter((number) => number % 16 !== 15)
        await waitFor(
          'the packets',
          () => bench.received.length + other.received.length === wanted.length,
          undefined,
          () => `${bench.received.length} + ${other.received.length} of ${wanted.length}`,
        )
        assert.equal(
          bench.numbers,
          wanted.filter((number) => number % 3 !== 0),
        )
        assert.equal(
          other.numbers,
          wanted.filter((number) => number % 3 === 0),
        )
      }
      const first = bench.received[0]
      const sent = packetTo(family, 1000, numbered(1))
      // the kernel fills in identification and checksum of an IPv4 header
      assert.equal(first?.subarray(family === 4 ? 12 : 0), sent.subarray(family === 4 ? 12 : 0))
      assert.ok(Math.max(...bench.batches) > 8, `several at a time: ${bench.batches}`)
      assert.equal(bench.errors, [])
    })
  }

  test(names.cut, async () => {
    const bench = open(4)
    bench.attach(1000, LO)
    await bench.send([packetTo(4, 1000, numbered(1, 3000)), packetTo(4, 1000, numbered(2))])
    await waitFor('both', () => bench.received.length === 2)
    assert.equal(
      bench.received.map(({ length }) => length),
      [3040, 140],
    )
    assert.is(bench.received[0]?.[RX_CAPACITY - 1], 1)
    assert.is(bench.received[0]?.[RX_CAPACITY], 0, 'nothing behind the slot')
    assert.equal(bench.numbers, [1, 2])
  })

  test(names.again, async () => {
    const bench = open(4)
    bench.attach(1000)
    await bench.send([packetTo(4, 1000, numbered(1)), packetTo(4, 1001, numbered(2))])
    await waitFor('the first', () => bench.received.length === 1)
    bench.attach(1001, LO)
    await bench.send([packetTo(4, 1000, numbered(3)), packetTo(4, 1001, numbered(4))])
    await waitFor('the second', () => bench.received.length === 2)
    assert.equal(bench.numbers, [1, 4])
    assert.throws(() => bench.attach(1000, 9999), /ENODEV/)
  })

  test(names.refused, async () => {
    const bench = open(4)
    bench.attach(1000)
    const bytes = packetTo(4, 1000, numbered(7))
    bench.fill([bytes, bytes, bytes, bytes])
    const all = new Uint8Array(bench.memory.buffer)
    const record = (i: number): number => bench.tx + i * TX_STRIDE + 32
    writeRecord({ family: 4, address: '198.51.100.1', port: 1, scope: 0 }, all, record(1))
    writeRecord(LOCALHOST[6], all, record(2))
    assert.is(bench.raw.send(bench.tx, 0, 4), 4)
    assert.equal(bench.errors, ['ENETUNREACH'])
    await waitFor('the good ones', () => bench.received.length === 2)
    bench.errors.length = 0
    bench.fill([new Uint8Array(1), bytes])
    assert.is(bench.raw.send(bench.tx, 0, 2), 2)
    assert.is(bench.errors.length, 1, 'half a header')
    await waitFor('the good one', () => bench.received.length === 3)
  })

  test(names.down, async () => {
    const bench = open(4)
    bench.attach(1000, LO)
    for (let cycle = 0; cycle < 3; cycle++) {
      const before = bench.received.length
      await waitFor('a packet', async () => {
        await bench.send([packetTo(4, 1000, numbered(cycle))])
        return bench.received.length > before
      })
      // not with the last packet still on its way
      await sleep(20)
      const received = bench.received.length
      assert.is(spawnSync('ip', ['link', 'set', 'lo', 'down']).status, 0)
      await sleep(30)
      assert.is(bench.received.length, received)
      assert.is(spawnSync('ip', ['link', 'set', 'lo', 'up']).status, 0)
    }
  })

  test(names.grow, async () => {
    const bench = open(6)
    bench.attach(1000)
    for (let number = 0; number < 5; number++) {
      bench.memory.grow(1)
      await bench.send([packetTo(6, 1000, numbered(number))])
      bench.memory.grow((1 << 20) / PAGE_BYTES)
      await waitFor('a packet', () => bench.received.length === number + 1)
    }
    assert.equal(bench.numbers, [0, 1, 2, 3, 4])
    bench.attach(1001)
    await bench.send([packetTo(6, 1001, numbered(5))])
    await waitFor('another', () => bench.received.length === 6)
  })

  test(names.close, async () => {
    const batches: string[] = []
    const bench = open(4)
    const memory = bench.memory
    const short = new PacketSocket(os, 4, memory, bench.rx, 4, 0, (count) => {
      batches.push(`batch ${count}`)
      short.close()
      short.close()
    })
    bench.fill(range(0, 32).map((number) => packetTo(4, 1000, numbered(number))))
    bench.attach(1000)
    short.attach(LO, bench.filter, portFilter(4, 1000).length)
    bench.raw.send(bench.tx, 0, 32)
    await waitFor('the batch', () => batches.length > 0)
    await waitFor('the packets of the other endpoint', () => bench.received.length === 32)
    assert.is(batches.length, 1)
  })

  test(names.listener, async () => {
    for (const family of FAMILIES) {
      const syscalls = syscallsOf(os)
      const fd = syscalls.coverSocket(family, { reuseport: true })
      syscalls.bind(fd, LOCALHOST[family], 'here')
      syscalls.listen(fd, 16)
      const atServer = new Story()
      const accepted: TcpConnection[] = []
      const options = { nodelay: true, keepalive: false }
      const listener = await os.adoptListener(
        fd,
        options,
        (connection) => {
          accepted.push(connection)
          return accepted.length === 1 ? atServer : null
        },
        () => {},
      )
      assert.equal({ ...listener.local, port: 0 }, LOCALHOST[family])
      const queue = spawnSync('ss', ['-tlnH', `sport = ${listener.local.port}`], { encoding: 'utf8' })
      if (queue.status === 0) assert.match(queue.stdout, /LISTEN +0 +16 /, 'the backlog of protocol.md 9.2')

      const cover = syscalls.coverSocket(family)
      syscalls.connect(cover, listener.local)
      const local = syscalls.localAddress(cover)
      const atClient = new Story()
      const client = os.adoptConnection(cover, atClient, () => {
        atClient.opened()
        write(client, 'GET /')
        client.resume()
      })
      await waitFor('the connection', () => accepted.length === 1)
      const [server] = accepted
      if (server === undefined) return
      assert.equal(server.remote, local)
      server.resume()
      await waitFor('the request', () => atServer.lines.join('').includes('GET /'))
      write(server, '204')
      await waitFor('the answer', () => atClient.lines.length === 2)
      assert.equal(atClient.lines, ['open', 'data 204'])
      client.end()
      await waitFor('the end', () => atServer.lines.includes('end'))
      server.end()
      await waitFor('both ends', () => atServer.lines.includes('close undefined'))
      await waitFor('both ends', () => atClient.lines.includes('close undefined'))
      assert.equal(atClient.lines, ['open', 'data 204', 'end', 'close undefined'])

      const second = syscalls.coverSocket(family)
      syscalls.connect(second, listener.local)
      const refused = new Story()
      const third = os.adoptConnection(second, refused, refused.opened)
      third.resume()
      await waitFor('the refusal of the second', () => refused.lines.includes('end'))
      third.reset()
      listener.close()
    }
  })

  test(names.refusedDial, async () => {
    for (const family of FAMILIES) {
      const story = new Story()
      const fd = syscallsOf(os).coverSocket(family)
      syscallsOf(os).connect(fd, { ...LOCALHOST[family], port: 9 })
      os.adoptConnection(fd, story, story.opened)
      assert.equal(story.lines, [])
      await waitFor('the refusal', () => story.lines.length > 0)
      await sleep(20)
      assert.equal(story.lines, ['close ECONNREFUSED'])
    }
  })

  test(names.released, async () => {
    for (const way of ['close', 'reset'] as const) {
      const story = new Story()
      const fd = syscallsOf(os).coverSocket(4)
      syscallsOf(os).connect(fd, { ...LOCALHOST[4], port: 9 })
      os.adoptConnection(fd, story, story.opened)[way]()
      await sleep(30)
      assert.equal(story.lines, [])
    }
  })

  test(names.source, () => {
    const syscalls = syscallsOf(os)
    for (const family of FAMILIES)
      assert.equal(syscalls.sourceFor({ ...LOCALHOST[family], port: 7 }), LOCALHOST[family])
    assert.throws(() => syscalls.sourceFor({ ...LOCALHOST[4], address: '198.51.100.1' }), /ENETUNREACH 198.51.100.1/)
    assert.is(syscalls.interfaceIndex('lo'), LO)
    assert.throws(() => syscalls.interfaceIndex('nosuchdev0'), /ENODEV: no such interface: nosuchdev0/)
  })

  // the last one: there is no way back
  test(names.dropped, async () => {
    const bench = open(4)
    bench.attach(1000)
    os.identity?.setgroups([])
    os.identity?.setgid(NOBODY)
    process.setuid?.(NOBODY)
    bench.attach(1001, LO)
    await bench.send([packetTo(4, 1000, numbered(1)), packetTo(4, 1001, numbered(2))])
    await waitFor('the packet', () => bench.received.length === 1)
    assert.equal(bench.numbers, [2])
    const remedies = /CAP_NET_RAW.*setcap cap_net_raw\+ep.*AmbientCapabilities=CAP_NET_RAW.*-u/
    for (const attempt of [() => syscallsOf(os).packetSocket(4), () => syscallsOf(os).rawSocket(6)]) {
      assert.throws(attempt, (error: unknown) => error instanceof NotAvailable && remedies.test(error.message))
    }
  })

  test.run()
}
