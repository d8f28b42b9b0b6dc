/** Hops of a client between the ports of its server, in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Driver } from '../../host/driver/driver.ts'
import { Info } from '../../host/engine/abi.ts'
import { Log } from '../../host/log/log.ts'
import type { PortRange, SocketAddress } from '../../host/net/address.ts'
import type { UdpOptions, UdpSocket } from '../../host/runtime.ts'
import { PortHop } from '../../host/transport/port-hop.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const at = (port: number): SocketAddress => ({ family: 4, address: '192.0.2.1', port, scope: 0 })

const test = suite('port hop')

class Scene {
  readonly clock = new VirtualClock()
  ports: PortRange | undefined = { first: 4000, last: 4002 }
  /** Remote ports of the sockets that were opened. */
  readonly opened: number[] = []
  /** Number of the sockets that are open; the last one sends. */
  readonly open: { readonly local: SocketAddress }[] = []
  receivedAt = 0
  sent = 0n
  opening = 0n
  waiting = 0n
  /** What sessions may send at once: an application that does not read closes the window. */
  window = 1024
  /** Whether the server answers sessions at a new socket. */
  follows = true
  /** Whether datagrams to a port are lost. */
  isBlocked = (_port: number): boolean => false
  #deliver: (data: Uint8Array, from: SocketAddress) => void = () => {}
  received = 0n
  /** What applications wrote. */
  written = 0n
  pongs = 0n
  isAnswering = true
  /** Datagrams of the server arrive, those of the client do not. */
  isOneWay = false
  datagrams = 0n
  asked = 0
  readonly lines: string[] = []
  readonly hop: PortHop

  constructor() {
    const scene = this
    const counters = (name: string): bigint => {
      if (name === 'pkt_sent') return scene.sent
      if (name === 'sessions_connect') return scene.opening
      if (name === 'waitsnd') return scene.waiting
      if (name === 'tcp_read_bytes') return scene.written
      if (name === 'pongs_received') return scene.pongs
      if (/aborted|acks|duplicate/.test(name)) return 0n
      return name === 'pkt_received' ? scene.datagrams : scene.received
    }
    const sessions = { session_slots: () => 2, session_info: (slot: number) => (slot === 0 ? -1 : 1) }
    const driver = {
      sockets: {
        get sender() {
          return scene.open.at(-1)
        },
        send: (socket: { readonly local: SocketAddress }) => {
          scene.open.splice(scene.open.indexOf(socket), 1)
          scene.open.push(socket)
        },
        remove: (socket: { readonly local: SocketAddress }) => scene.open.splice(scene.open.indexOf(socket), 1),
      },
      streams: { size: 4 },
      pongRtt: 50,
      receivedAge: () => scene.clock.monotonic() - scene.receivedAt,
      pingPeer: () => {
        scene.sent++
        if (scene.isAnswering && !scene.isOneWay && !scene.isBlocked(scene.opened.at(-1) ?? 0)) scene.pongs++
      },
      probeSessions: () => scene.asked++,
      now: () => 0,
      read: (call: (core: object) => unknown) =>
        call({ counter: counters, calls: sessions, info: () => scene.#info() }),
    }
    this.hop = new PortHop({
      driver: driver as unknown as Driver,
      log: new Log((_, text) => scene.lines.push(text)),
      clock: this.clock,
      range: () => scene.ports,
      interval: () => 30,
      inTurn: (action) => action(),
      wanted: () => ({ bind: at(0), connect: at(4000) }),
      replace: async (options) => scene.start(options),
      adopted() {},
      onHopped() {},
    })
    this.start(this.hop.options({ bind: at(0), connect: at(4000) }))
    this.hop.follow()
  }

  /** The block of a session. */
  #info(): DataView {
    const info = new DataView(new ArrayBuffer(Info.BYTES))
    info.setUint32(Info.waitsnd, Number(this.waiting), true)
    info.setUint32(Info.rmtWnd, this.window, true)
    return info
  }

  start(options: UdpOptions): void {
    const through = this.hop.through({
      openUdp: async (_, { onDatagram }) => {
        this.#deliver = onDatagram
        return {} as UdpSocket
      },
    })
    void through.openUdp(options, { onDatagram() {}, onBatchEnd() {}, onWritable() {}, onError() {} })
    this.opened.push(options.connect?.port ?? 0)
    this.open.push({ local: at(50_000 + this.opened.length) })
  }

  /** Passes time, in which the peer answers or not. */
  async pass(ms: number, answers = true): Promise<void> {
    this.isAnswering = answers
    for (let rest = ms; rest > 0; rest -= 100) {
      if (answers && !this.isBlocked(this.opened.at(-1) ?? 0)) {
        this.#deliver(new Uint8Array(1), at(4000))
        this.receivedAt = this.clock.monotonic()
        this.datagrams++
        this.written++
        if (!this.isOneWay && (this.follows || this.open.at(-1)?.local.port === 50_001)) this.received++
      }
      await this.clock.advance(100)
    }
  }
}

test('hops to another port of the range about every interval, never to the same', async () => {
  const scene = new Scene()
  await scene.pass(3_600_000)
  const { opened } = scene
  assert.ok(opened.length > 90 && opened.length < 170, `${opened.length} hops in an hour`)
  for (const [i, port] of opened.entries()) {
    assert.ok(port >= 4000 && port <= 4002)
    assert.is.not(port, opened[i - 1])
  }
  assert.is(new Set(opened).size, 3)
  assert.is(scene.asked, opened.length - 1, 'sessions ask for an answer after each')
})

test('a previous socket receives for a while, then it is closed', async () => {
  const scene = new Scene()
  while (scene.opened.length === 1) await scene.pass(100)
  assert.is(scene.open.length, 2)
  await scene.pass(11_000)
  assert.is(scene.open.length, 1)
})

test('hops at once when nothing is answered, less and less often while nothing arrives', async () => {
  const scene = new Scene()
  await scene.pass(1000)
  scene.sent++
  await scene.pass(3000, false)
  assert.is(scene.opened.length, 2, scene.lines.join(''))
  assert.match(scene.lines.join(''), 'no answer at port')
  for (let i = 0; i < 120; i++) {
    scene.sent++
    await scene.pass(1000, false)
  }
  assert.ok(scene.opened.length > 4 && scene.opened.length < 15, `${scene.opened.length} hops in 2 minutes`)
  assert.ok(scene.open.length <= 5)
})

test('where most ports are blocked, the client returns to the one that answered', async () => {
  const scene = new Scene()
  scene.ports = { first: 4000, last: 4999 }
  const [first = 0] = scene.opened
  scene.isBlocked = (port) => port !== first
  for (let second = 0; second < 300; second++) {
    scene.sent++
    await scene.pass(1000)
  }
  const tried = scene.opened.filter((port) => port !== first).length
  assert.ok(tried > 5, 'others are tried')
  for (const [i, port] of scene.opened.entries()) assert.ok(i % 2 === 1 || port === first, `${scene.opened}`)
})

test('hops at once when the server gets nothing, although its datagrams arrive', async () => {
  const scene = new Scene()
  await scene.pass(1000)
  scene.isOneWay = true
  scene.follows = false
  scene.waiting = 1n
  scene.sent++
  await scene.pass(4000)
  assert.ok(scene.opened.length > 1, scene.lines.join(''))
  assert.match(scene.lines.join(''), 'no answer at port')
})

test('an idle path is not dead', async () => {
  const scene = new Scene()
  await scene.pass(1000)
  await scene.pass(20_000, false)
  assert.is(scene.opened.length, 1)
})

test('a hop that is due waits for connections that are opening, but not for ever', async () => {
  const scene = new Scene()
  scene.opening = 1n
  await scene.pass(22_000)
  assert.is(scene.opened.length, 1)
  await scene.pass(18_000)
  assert.is(scene.opened.length, 2)
})

test('a server that answers pings but not the sessions is left at its port, and that is reported once', async () => {
  const scene = new Scene()
  scene.waiting = 1n
  scene.follows = false
  await scene.pass(300_000)
  assert.is(scene.opened.length, 3, scene.lines.join(''))
  assert.is(scene.lines.join('').match(/does not follow/g)?.length, 1)
  assert.is(scene.lines.join('').match(/back to port/g)?.length, 2)
  assert.is(scene.hop.where(at(4000))?.port, scene.opened[0])
})

test('an application that does not read for a while is not a server that does not follow', async () => {
  const scene = new Scene()
  scene.waiting = 1n
  scene.window = 0
  scene.follows = false
  await scene.pass(300_000)
  assert.ok(scene.opened.length > 7, `${scene.opened.length} hops`)
  assert.not.match(scene.lines.join(''), /does not follow|back to port/)
})

test('without a range there is one port and no timer', async () => {
  const scene = new Scene()
  scene.ports = undefined
  scene.hop.follow()
  await scene.pass(120_000)
  assert.is(scene.opened.length, 1)
  assert.is(scene.hop.options({ bind: at(0), connect: at(4000) }).connect?.port, 4000)
  assert.is(scene.hop.where(at(4000))?.port, 4000)
})

test.run()
