// time limit: 500 s
/**
 * A NAT forgets its mappings and makes others in the middle of a transfer, with other ports or another public address: not a byte is lost, no connection
 * ends. With a public server that follows authentic datagrams from wherever they come; and with both ends behind NATs, where they meet anew.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { skip } from '../skip.ts'
import { FAMILIES, netnsProblem, type Rebinding, type Router, World } from '../tools/netns.ts'
import type { Program } from '../tools/process.ts'
import type { TcpEnd } from '../tools/tcp.ts'
import { digest, patternBytes } from '../tools/tcp.ts'
import { sleep, waitFor, within } from '../tools/wait.ts'
import { assertEchoes, type Meeting, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'

const TRANSFER_BYTES = 3_000_000
/** Pause of the sender after each chunk, so that a transfer is under way when something happens to it. */
const CHUNK_BYTES = 30_000
const CHUNK_PAUSE_MS = 20

const OURS: readonly { rendezvous: Program; server: Program; client: Program }[] = [
  { rendezvous: 'node', server: 'bun', client: 'node' },
  { rendezvous: 'bun', server: 'node', client: 'bun' },
]

/** Sends a pattern at a moderate pace, and FIN. */
async function pourSlowly(end: TcpEnd, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    await end.send(bytes.subarray(at, at + CHUNK_BYTES))
    await sleep(CHUNK_PAUSE_MS)
  }
  end.finish()
}

type Direction = 'download' | 'upload'

/** A transfer with things that happen in its middle, after equal parts of it. */
async function transfer(
  meeting: Meeting,
  direction: Direction,
  seed: number,
  disturbances: (() => void)[],
): Promise<void> {
  const bytes = patternBytes(TRANSFER_BYTES, seed)
  const accepted = meeting.target.serve((end) => {
    if (direction === 'download') void pourSlowly(end, bytes).catch(() => end.destroy())
  })
  const app = await meeting.dial()
  if (direction === 'upload') void pourSlowly(app, bytes).catch(() => app.destroy())
  const receiver = direction === 'download' ? app : await within('the target to be dialled', RECOVERY_MS, accepted)
  for (const [index, disturb] of disturbances.entries()) {
    const part = (TRANSFER_BYTES * (index + 1)) / (disturbances.length + 1)
    await waitFor(
      `${direction}: part ${index + 1}`,
      () => receiver.ended || receiver.received >= part,
      RECOVERY_MS,
      () => `${receiver.received} of ${TRANSFER_BYTES} bytes`,
    )
    assert.not.ok(receiver.ended, `${direction}: the connection ended, or the test was too late`)
    disturb()
  }
  const ending = await within(`${direction}: the end`, RECOVERY_MS, receiver.ending).catch((error: Error) => {
    throw new Error(`${error.message}; ${receiver.received} bytes are there`)
  })
  assert.is(ending.kind, 'fin', `${direction}: a clean end`)
  assert.is(ending.sha256, digest(bytes), `${direction}: SHA-256`)
  app.destroy()
}

const test = suite('netns: NAT rebinding')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const [routerS, routerC] = [world.addRouter('router-s', 1), world.addRouter('router-c', 2)]
  const clientHost = world.addHost('client', routerC)
  const hiddenServer = world.addHost('server', routerS)
  const publicServer = world.addPublicHost('public-s', 50)
  test.after(() => world.close())

  // every rebinding is to ports and addresses that were never used before
  let [ports, number] = [20, 100]
  const newPorts = (): Rebinding => ({ firstPort: ports++ * 1000 })
  const newAddress = (): Rebinding => ({ number: ++number })

  for (const [index, { rendezvous, server, client }] of OURS.entries()) {
    const family = FAMILIES[index] ?? 4
    const direct = { programs: { server, client }, family, net: world.net, serverHost: publicServer, clientHost }
    const hidden = { ...direct, programs: { rendezvous, server, client }, serverHost: hiddenServer }

    for (const direction of ['download', 'upload'] as const) {
      test(`the server follows its client, ${direction}: ${titleOf(direct)}`, () =>
        withMeeting(direct, async (meeting) => {
          const idle = await meeting.connect()
          await transfer(meeting, direction, index, [
            () => routerC.rebind(newPorts()),
            () => routerC.rebind(newAddress()),
          ])
          await assertEchoes(idle, 'an idle connection')
          idle.destroy()
        }))

      const sides: [string, Router][] = [
        ['client', routerC],
        ['server', routerS],
      ]
      for (const [side, router] of sides) {
        test(`both behind NATs, that of the ${side} changes, ${direction}: ${titleOf(hidden)}`, () =>
          withMeeting(hidden, async (meeting) => {
            const idle = await meeting.connect()
            const change = direction === 'download' ? newPorts() : newAddress()
            await transfer(meeting, direction, index, [() => router.rebind(change)])
            await assertEchoes(idle, 'an idle connection')
            idle.destroy()
          }))
      }
    }
  }
}

test.run()
