/**
 * Checks that the engine still works after all inputs: a correct peer and host transfer bytes both ways.
 */
import { UNSET } from '../../host/engine/core.ts'
import { control, What } from '../../testkit/sim/wire.ts'
import { deliver, honestDatagram, openSession } from './datagrams.ts'
import { connected, readAll, write } from './host-calls.ts'
import { Phase, type Session } from './model.ts'
import { fault } from './pattern.ts'
import { setPeer } from './room.ts'
import type { World } from './world.ts'

/** Bytes each way, and their virtual time limit; a round trip is 5 ms. */
const BYTES = 20_000
const ROUNDS_MAX = 4000
const ROUND_TICKS = 40

function round(world: World, s: Session): void {
  const { subject } = world
  for (const ping of world.pings.splice(0)) {
    const pong = control(What.PONG, ping.value)
    deliver(world, pong, pong.length, ping.address)
  }
  honestDatagram(world, s)
  world.drain()
  if (s.phase === Phase.DIALING) connected(world, s, true)
  if (s.phase === Phase.GONE) fault('a session of a well-behaved peer was ended')
  if (s.phase === Phase.OPEN) {
    readAll(world, s)
    if (s.output.committed < BYTES) write(world, s)
  }
  world.drain()
  world.pass(ROUND_TICKS, true)
  subject.isDrained = true
}

/** Transfers bytes both ways over a new session. */
export function checkService(world: World): void {
  const { plan, subject } = world
  if (plan.role === 'neither') return
  const options = { kcpMtu: 1300, timeout: 600, maxHalfOpen: 0, interval: UNSET, flush: UNSET }
  const unlimited = { rateUp: 0, rateDown: 0, sessionRateUp: 0, sessionRateDown: 0 }
  subject.configure({ ...plan.config, ...options, ...unlimited, memoryCeiling: plan.ceiling })
  world.isCalm = true
  world.obfuscator?.restart()
  const address = setPeer(world)
  // creates a context of the obfuscator, if there is one
  const ping = control(What.PING, 1)
  deliver(world, ping, ping.length, address)
  world.drain()
  const s = openSession(world) ?? fault('no session can be opened any more')
  s.address = address
  const isDone = (): boolean => s.consumed >= BYTES && s.output.payload >= BYTES
  for (let i = 0; i < ROUNDS_MAX && !isDone(); i++) round(world, s)
  if (!isDone()) fault(`after ${ROUNDS_MAX} rounds ${s.output.payload} bytes came out and ${s.consumed} went in`)
  if (!s.isClean) fault('the session of the service check is not clean')
  world.isCalm = false
}
