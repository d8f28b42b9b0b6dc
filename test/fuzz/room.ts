/**
 * Checks that everything is released: memory in use and segment capacity are those before the first input.
 */
import { Info, KEY_NUMBERS, Key } from '../../host/engine/core.ts'
import { concat, DIAL, message, push } from '../../testkit/sim/wire.ts'
import { STATES } from './checks.ts'
import { deliver } from './datagrams.ts'
import { Phase } from './model.ts'
import { fault } from './pattern.ts'
import type { World } from './world.ts'

const TICKS_PER_SECOND = 8000
/** All timeouts have expired after this time; they are set low. */
const OVER_SECONDS = 45
const PATIENCE_SECONDS = 700
/** Number of sessions to fill, and maximum segments for each. */
const FILLED = 4
const SEGMENTS_MAX = 4000
const SEGMENT = new Uint8Array(1300)
/** CONNECT to an unknown service, from 10.0.0.9:9. */
const CONNECT = new Uint8Array([0, 0, 0, 0, 0, 4, 0, 10, 0, 0, 9, 0, 9, 0, 3, 120, 121, 122])

/** Memory used by an engine without sessions, and how many full segments it can store. */
export interface Room {
  readonly used: number
  readonly segments: number
}

/** Opens a session unknown to the model. @returns its conv, 0 if refused */
function open(world: World, address: Uint8Array): number {
  const { subject, plan } = world
  if (plan.role === 'server') {
    const conv = world.nextConv()
    const flight = push(conv, 0, concat(DIAL, message(1, new Uint8Array(8))))
    deliver(world, flight, flight.length, address)
    return conv
  }
  const handle = subject.calls.stream_open(subject.now)
  subject.isDrained = false
  if (handle <= 0 || subject.calls.session_info(handle & 0xffff, subject.now) !== handle) return 0
  return subject.core.info().getUint32(Info.conv, true)
}

/** Sets the client's peer to the first address. @returns that address */
export function setPeer(world: World): Uint8Array {
  const { subject, plan } = world
  const address = world.addresses[0] ?? fault('a plan without addresses')
  world.peer = address
  if (plan.role !== 'client') return address
  subject.writeRecord(address, subject.calls.peer_ptr())
  if (subject.calls.set_peer(subject.now) !== 0) fault('set_peer failed')
  return address
}

/** Opens the maximum number of sessions, from every address, so that tables and address records reach their size. */
function warmUp(world: World): void {
  const { addresses, plan } = world
  setPeer(world)
  world.isMeasuring = true
  for (let i = 0; i < plan.config.maxSessions && plan.role !== 'neither'; i++) {
    open(world, addresses[i % addresses.length] ?? plan.local)
  }
  world.drain()
}

/** Ends every session and lets all timeouts expire. */
export function windDown(world: World): void {
  const { subject, sessions, plan } = world
  subject.entropyChunk = 8192
  subject.flush()
  world.drain()
  subject.configure({ ...plan.config, maxHalfOpen: 0, timeout: 20, linger: 2, timeWait: 2, keepalive: 1 })
  // sessions unknown to the model included
  for (let slot = 0; slot < subject.calls.session_slots(); slot++) {
    const handle = subject.calls.session_info(slot, subject.now)
    if (handle !== 0) subject.calls.stream_abort(handle, subject.now)
  }
  for (const s of sessions.list) s.phase = Phase.GONE
  world.isMeasuring = true
  world.drain()
  let left = 1
  for (let second = 0; second < PATIENCE_SECONDS && (left !== 0 || second < OVER_SECONDS); second++) {
    subject.now = (subject.now + TICKS_PER_SECOND) >>> 0
    world.expire()
    left = STATES.reduce((sum, name) => sum + subject.gauge(name), 0)
  }
  if (left !== 0) fault(`${left} sessions are left after ${PATIENCE_SECONDS} s`)
  if (subject.gauge('waitsnd') !== 0) fault(`waitsnd = ${subject.gauge('waitsnd')} without sessions`)
  for (const s of [...sessions.list]) sessions.forget(s)
  // expired services are removed by the next lookup
  world.obfuscator?.restart()
  deliver(world, CONNECT, CONNECT.length, world.addresses[0] ?? plan.local)
  for (let second = 0; world.obfuscator && second < OVER_SECONDS; second++) {
    subject.now = (subject.now + TICKS_PER_SECOND) >>> 0
    world.expire()
  }
  world.drain()
  world.isMeasuring = false
}

/** Keys have no limits of their own. */
function unlimitKeys({ subject: { calls } }: World): void {
  const blocks = new DataView(calls.memory.buffer, calls.key_ptr() >>> 0, KEY_NUMBERS * Key.BYTES)
  for (let key = 0; key < KEY_NUMBERS; key++) blocks.setUint32(key * Key.BYTES + Key.maxSessions, 0, true)
}

/** Fills the engine with out-of-order segments until none is stored, and empties it again. */
export function measure(world: World): Room {
  const { subject, plan } = world
  const config = { ...plan.config, rcvwnd: 65535, memoryCeiling: plan.ceiling, maxHalfOpen: 0 }
  subject.configure(config)
  unlimitKeys(world)
  world.obfuscator?.restart()
  warmUp(world)
  windDown(world)
  subject.configure(config)
  world.obfuscator?.restart()
  const address = setPeer(world)
  world.drain()
  world.isMeasuring = true
  if (plan.role === 'neither') return { used: subject.gauge('memory_used'), segments: 0 }
  const convs = Array.from({ length: FILLED }, () => open(world, address))
  world.drain()
  const refused = (): number => subject.gauge('drop_memory') + subject.gauge('drop_window')
  const before = refused()
  const received = subject.gauge('segments_received')
  for (let sn = 2; sn < SEGMENTS_MAX && refused() === before; sn++) {
    for (const conv of convs) {
      const datagram = push(conv, sn, SEGMENT, { una: 0 })
      deliver(world, datagram, datagram.length, address)
    }
    world.drain()
  }
  const segments = subject.gauge('segments_received') - received - (refused() - before)
  // the last block was refused, so no reserve counts as used
  windDown(world)
  return { used: subject.gauge('memory_used'), segments }
}

/** Maximum bytes kept for addresses without sessions: 1024 records of 256 bytes, and their table. */
const ADDRESSES_MAX = (1024 << 8) + (4096 << 2)

/** Compares the measurements of the beginning and the end. */
export function checkRoom(world: World, base: Room, end: Room): void {
  const kept = world.plan.hasStrangers ? ADDRESSES_MAX : 0
  const missing = base.segments - end.segments
  if (missing > kept >>> 11) fault(`room for ${end.segments} segments, ${base.segments} at the beginning`)
  const more = end.used - base.used
  if (more < 0 || more > kept) fault(`memory_used is ${end.used} at the end, ${base.used} at the beginning`)
}
