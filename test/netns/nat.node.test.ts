/** The emulated network behaves as specified: its routers are port-restricted cone NATs. */
import type { RemoteInfo, Socket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, World } from '../../testkit/netns.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

/** Returns the next datagram of a socket; `send` is repeated until it arrives. */
async function receive(socket: Socket, send: () => void): Promise<RemoteInfo & { text: string }> {
  const received = new Promise<RemoteInfo & { text: string }>((resolve) => {
    socket.once('message', (data, from) => resolve({ ...from, text: data.toString() }))
  })
  send()
  const timer = setInterval(send, 200)
  return within('a datagram', 10_000, received).finally(() => clearInterval(timer))
}

const test = suite('netns: the routers')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const router = world.addRouter('router', 1)
  const inside = world.addHost('inside', router)
  const outside = world.addPublicHost('outside', 50)
  test.after(() => world.close())

  for (const family of FAMILIES) {
    test(`IPv${family}: an unsolicited datagram is dropped and occupies no port, an answer is let through`, async () => {
      const [port, peerPort] = [7000 + family, 8000 + family]
      const here = await inside.udp(family, port)
      const there = await outside.udp(family, peerPort)
      const other = await outside.udp(family, peerPort + 100)
      const arrived: string[] = []
      here.on('message', (data) => arrived.push(data.toString()))

      const before = router.unsolicited()
      const early = (): void => there.send('early', port, router.publicAddresses[family])
      early()
      await waitFor('the early datagram is dropped', () => router.unsolicited() > before)
      const seen = await receive(there, () => here.send('hello', peerPort, outside.addresses[family]))
      assert.is(seen.address, router.publicAddresses[family])
      assert.is(seen.port, port, 'the mapping has the port of the socket')

      const count = router.unsolicited()
      other.send('unsolicited', seen.port, seen.address)
      await waitFor('the unsolicited datagram is dropped', () => router.unsolicited() > count)
      const answer = await receive(here, () => there.send('answer', seen.port, seen.address))
      assert.is(answer.text, 'answer')
      assert.not.ok(arrived.includes('early'))
      assert.not.ok(arrived.includes('unsolicited'))
    })
  }

  for (const family of FAMILIES) {
    test(`IPv${family}: a rebinding changes the port, and then the address; the old mapping is dead`, async () => {
      const [port, peerPort] = [7500 + family, 8500 + family]
      const here = await inside.udp(family, port)
      const there = await outside.udp(family, peerPort)
      const send = (): void => here.send('hello', peerPort, outside.addresses[family])
      const old = await receive(there, send)
      for (const change of [{ firstPort: 40_000 + 2000 * family }, { number: 10 + family }]) {
        router.rebind(change)
        const count = router.unsolicited()
        if ('firstPort' in change) {
          there.send('late', old.port, old.address)
          await waitFor('the old mapping is dead', () => router.unsolicited() > count)
        }
        const fresh = await receive(there, send)
        assert.is(fresh.address, router.publicAddresses[family])
        assert.ok(fresh.port >= 40_000 + 2000 * family && fresh.port < 41_000 + 2000 * family, `port ${fresh.port}`)
      }
    })
  }
}

test.run()
