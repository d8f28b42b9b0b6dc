/** Several UDP sockets as one: whose socket sends, what waits, what is left out. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import type { DatagramKind, Runtime, UdpHandlers, UdpOptions, UdpSocket } from '../../host/runtime.ts'
import { JoinedUdp } from '../../host/transport/joined-udp.ts'

const test = suite('joined udp')

const v4 = (address: string, port = 0): SocketAddress => ({ family: 4, address, port, scope: 0 })
const v6 = (address: string, port = 0): SocketAddress => ({ family: 6, address, port, scope: 0 })

/** An address whose socket cannot set don't fragment. */
const CANNOT = '10.0.0.99'

/** A socket with room for some datagrams until it is flushed and drained. */
class StubSocket implements UdpSocket {
  readonly local: SocketAddress
  readonly options: UdpOptions
  readonly handlers: UdpHandlers
  /** Sent: the first byte, length and receiver of each. */
  readonly sent: string[] = []
  flushes = 0
  room = 1000
  isOpen = true
  isKept = true
  /** Calls of hold and collect. */
  readonly held: (boolean | 'collect')[] = []
  isWhole = false

  constructor(options: UdpOptions, handlers: UdpHandlers) {
    this.options = options
    this.handlers = handlers
    this.local = { ...options.bind, port: options.bind.port || 7777 }
  }

  acquire(): Uint8Array | null {
    return this.room-- > 0 ? new Uint8Array(2048) : null
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress, apart = false, kind = ''): void {
    this.sent.push(`${buffer[0]} ${length} ${formatAddress(to)}${apart ? ' apart' : ''}${kind && ` ${kind}`}`)
  }

  dontFragment(on: boolean): boolean {
    this.isWhole = on && this.local.address !== CANNOT
    return this.isWhole
  }

  flush(): void {
    this.flushes++
  }

  hold(isHeld: boolean): void {
    this.held.push(isHeld)
  }

  collect(): void {
    this.held.push('collect')
  }

  keepAlive(isKept: boolean): void {
    this.isKept = isKept
  }

  close(): void {
    this.isOpen = false
  }

  drain(): void {
    this.room = 1000
    this.handlers.onWritable()
  }
}

class Scene {
  readonly sockets: StubSocket[] = []
  readonly errors = new Map<string, string>()
  /** Peers of received datagrams. */
  readonly peers: SocketAddress[] = []
  writable = 0
  readonly joined: JoinedUdp

  constructor(...binds: SocketAddress[]) {
    const runtime: Pick<Runtime, 'openUdp'> = {
      openUdp: async (options, handlers) => {
        const code = this.errors.get(options.bind.address)
        if (code !== undefined) throw Object.assign(new Error(code), { code })
        const socket = new StubSocket(options, handlers)
        this.sockets.push(socket)
        return socket
      },
    }
    const handlers: UdpHandlers = {
      onDatagram: (_, from) => this.peers.push(from),
      onBatchEnd() {},
      onWritable: () => this.writable++,
      onError() {},
    }
    const all = binds.map((bind) => ({ bind, replyFromAsked: true }))
    this.joined = new JoinedUdp(runtime as Runtime, all, handlers)
  }

  socket(index: number): StubSocket {
    const socket = this.sockets[index]
    if (socket === undefined) throw new Error('not open')
    return socket
  }

  /** @returns whether there was a buffer */
  send(first: number, to: SocketAddress, apart = false, kind?: DatagramKind): boolean {
    const buffer = this.joined.acquire()
    if (buffer === null) return false
    buffer[0] = first
    this.joined.send(buffer, 100, to, apart, kind)
    return true
  }

  receive(index: number, from: SocketAddress): SocketAddress {
    this.socket(index).handlers.onDatagram(new Uint8Array(1), from)
    const peer = this.peers.at(-1)
    if (peer === undefined) throw new Error('nothing was received')
    return peer
  }
}

test('a peer is answered from the socket that it sent to', async () => {
  const scene = new Scene(v4('10.0.0.1', 5), v4('10.0.0.2', 5))
  assert.is((await scene.joined.open()).size, 0)
  const from = v4('10.9.9.9', 99)
  const [first, second] = [scene.receive(0, from), scene.receive(1, from)]
  assert.not.equal(first, second, 'the engine takes it for another path')
  assert.is(scene.receive(1, from), second, 'the same object for the same peer')
  scene.send(1, second)
  scene.send(2, first, true)
  scene.send(3, v4('10.8.8.8', 88))
  scene.joined.flush()
  assert.equal(scene.socket(0).sent, ['2 100 10.9.9.9:99 apart', '3 100 10.8.8.8:88'])
  assert.equal(scene.socket(1).sent, ['1 100 10.9.9.9:99'])
  assert.equal([scene.socket(0).flushes, scene.socket(1).flushes], [1, 1])
  scene.send(4, first)
  scene.joined.flush()
  assert.equal([scene.socket(0).flushes, scene.socket(1).flushes], [2, 1], 'only what was used')
})

test('with both families IPv4 addresses are mapped, and IPv4 sockets get them as they are', async () => {
  const scene = new Scene(v4('10.0.0.1', 5), v6('2001:db8::1', 5))
  await scene.joined.open()
  assert.equal(scene.joined.local, v6('2001:db8::1', 5))
  const mapped = scene.receive(0, v4('10.9.9.9', 99))
  assert.is(formatAddress(mapped), '[::ffff:10.9.9.9]:99')
  scene.send(1, mapped)
  scene.send(2, v6('::ffff:10.8.8.8', 88))
  scene.send(3, scene.receive(1, v6('2001:db8::9', 99)))
  scene.send(4, v6('2001:db8::8', 88))
  assert.equal(scene.socket(0).sent, ['1 100 10.9.9.9:99', '2 100 10.8.8.8:88'])
  assert.equal(scene.socket(1).sent, ['3 100 [2001:db8::9]:99', '4 100 [2001:db8::8]:88'])
})

test('what a full socket cannot take waits in order, and the others go on', async () => {
  const scene = new Scene(v4('10.0.0.1', 5), v4('10.0.0.2', 5))
  await scene.joined.open()
  const [first, second] = [scene.receive(0, v4('10.9.9.9', 1)), scene.receive(1, v4('10.9.9.9', 2))]
  scene.socket(0).room = 1
  for (let i = 0; i < 4; i++) scene.send(i, first)
  scene.send(9, second)
  assert.equal(scene.socket(0).sent, ['0 100 10.9.9.9:1'])
  assert.equal(scene.socket(1).sent, ['9 100 10.9.9.9:2'])
  scene.socket(0).drain()
  assert.equal(
    scene.socket(0).sent.map((line) => line[0]),
    ['0', '1', '2', '3'],
  )
  assert.is(scene.writable, 0, 'nobody waited for a buffer')
  scene.socket(0).room = 0
  let sent = 0
  while (scene.send(7, first)) sent++
  assert.ok(sent > 100 && sent <= 512, `${sent} datagrams wait`)
  scene.socket(0).drain()
  assert.is(scene.socket(0).sent.length, 4 + sent)
  assert.is(scene.writable, 1)
  assert.ok(scene.send(8, first))
})

test('an address that no interface has is left out, and opened when it exists', async () => {
  const scene = new Scene(v4('10.0.0.1', 5), v6('2001:db8::1', 5))
  scene.errors.set('2001:db8::1', 'EADDRNOTAVAIL')
  const missing = await scene.joined.open()
  assert.equal([...missing.keys()], [v6('2001:db8::1', 5)])
  assert.not.ok(scene.joined.isComplete)
  assert.equal(scene.joined.locals, [v4('10.0.0.1', 5)])
  scene.send(1, v6('2001:db8::9', 9))
  assert.equal(scene.socket(0).sent, [], 'there is no way to it')
  scene.joined.keepAlive(false)
  scene.errors.clear()
  assert.is((await scene.joined.open()).size, 0)
  assert.is(scene.sockets.length, 2, 'the other one stays')
  assert.not.ok(scene.socket(1).isKept)
  assert.ok(scene.joined.isComplete)
  scene.joined.close()
  assert.not.ok(scene.sockets.some(({ isOpen }) => isOpen))
})

test('all sockets are held, collect what arrived, and are released', async () => {
  const scene = new Scene(v4('10.0.0.1', 5), v4('10.0.0.2', 5))
  await scene.joined.open()
  scene.joined.hold(true)
  scene.joined.collect()
  scene.joined.hold(false)
  for (const { held } of scene.sockets) assert.equal(held, [true, 'collect', false])
})

test("don't fragment is in force if all sockets have it, also one that is opened later", async () => {
  const scene = new Scene(v4('10.0.0.1', 5), v4('10.0.0.2', 5))
  scene.errors.set('10.0.0.2', 'EADDRNOTAVAIL')
  await scene.joined.open()
  assert.is(scene.joined.dontFragment(true), true)
  scene.errors.clear()
  await scene.joined.open()
  assert.equal([scene.socket(0).isWhole, scene.socket(1).isWhole], [true, true])
  const peer = scene.receive(1, v4('10.9.9.9', 9))
  scene.send(1, peer, true, 'size test')
  scene.socket(1).room = 0
  scene.send(2, peer, true, 'may fragment')
  scene.socket(1).drain()
  scene.send(3, peer)
  assert.equal(scene.socket(1).sent, [
    '1 100 10.9.9.9:9 apart size test',
    '2 100 10.9.9.9:9 apart may fragment',
    '3 100 10.9.9.9:9',
  ])
  assert.is(scene.joined.dontFragment(false), false)
  assert.is(scene.socket(0).isWhole, false)
  const mixed = new Scene(v4('10.0.0.1', 5), v4(CANNOT, 5))
  await mixed.joined.open()
  assert.is(mixed.joined.dontFragment(true), false)
})

test('a port in use at one address is an error, and without a port all get the same one', async () => {
  const scene = new Scene(v4('10.0.0.1'), v4('10.0.0.2'))
  await scene.joined.open()
  assert.equal(
    scene.sockets.map(({ options }) => options.bind.port),
    [0, 7777],
  )
  const refused = new Scene(v4('10.0.0.1', 5), v4('10.0.0.2', 5))
  refused.errors.set('10.0.0.2', 'EADDRINUSE')
  await refused.joined.open().then(
    () => assert.unreachable('the port is taken'),
    (error) => assert.match(error.message, 'EADDRINUSE'),
  )
})

test.run()
