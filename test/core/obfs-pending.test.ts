/** Packets of dpi/tcp-wnd that arrive before their connection is accepted. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ObfsHost } from '../../testkit/obfs-host.ts'
import { parsePacket } from '../vectors/obfs-packets.ts'

const SERVER = '10.77.0.2:8080'
/** The payloads of as many addresses are kept. */
const KEPT = 16

const test = suite('core/obfs-pending')

const address = (i: number): string => `10.77.1.${i}:40000`
const payload = (i: number): Uint8Array => new Uint8Array(60 + i).fill(i)

/** A server that received a first datagram of clients 1 to `count`, and accepted no connection yet. */
function receiveFrom(count: number): ObfsHost {
  const server = new ObfsHost('dpi/tcp-wnd', 'server', '0.0.0.0:8080')
  for (let i = 1; i <= count; i++) {
    const client = new ObfsHost('dpi/tcp', 'client', address(i))
    client.dial(SERVER)
    client.controls()
    const packet = client.send(SERVER, payload(i))
    assert.ok(packet)
    assert.equal([...parsePacket(packet).payload], [...payload(i)])
    assert.equal(server.capture(packet), [])
  }
  return server
}

/** Accepts the connection of a client, and ends it: too many unknown ones are refused. @returns its first datagram */
function accept(server: ObfsHost, i: number): Uint8Array | undefined {
  const context = server.accept(address(i))
  assert.ok(context > 0, address(i))
  const early = server.early()
  assert.is(server.core.calls.obfs_release(context, server.now), 0)
  return early
}

test('the first datagrams of 16 clients are kept until their connections are accepted, in any order', () => {
  const server = receiveFrom(KEPT)
  for (let i = KEPT; i >= 1; i--) {
    assert.equal(accept(server, i), payload(i), address(i))
  }
})

test('of more clients the first datagrams of the last 16 are kept', () => {
  const server = receiveFrom(KEPT + 5)
  for (let i = 1; i <= KEPT + 5; i++) {
    assert.equal(accept(server, i), i <= 5 ? undefined : payload(i), address(i))
  }
})

test.run()
