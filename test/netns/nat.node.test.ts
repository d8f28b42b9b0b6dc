/**
 * The network of the other tests here behaves as it claims: its routers are port-restricted cone NATs.
 */
import type { RemoteInfo, Socket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { FAMILIES, netnsProblem, World } from '../../testkit/netns.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

/** The next datagram of a socket; `send` is called again and again until it comes. */
async function hear(socket: Socket, send: () => void): Promise<RemoteInfo & { text: string }> {
  const heard = new Promise<RemoteInfo & { text: string }>((resolve) => {
    socket.once('message', (data, from) => resolve({ ...from, text: data.toString() }))
  })
  send()
  const timer = setInterval(send, 200)
  return within('a datagram', 10_000, heard).finally(() => clearInterval(timer))
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
    test(`IPv${family}: a datagram of a stranger is dropped and takes no port away, an answer comes in`, async () => {
      const [port, peerPort] = [7000 + family, 8000 + family]
      const here = await inside.udp(family, port)
      const there = await outside.udp(family, peerPort)
      const stranger = await outside.udp(family, peerPort + 100)
      const arrived: string[] = []
      here.on('message', (data) => arrived.push(data.toString()))

      const before = router.unsolicited()
      const early = (): void => there.send('early', port, router.publicAddresses[family])
      early()
      await waitFor('the early datagram is dropped', () => router.unsolicited() > before)
      const seen = await hear(there, () => here.send('hello', peerPort, outside.addresses[family]))
      assert.is(seen.address, router.publicAddresses[family])
      assert.is(seen.port, port, 'the mapping has the port of the socket')

      const count = router.unsolicited()
      stranger.send('stranger', seen.port, seen.address)
      await waitFor('the datagram of a stranger is dropped', () => router.unsolicited() > count)
      const answer = await hear(here, () => there.send('answer', seen.port, seen.address))
      assert.is(answer.text, 'answer')
      assert.not.ok(arrived.includes('early'))
      assert.not.ok(arrived.includes('stranger'))
    })
  }

  for (const family of FAMILIES) {
    test(`IPv${family}: a rebinding changes the port, and then the address; the old ones are dead`, async () => {
      const [port, peerPort] = [7500 + family, 8500 + family]
      const here = await inside.udp(family, port)
      const there = await outside.udp(family, peerPort)
      const send = (): void => here.send('hello', peerPort, outside.addresses[family])
      const old = await hear(there, send)
      for (const change of [{ firstPort: 40_000 + 2000 * family }, { number: 10 + family }]) {
        router.rebind(change)
        const count = router.unsolicited()
        if ('firstPort' in change) {
          there.send('late', old.port, old.address)
          await waitFor('the old mapping is dead', () => router.unsolicited() > count)
        }
        const fresh = await hear(there, send)
        assert.is(fresh.address, router.publicAddresses[family])
        assert.ok(fresh.port >= 40_000 + 2000 * family && fresh.port < 41_000 + 2000 * family, `port ${fresh.port}`)
      }
    })
  }
}

test.run()
