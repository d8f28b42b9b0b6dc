// time limit: 120 s
/**
 * The IP link of `bench ip`: kernel TCP, which sends runs of segments, arrives intact through loss and a bottleneck that
 * act on single segments.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Namespace, netnsProblem } from '../../testkit/namespace.ts'
import { NetnsAgent } from '../../testkit/netns-agent.ts'
import { openTun, TUN_DEVICE, type TunCounters, type TunShape } from '../../testkit/tun-link.ts'
import { skip } from '../skip.ts'

const BYTES = 3 << 20
const test = suite('netns: the TUN link')

const addresses = { 4: ['10.204.0.1', '10.204.0.2'], 6: ['fd04::1', 'fd04::2'] } as const

interface Link {
  readonly left: NetnsAgent
  readonly right: NetnsAgent
  counters(): TunCounters
}

async function withLink(shape: TunShape, body: (link: Link) => Promise<void>): Promise<void> {
  const namespaces = [new Namespace('left'), new Namespace('right')] as const
  const [left, right] = namespaces
  const tun = openTun({ left: left.name, right: right.name, up: shape, down: shape, seed: 7 })
  for (const [i, namespace] of namespaces.entries()) {
    namespace.ip(
      `addr add ${addresses[4][i]}/24 dev ${TUN_DEVICE}
       addr add ${addresses[6][i]}/64 dev ${TUN_DEVICE} nodad
       link set ${TUN_DEVICE} up`,
    )
  }
  const agents = { left: new NetnsAgent(left.name), right: new NetnsAgent(right.name) }
  try {
    await body({ ...agents, counters: tun.counters })
  } finally {
    agents.left.stop()
    agents.right.stop()
    tun.close()
    for (const namespace of namespaces) namespace.remove()
  }
}

/** Sends random bytes from left to right and compares. */
async function transfer({ left, right }: Link, family: 4 | 6): Promise<void> {
  const host = addresses[family][1]
  const { port = 0 } = (await right.ask({ action: 'listen', host })).reply
  const accepted = new Promise<Socket>((done) => right.onAccept(port, done))
  const { socket } = await left.ask({ action: 'dial', host, port })
  assert.ok(socket)
  const data = randomBytes(BYTES)
  socket.end(data)
  const received = createHash('sha256')
  const other = await accepted
  for await (const bytes of other) received.update(bytes)
  for (const end of [socket, other]) end.destroy()
  assert.is(received.digest('hex'), createHash('sha256').update(data).digest('hex'))
}

if (netnsProblem !== undefined) skip(test, 'all', netnsProblem)
else {
  for (const family of [4, 6] as const) {
    test(`runs arrive intact over IPv${family} where single segments are lost`, () =>
      withLink({ delay: 1, loss: 0.02 }, async (link) => {
        await transfer(link, family)
        const { up } = link.counters()
        assert.ok(up.lost > 0.01 * up.packets && up.lost < 0.03 * up.packets, `${up.lost} of ${up.packets}`)
        assert.ok(up.packets >= BYTES / 1500, 'segments are counted, not runs')
      }))
  }

  test('a bottleneck queues and drops segments', () =>
    withLink({ delay: 5, loss: 0, rate: 50e6, queue: 40_000 }, async (link) => {
      const began = performance.now()
      await transfer(link, 4)
      const rate = (BYTES * 8) / (performance.now() - began) / 1000
      assert.ok(rate < 50, `${rate} Mbit/s`)
      assert.ok(link.counters().up.overflowed > 0)
    }))
}

test.run()
