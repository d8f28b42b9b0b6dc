/** The obfuscated path as a socket: two sockets with an engine each, connected by arrays. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ObfsKind, ObfsRx, ObfsTx } from '../../host/engine/core.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { Clock } from '../../host/runtime.ts'
import { ObfsSocket } from '../../host/transport/obfs/socket.ts'
import { clock as realClock } from '../../runtime-shared/clock.ts'
import { address, EventType, ObfsHost } from '../../testkit/obfs-host.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { until } from './memory-runtime.ts'

const test = suite('obfs: socket')

const SERVER = '10.77.0.2:8080'
const CLIENT = '10.77.0.3:50000'

type ObfsName = 'dpi/tcp' | 'dpi/tcp-wnd'

/** One endpoint: an engine, its socket, and the received datagrams. */
class End {
  host: ObfsHost
  readonly socket: ObfsSocket
  readonly received: { data: Uint8Array; from: SocketAddress }[] = []
  batches = 0
  writable = 0
  /** Packets sent. */
  readonly wire: Uint8Array[] = []
  /** Number of packets that the raw socket accepts before it is full. */
  room = Number.POSITIVE_INFINITY
  closed = 0
  filterLength = 0
  #onBatch: (count: number) => void = () => {}

  constructor(role: 'server' | 'client', local: string, clock: Clock = realClock, kind: ObfsName = 'dpi/tcp') {
    this.host = new ObfsHost(kind, role, local)
    const current = (): ObfsHost => this.host
    const close = (): void => {
      this.closed++
    }
    this.socket = new ObfsSocket({
      get core() {
        return current().core
      },
      dead: false,
      clock,
      kind: kind === 'dpi/tcp' ? ObfsKind.TCP : ObfsKind.TCP_WND,
      handlers: {
        onDatagram: (data, from) => this.received.push({ data: data.slice(), from }),
        onBatchEnd: () => this.batches++,
        onWritable: () => this.writable++,
        onError() {},
      },
      now: () => this.host.now,
      caught: (error) => {
        throw error
      },
      openPacket: (onBatch) => {
        this.#onBatch = onBatch
        return {
          attach: (_ifindex, _filter, count) => {
            this.filterLength = count
          },
          close,
        }
      },
      openRaw: () => ({ send: (descriptors, from, count) => this.#leave(descriptors, from, count), close }),
    })
    this.socket.attach(address(local), 0)
  }

  /** Replaces the engine. */
  replace(role: 'server' | 'client', local: string): void {
    this.host = new ObfsHost('dpi/tcp', role, local)
    this.socket.engineReplaced()
    this.socket.attach(address(local), 0)
  }

  #leave(descriptors: number, from: number, count: number): number {
    const { u8, u32 } = this.host.core
    const taken = Math.min(count, this.room)
    this.room -= taken
    for (let i = from; i < from + taken; i++) {
      const at = (descriptors >>> 2) + i * ObfsTx.WORDS
      const ptr = u32[at + ObfsTx.packet] ?? 0
      const length = u32[at + ObfsTx.packetLength] ?? 0
      if (length > 0) this.wire.push(u8.slice(ptr, ptr + length))
    }
    return taken
  }

  /** Delivers packets as the capture socket does. */
  capture(packets: readonly Uint8Array[]): void {
    const { core } = this.host
    const slots = core.calls.obfs_slots()
    for (let at = 0; at < packets.length; at += slots) {
      const batch = packets.slice(at, at + slots)
      batch.forEach((packet, i) => {
        const word = (core.calls.obfs_rx_ptr() >>> 2) + i * ObfsRx.WORDS
        core.u8.set(packet, core.u32[word + ObfsRx.ptr])
        core.u32[word + ObfsRx.length] = packet.length
      })
      this.#onBatch(batch.length)
    }
  }

  send(text: string, to: string): boolean {
    const buffer = this.socket.acquire()
    if (buffer === null) return false
    const { written } = new TextEncoder().encodeInto(text, buffer)
    this.socket.send(buffer, written, address(to))
    return true
  }
}

/** A dpi/tcp tunnel after its handshake. */
function tunnel(clock?: Clock): { client: End; server: End } {
  const client = new End('client', CLIENT, clock)
  const server = new End('server', SERVER, clock)
  client.socket.dial(address(SERVER))
  server.capture(client.wire.splice(0))
  client.capture(server.wire.splice(0))
  return { client, server }
}
const texts = (end: End): string[] => end.received.map(({ data }) => new TextDecoder().decode(data))

test('MUST 67: a dial sends SYN, the server answers on its own, and SYN|ACK makes the client ready', () => {
  const client = new End('client', CLIENT)
  const server = new End('server', SERVER)
  assert.ok(client.filterLength > 0)
  const context = client.socket.dial(address(SERVER))
  assert.is(client.wire.length, 1)
  server.capture(client.wire)
  assert.is(server.wire.length, 1)
  client.capture(server.wire)
  assert.equal(client.host.events(), [[EventType.OBFS_READY, context]])
  assert.is(client.received.length + server.received.length, 0)
})

test('MUST 63: datagrams are transferred both ways in batches, with the address of their sender', () => {
  const { client, server } = tunnel()
  for (let i = 0; i < 100; i++) client.send(`up ${i}`, SERVER)
  assert.is(client.wire.length, 0, 'nothing leaves before the end of the batch')
  client.socket.flush()
  assert.is(client.wire.length, 100)
  const before = server.batches
  server.capture(client.wire)
  assert.equal(
    texts(server),
    Array.from({ length: 100 }, (_, i) => `up ${i}`),
  )
  assert.equal(server.received[0]?.from, address(CLIENT))
  assert.is(server.received[0]?.from, server.received[99]?.from)
  assert.is(server.batches - before, 2)
  server.send('down', CLIENT)
  server.socket.flush()
  client.capture(server.wire)
  assert.equal(texts(client), ['down'])
})

test('a datagram to an address without a context is dropped, others in the batch are sent', () => {
  const { client, server } = tunnel()
  client.send('lost', '10.77.0.9:1')
  client.send('there', SERVER)
  client.socket.flush()
  server.capture(client.wire)
  assert.equal(texts(server), ['there'])
})

test('a full raw socket delays datagrams without loss, and onWritable follows when there is room again', async () => {
  const { client, server } = tunnel()
  client.room = 10
  let sent = 0
  while (client.send(String(sent), SERVER)) sent++
  assert.ok(sent >= 64)
  client.socket.flush()
  assert.is(client.wire.length, 10)
  client.room = Number.POSITIVE_INFINITY
  await until(() => client.wire.length === sent && client.writable === 1, 'the rest has left')
  server.capture(client.wire)
  assert.equal(
    texts(server),
    Array.from({ length: sent }, (_, i) => String(i)),
  )
  assert.ok(client.send('again', SERVER))
})

test('what came before its connection is delivered with it, as a batch', () => {
  const client = new End('client', CLIENT)
  const server = new End('server', SERVER, realClock, 'dpi/tcp-wnd')
  client.socket.dial(address(SERVER))
  client.send('early', SERVER)
  client.socket.flush()
  server.capture(client.wire)
  assert.equal(texts(server), [])
  const before = server.batches
  assert.ok(server.socket.accept(address(CLIENT)) > 0)
  assert.equal(texts(server), ['early'])
  assert.is(server.batches, before + 1)
  // nothing came before the connection of another
  assert.ok(server.socket.accept(address('10.77.0.9:1')) > 0)
  assert.is(server.batches, before + 1)
})

test('after close nothing is received or sent, and both sockets are closed once', () => {
  const { client, server } = tunnel()
  client.send('late', SERVER)
  client.socket.close()
  client.socket.close()
  assert.is(client.closed, 2)
  server.send('x', CLIENT)
  server.socket.flush()
  client.capture(server.wire)
  assert.is(client.received.length, 0)
})

test('a released context neither sends nor receives', () => {
  const { client, server } = tunnel()
  const context = client.socket.dial(address(SERVER))
  client.wire.length = 0
  client.socket.release(context)
  client.send('x', SERVER)
  client.socket.flush()
  assert.is(client.wire.length, 0)
  server.send('y', CLIENT)
  server.socket.flush()
  client.capture(server.wire)
  assert.is(client.received.length, 0)
})

test('a new engine takes over the sockets: pending datagrams are dropped, and a new dial works', async () => {
  const clock = new VirtualClock()
  const { client, server } = tunnel(clock)
  client.room = 1
  for (const text of ['one', 'two', 'three']) client.send(text, SERVER)
  client.socket.flush()
  client.send('four', SERVER)
  server.capture(client.wire.splice(0))
  assert.equal(texts(server), ['one'])
  client.replace('client', CLIENT)
  client.room = Number.POSITIVE_INFINITY
  await clock.settle()
  client.socket.flush()
  assert.is(client.wire.length, 0, 'nothing of the old engine leaves by the new one')
  // all buffers are available again
  let buffers = 0
  while (client.socket.acquire() !== null) buffers++
  assert.is(buffers, 256)
  assert.is(client.closed, 0)
  // nor by a connection of the new one
  const second = tunnel(clock).client
  second.send('late', SERVER)
  second.replace('client', CLIENT)
  second.socket.dial(address(SERVER))
  second.wire.length = 0
  second.socket.flush()
  assert.is(second.wire.length, 0)
  second.send('new', SERVER)
  second.socket.flush()
  assert.is(second.wire.length, 1)
  server.replace('server', SERVER)
  const other = new End('client', CLIENT)
  other.socket.dial(address(SERVER))
  server.capture(other.wire.splice(0))
  other.capture(server.wire.splice(0))
  other.send('five', SERVER)
  other.socket.flush()
  server.capture(other.wire.splice(0))
  assert.equal(texts(server), ['one', 'five'])
})

test.run()
