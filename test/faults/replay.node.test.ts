// time limit: 90 s, long 600 s
/**
 * Recorded datagrams come again, at both ends, from the address they came from and from another: none is accepted, no
 * session is opened, no target is dialled, and what was open stays so. A restarted server dials none either.
 */
import { createSocket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Direction } from '../../testkit/link.ts'
import type { Running } from '../../testkit/process.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { CELLS, cellName, figuresOf, form, together } from './form.ts'
import { Streams } from './streams.ts'

const RECORDED = form(10_000, 50_000)
/** Datagrams sent before a pause for the program: fewer than its socket buffer holds. */
const BURST = 50
const BURST_MS = 5
const SIZE = 500_000
const LIMIT_MS = 30_000

const test = suite('faults: replay')

async function counter(end: Running, name: string): Promise<number> {
  return (await figuresOf(end)).counters[name] ?? Number.NaN
}

async function replay(cell: (typeof CELLS)[number]): Promise<void> {
  const streams = await Streams.open()
  const recorded: Record<Direction, Buffer[]> = { up: [], down: [] }
  const tap = (direction: Direction, datagram: Buffer): boolean => {
    const list = recorded[direction]
    if (list.length < RECORDED) list.push(Buffer.from(datagram))
    return true
  }
  const isV6 = cell.family === 6
  const prober = createSocket(isV6 ? 'udp6' : 'udp4')
  let answers = 0
  prober.on('message', () => answers++).on('error', () => undefined)
  await withTunnel({ ...cell, link: { tap }, target: streams.target.address }, async (tunnel) => {
    while (recorded.up.length + recorded.down.length < RECORDED) await streams.assertCarries(tunnel, SIZE, LIMIT_MS)
    const dialled = streams.target.connections.length + 1
    const open = await tunnel.dial()
    await waitFor('an open connection', () => streams.target.connections.length === dialled, LIMIT_MS)
    const ends = { up: tunnel.server, down: tunnel.client }
    const portOf = (address: unknown): number => Number(String(address).split(':').at(-1))
    const serverPort = portOf(tunnel.server.config['kcp_bind'])
    const [up, down] = [recorded.up.splice(0), recorded.down.splice(0)]
    recorded.up.length = RECORDED
    recorded.down.length = RECORDED
    const before = await Promise.all(Object.values(ends).map((end) => counter(end, 'sessions_opened')))
    let sent = 0
    const pause = async (): Promise<void> => {
      if (++sent % BURST === 0) await sleep(BURST_MS)
    }
    for (const datagram of up) {
      tunnel.link.inject(datagram, 'up')
      prober.send(datagram, serverPort, isV6 ? '::1' : '127.0.0.1')
      await pause()
    }
    for (const datagram of down) {
      tunnel.link.inject(datagram, 'down')
      await pause()
    }
    const accepted = async (): Promise<number[]> => {
      const wanted = { up: 2 * up.length, down: down.length }
      return Promise.all(
        (['up', 'down'] as const).map(async (direction) => {
          const injected = wanted[direction]
          const { counters } = await figuresOf(ends[direction])
          // one that the system lost was rejected by nobody, and is new when it comes again
          const lost = tunnel.link.counters[direction].delivered + injected - (counters['pkt_received'] ?? 0)
          assert.ok(lost >= 0 && lost < injected / 10, `${lost} of ${injected} were lost by the system`)
          return injected - (counters['drop_replay'] ?? 0) - lost
        }),
      )
    }
    await waitFor(
      'no replay is accepted',
      async () => (await accepted()).every((count) => count <= 0),
      LIMIT_MS,
      async () => `${await accepted()} of ${up.length} and ${down.length}`,
    )
    assert.equal(await Promise.all(Object.values(ends).map((end) => counter(end, 'sessions_opened'))), before)
    assert.is(streams.target.connections.length, dialled, 'targets dialled')
    assert.is(answers, 0, 'answers to another address')
    assert.not.ok(open.ended, 'the open connection goes on')
    open.destroy()
    await streams.assertCarries(tunnel, SIZE, LIMIT_MS)

    // a new process remembers nothing: it asks whether a first flight is genuine
    await tunnel.restart('server')
    const dialledBefore = streams.target.connections.length
    for (const datagram of up) {
      prober.send(datagram, serverPort, isV6 ? '::1' : '127.0.0.1')
      await pause()
    }
    await waitFor('they arrive', async () => (await counter(tunnel.server, 'pkt_received')) >= up.length / 2, LIMIT_MS)
    assert.is(streams.target.connections.length, dialledBefore, 'targets dialled by a new server')
    await streams.assertCarries(tunnel, SIZE, LIMIT_MS)
  }).finally(() => {
    prober.close()
    return streams.target.close()
  })
}

test(`${RECORDED} recorded datagrams are rejected: ${CELLS.map(cellName).join('; ')}`, () =>
  together(CELLS.map((cell) => () => replay(cell))))

test.run()
