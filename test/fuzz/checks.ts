/**
 * Invariants of the engine that are visible through the ABI and hold at any time.
 */
import { AddressRecord, Info, KEY_NUMBERS, Key, SessionState } from '../../host/engine/core.ts'
import { hasChecks } from '../../testkit/checked-core.ts'
import { Phase } from './model.ts'
import { fault } from './pattern.ts'
import type { World } from './world.ts'

/** Bytes by which the engine's memory may exceed the ceiling: static data, alignment, one growth step. */
const MEMORY_SLACK = 3 << 20

/** Maximum number of segments queued behind a send window, the engine's own messages included. */
const SLACK_MAX = 1024 + 64

export const STATES = ['sessions_connect', 'sessions_established', 'sessions_linger', 'sessions_time_wait'] as const

/** Compares gauges with the sessions listed by session_info. Call it after a drain. */
export function checkGauges(world: World): void {
  const { subject, sessions, obfuscator } = world
  const { calls, core, now } = subject
  const slots = calls.session_slots()
  const states = [0, 0, 0, 0, 0]
  const ofKeys = new Array<number>(KEY_NUMBERS).fill(0)
  const alive = new Set<number>()
  let waiting = 0
  for (let slot = 0; slot < slots; slot++) {
    const handle = calls.session_info(slot, now)
    if (handle === 0) continue
    const info = core.info()
    const state = info.getUint32(Info.state, true)
    if (state < SessionState.CONNECT || state > SessionState.TIME_WAIT) fault(`handle ${handle} in state ${state}`)
    states[state] = (states[state] ?? 0) + 1
    if (state === SessionState.CONNECT || state === SessionState.ESTABLISHED) {
      const key = info.getUint8(Info.address + AddressRecord.key)
      ofKeys[key] = (ofKeys[key] ?? 0) + 1
    }
    const queued = info.getUint32(Info.waitsnd, true)
    if (queued > info.getUint32(Info.sndwnd, true) + SLACK_MAX) fault(`handle ${handle}: ${queued} segments queued`)
    waiting += queued
    alive.add(handle)
    const s = sessions.byHandle.get(handle)
    if (!s) continue
    s.address = world.record((calls.info_ptr() >>> 0) + Info.address)
    if (info.getUint32(Info.conv, true) !== s.conversation.conv) fault(`handle ${handle} changed its conv`)
    const read = Number(info.getBigUint64(Info.tcpRead, true))
    const written = Number(info.getBigUint64(Info.tcpWritten, true))
    if (s.phase === Phase.GONE) continue
    if (s.mustEnd) fault(`handle ${handle}: E_HANDLE, but no event`)
    if (read !== s.output.committed) fault(`handle ${handle}: ${read} bytes read, ${s.output.committed} committed`)
    // what follows EOF is discarded, and counted
    if (written !== s.consumed && s.phase === Phase.OPEN && !s.eofTold)
      fault(`handle ${handle}: ${written} bytes written, ${s.consumed} consumed`)
  }
  STATES.forEach((name, i) => {
    if (subject.gauge(name) !== states[i + 1]) fault(`${name} = ${subject.gauge(name)}, listed ${states[i + 1]}`)
  })
  const keys = new DataView(calls.memory.buffer, calls.key_ptr() >>> 0, KEY_NUMBERS * Key.BYTES)
  ofKeys.forEach((listed, key) => {
    const counted = keys.getUint32(key * Key.BYTES + Key.sessions, true)
    if (counted !== listed) fault(`key ${key} has ${counted} sessions, listed ${listed}`)
  })
  if (subject.gauge('waitsnd') !== waiting) fault(`waitsnd = ${subject.gauge('waitsnd')}, sum ${waiting}`)
  for (const s of [...sessions.list]) {
    if (s.handle === 0 ? s.idle++ > 20 : !alive.has(s.handle)) {
      if (s.handle !== 0 && s.phase !== Phase.GONE && s.phase !== Phase.NONE) fault(`handle ${s.handle} vanished`)
      sessions.forget(s)
    }
  }
  if (obfuscator && obfuscator.count() !== subject.gauge('obfs_contexts')) fault('obfs_contexts does not fit the list')
  checkMemory(world)
}

function checkMemory(world: World): void {
  const { subject } = world
  const used = subject.gauge('memory_used')
  const limit = world.plan.ceiling + world.fixedBytes
  if (used > limit) fault(`memory_used = ${used}, beyond the ceiling of ${limit}`)
  const total = subject.core.u8.length
  if (!hasChecks(subject.calls) && total > limit + MEMORY_SLACK) fault(`${total} bytes of memory, ceiling ${limit}`)
}
