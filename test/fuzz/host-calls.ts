/**
 * Calls of a host: its TCP side, correct and incorrect, and its administration.
 */
import { type CoreConfig, ErrorCode, Info, KEY_NUMBERS, Key, PONG_SLOTS } from '../../host/engine/core.ts'
import { pickAddress, pickSession } from './datagrams.ts'
import { Phase, type Session } from './model.ts'
import { fault, isPattern, writePattern } from './pattern.ts'
import { FUZZ_KEYS, randomOptions } from './plan.ts'
import type { World } from './world.ts'

/** Maximum bytes that the host writes into one session, and maximum writes of one input. */
const WRITE_MAX = 400_000
const WRITE_LARGE = 6_000_000
const WRITES_LARGE = 80

/** Fails unless the result of a call for this session is correct. */
function expectHandle(s: Session, result: number, call: string): void {
  if (s.phase === Phase.GONE) {
    if (result !== ErrorCode.HANDLE) fault(`${call} for a handle that is gone = ${result}`)
  } else if (result === ErrorCode.HANDLE) s.mustEnd = true
}

/** Writes TCP bytes into the engine: reserve, write, commit. */
export function write(world: World, s: Session): void {
  const { subject, random } = world
  const { calls } = subject
  if (s.output.committed > (world.plan.isLarge ? WRITE_LARGE : WRITE_MAX)) return
  const mss = Math.max(40, s.mtu - 24)
  const usual = random.pick(1 + random.below(60), 1 + random.below(mss), 1 + random.below(Math.min(8 * mss, 16000)))

  const want = world.plan.isLarge ? 15_000 : usual
  world.note(() => `write ${want} handle ${s.handle}`)
  const count = calls.stream_reserve(s.handle, want)
  subject.isDrained = false
  expectHandle(s, count, 'stream_reserve')
  if (count <= 0) return
  let reserved = 0
  for (const [at, length] of subject.spans(count)) {
    // uncommitted bytes are lost
    const known = Math.min(length, want - reserved)
    writePattern(subject.core.u8, at, known, s.output.key, s.output.committed + reserved)
    reserved += length
  }
  if (reserved > want) fault(`${reserved} bytes reserved, ${want} wanted`)
  // calls between the two may invalidate the reservation
  const isLate = !world.isCalm && random.below(20) === 0
  if (isLate) interrupt(world, s)
  const r = world.isCalm ? 0 : random.below(100)
  const tooMuch = random.pick(reserved + 1, reserved + 100_000, 0x7fffffff, 0xffffffff, 0xfffffffb)
  const commit = r < 80 ? reserved : r < 95 ? random.below(reserved + 1) : tooMuch
  const result = calls.stream_commit(s.handle, commit, subject.now)
  if (result === 0) {
    // the last segment may hold more than was requested
    if (commit > reserved) s.output.isLoose = true
    s.output.committed += commit
  } else if (isLate && (result === ErrorCode.ARGUMENT || result === ErrorCode.HANDLE)) {
    // a permitted refusal
  } else if (result !== ErrorCode.ARGUMENT || commit <= reserved) {
    fault(`stream_commit(${commit} of ${reserved}) = ${result}`)
  }
}

/** Calls between reserve and commit. */
function interrupt(world: World, s: Session): void {
  const { subject, random } = world
  const r = random.below(3)
  world.note(() => `before commit: ${r}`)
  if (r === 0) subject.flush()
  else if (r === 1) subject.calls.handle_timeout(subject.now)
  else subject.calls.stream_commit(s.handle, 0, subject.now)
}

/** TCP reads the available bytes, or some of them. */
export function read(world: World, s: Session): void {
  const { random } = world
  world.note(() => `read handle ${s.handle}`)
  const available = look(world, s)
  if (available > 0) take(world, s, random.chance(0.7) ? available : random.below(available + 1))
}

/** TCP reads everything. */
export function readAll(world: World, s: Session): void {
  for (let bytes = look(world, s); bytes > 0; bytes = look(world, s)) take(world, s, bytes)
}

function take(world: World, s: Session, bytes: number): void {
  const { subject } = world
  if (subject.calls.stream_consume(s.handle, bytes, subject.now) !== 0) fault('stream_consume failed')
  subject.isDrained = false
  s.consumed += bytes
}

/** Checks the spans of `stream_peek`. @returns their bytes */
function look(world: World, s: Session): number {
  const { subject } = world
  const { calls } = subject
  const count = calls.stream_peek(s.handle)
  expectHandle(s, count, 'stream_peek')
  if (count <= 0) return 0
  let available = 0
  for (const [at, length] of subject.spans(count)) {
    const index = s.consumed + available
    if (s.isClean && !isPattern(subject.buffer, at, length, s.conversation.input.key, index)) {
      fault(`handle ${s.handle}: wrong payload among the ${length} bytes from ${index} of the stream`)
    }
    available += length
  }
  if (s.isClean && s.consumed + available > s.conversation.input.payload) {
    fault(`handle ${s.handle}: ${s.consumed + available} bytes of ${s.conversation.input.payload}`)
  }
  return available
}

export function shutdown(world: World, s: Session): void {
  const { subject } = world
  world.note(() => `shutdown handle ${s.handle}`)
  expectHandle(s, subject.calls.stream_shutdown(s.handle, subject.now), 'stream_shutdown')
  subject.isDrained = false
  s.wasShut = true
}

export function abort(world: World, s: Session): void {
  const { subject } = world
  world.note(() => `abort handle ${s.handle}`)
  const isReset = (s.handle & 1) !== 0
  const call = isReset ? subject.calls.stream_reset : subject.calls.stream_abort
  const result = call(s.handle, subject.now)
  subject.isDrained = false
  if (s.phase !== Phase.NONE) expectHandle(s, result, isReset ? 'stream_reset' : 'stream_abort')
  // its end may still be queued as an event
  if (result === 0) s.phase = Phase.GONE
}

export function connected(world: World, s: Session, isOk: boolean): void {
  const { subject } = world
  world.note(() => `connected ${isOk} handle ${s.handle}`)
  const result = subject.calls.stream_connected(s.handle, isOk ? 1 : 0, subject.now)
  subject.isDrained = false
  if (s.phase !== Phase.DIALING) {
    if (result !== ErrorCode.HANDLE) fault(`stream_connected in phase ${s.phase} = ${result}`)
  } else if (result === 0) s.phase = isOk ? Phase.OPEN : Phase.GONE
  else expectHandle(s, result, 'stream_connected')
}

/** One action of TCP in a session. */
export function tcpCall(world: World, s: Session): void {
  const r = world.random.below(1000)
  if (s.handle === 0) return
  if (s.phase === Phase.DIALING) {
    if (r < 400) connected(world, s, r < 380)
    else if (r < 420) write(world, s)
    else if (r < 430) shutdown(world, s)
    else if (r < 435) abort(world, s)
  } else if (s.phase === Phase.OPEN) {
    if (r < 480) {
      for (let n = world.plan.isLarge ? WRITES_LARGE : 1; n > 0; n--) write(world, s)
    } else if (r < 950) {
      if (world.random.below(100) < world.plan.reads) read(world, s)
    } else if (r < 964) shutdown(world, s)
    else if (r < 972) abort(world, s)
    else if (r < 980) connected(world, s, r < 976)
  } else if (r < 100) staleCalls(world, s)
}

/** Calls for a handle that the host does not hold, or no longer holds. */
function staleCalls(world: World, s: Session): void {
  if (s.phase !== Phase.GONE) return
  const r = world.random.below(5)
  if (r === 0) write(world, s)
  else if (r === 1) read(world, s)
  else if (r === 2) shutdown(world, s)
  else if (r === 3) abort(world, s)
  else connected(world, s, true)
}

/** Calls with invalid handles and arguments. */
export function nonsense(world: World): void {
  const { subject, random, sessions } = world
  const { calls, now } = subject
  const s = pickSession(world)
  const stale = sessions.stale[random.below(sessions.stale.length)] ?? 0
  const handle = random.pick(0, -1, random.u32(), random.below(64), stale, (s?.handle ?? 0) ^ 0x10000)
  const length = random.pick(0, 1, random.u32(), 0xffffffff, 0x7fffffff)
  if (sessions.byHandle.has(handle >>> 0)) return
  world.note(() => `nonsense handle ${handle} length ${length}`)
  const results = [
    calls.stream_limit_unsent(handle, length),
    calls.stream_reserve(handle, length),
    calls.stream_commit(handle, length, now),
    calls.stream_peek(handle),
    calls.stream_consume(handle, length, now),
  ]
  // the slot may hold a server session unknown to the model
  if (results.some((result) => result !== ErrorCode.HANDLE)) {
    if (subject.calls.session_info(handle & 0xffff, now) !== handle >>> 0) fault(`handle ${handle}: results ${results}`)
    world.describe(handle >>> 0).conversation.isDirty = true
  }
  calls.session_info(length, now)
  if (s && s.phase === Phase.OPEN && !s.eofTold && random.chance(0.3)) {
    // more than available: the engine consumes what it has
    calls.stream_consume(s.handle, 0xffffffff, now)
    if (calls.session_info(s.handle & 0xffff, now) === s.handle) {
      const written = Number(subject.core.info().getBigUint64(Info.tcpWritten, true))
      // the stream may have ended: bytes after the end are discarded and counted
      s.consumed = Math.min(written, s.conversation.isDirty ? written : s.conversation.input.payload)
    }
  }
  calls.handle_datagrams(0, now)
  subject.flush(random.pick(0, 0, 1, 0x7fffffff))
  subject.isDrained = false
}

// ---- administration

/** Changes options, usually to valid values. */
export function reconfigure(world: World): void {
  const { subject, random, sessions } = world
  const next = randomOptions(random, world.plan.config.maxSessions)
  const changed: Partial<CoreConfig> = {}
  const names = Object.keys(next) as (keyof CoreConfig)[]
  const n = random.pick(1, 1, 3, names.length)
  for (let i = 0; i < n; i++) {
    const name = names[random.below(names.length)]
    const value = name && next[name]
    if (name !== undefined && value !== undefined) changed[name] = value
  }
  const isBad = random.chance(0.1)
  if (isBad) {
    const name = names[random.below(names.length)]
    // beyond every range
    if (name !== undefined) changed[name] = name === 'memoryCeiling' ? 0xf8000000 : random.pick(0x80000000, 0x7fffffff)
  }
  const before = subject.config
  world.note(() => `reconfigure ${JSON.stringify(changed)}`)
  const result = subject.configure({ ...before, ...changed })
  if (isBad ? result > -100 : result !== 0) fault(`configure = ${result} for ${JSON.stringify(changed)}`)
  if (isBad) subject.configure(before)
  // existing segments keep their size
  for (const s of sessions.list) s.mtu = Math.max(s.mtu, subject.config.kcpMtu, subject.config.searchMtu)
}

/** Changes the peer, the rendezvous server or the nonce base, or sends PINGs. */
export function administer(world: World): void {
  const { subject, random, plan } = world
  const { calls, now } = subject
  subject.isDrained = false
  const r = random.below(14)
  if (r === 13) changeKeys(world)
  else if (r === 12) {
    const [up, down] = [random.pick(0, 1, 32768, 65536, 65537), random.pick(0, 65536, 0xffffffff)]
    world.note(() => `share_rate ${up} ${down}`)
    const result = calls.share_rate(up, down, now)
    if (result !== (Math.max(up, down) > 65536 ? ErrorCode.ARGUMENT : 0))
      fault(`share_rate(${up}, ${down}) = ${result}`)
  } else if (r >= 10) {
    measure(world)
  } else if (r < 4) {
    const address = r === 0 ? new Uint8Array(24) : pickAddress(world)
    world.note(() => `set_peer ${address.slice(0, 12)}`)
    subject.writeRecord(address, calls.peer_ptr())
    if (calls.set_peer(now) !== 0) fault('set_peer failed')
    world.peer = address
  } else if (r < 6) {
    subject.writeRecord(pickAddress(world), calls.rendezvous_ptr())
    subject.writeRecord(pickAddress(world), calls.local_ptr())
    const idBytes = random.pick(0, 4, 256, 257, 0xffffffff)
    world.note(() => `set_rendezvous ${idBytes}`)
    const result = calls.set_rendezvous(idBytes, now)
    if (result !== (idBytes > 256 ? ErrorCode.ARGUMENT : 0)) fault(`set_rendezvous(${idBytes}) = ${result}`)
    if (result === 0 && r === 5) {
      subject.writeRecord(pickAddress(world), calls.rendezvous_ptr())
      if (calls.add_rendezvous(now) !== 0) fault('add_rendezvous failed')
    }
  } else if (r === 6) {
    const port = random.pick(0, 40_000, 0xffffffff)
    world.note(() => `probe_path ${port}, path_moved`)
    const result = calls.probe_path(port, now)
    if (result !== 0 && result !== ErrorCode.NO_PEER) fault(`probe_path = ${result}`)
    if (port === 0 && calls.path_moved(now) !== 0) fault('path_moved failed')
  } else if (r < 8) {
    world.note(() => 'ping_peer')
    const result = calls.ping_peer(now)
    if (plan.role !== 'client' && result !== ErrorCode.STATE) fault(`ping_peer = ${result}`)
  } else if (r < 9) {
    world.note(() => 'probe_sessions')
    if (calls.probe_sessions(now) !== 0) fault('probe_sessions failed')
  } else {
    world.note(() => 'renew_nonce')
    const result = calls.renew_nonce()
    if (result !== 0 && result !== ErrorCode.ENTROPY) fault(`renew_nonce = ${result}`)
  }
}

/** Sets a key, with another limit, or ends one. */
function changeKeys(world: World): void {
  const { subject, random } = world
  const { calls, now } = subject
  const key = random.pick(0, 1, 2, FUZZ_KEYS, KEY_NUMBERS, 0xffffffff)
  const isValid = key < KEY_NUMBERS
  if (random.chance(0.6)) {
    const limit = random.pick(0, 1, 3, 0xffffffff)
    world.note(() => `set_key ${key}, ${limit} sessions`)
    if (isValid) {
      const view = new DataView(calls.memory.buffer, (calls.key_ptr() >>> 0) + key * Key.BYTES, Key.BYTES)
      view.setBigUint64(Key.tag, BigInt(random.u32()), true)
      view.setUint32(Key.maxSessions, limit, true)
    }
    const result = calls.set_key(key, now)
    if (result !== (isValid ? 0 : ErrorCode.ARGUMENT)) fault(`set_key(${key}) = ${result}`)
  } else {
    world.note(() => `end_key ${key}`)
    const left = calls.end_key(key, now)
    if (isValid ? left < 0 : left !== ErrorCode.ARGUMENT) fault(`end_key(${key}) = ${left}`)
  }
  const found = calls.find_key(calls.rx_ptr())
  if (found < -1 || found >= KEY_NUMBERS) fault(`find_key = ${found}`)
}

/** Pings an address and takes the answers; sizes that are too large are refused. */
function measure(world: World): void {
  const { subject, random } = world
  const { calls, now } = subject
  const before = new Uint8Array(calls.memory.buffer, calls.peer_ptr(), 24).slice()
  const bytes = random.pick(0, 0, 65_535, 0xffffffff)
  subject.writeRecord(random.chance(0.1) ? new Uint8Array(24) : pickAddress(world), calls.peer_ptr())
  world.note(() => `ping_address ${bytes}`)
  const result = calls.ping_address(bytes, now)
  subject.writeRecord(before, calls.peer_ptr())
  const errors: readonly number[] = [ErrorCode.ARGUMENT, ErrorCode.MEMORY]
  if (result < 0 && !errors.includes(result)) fault(`ping_address(${bytes}) = ${result}`)
  const answers = calls.poll_pongs()
  if (answers < 0 || answers > PONG_SLOTS) fault(`poll_pongs = ${answers}`)
}

/** Supplies less entropy than requested, or none for a while. */
export function starve(world: World): void {
  const { subject, random } = world
  subject.entropyChunk = random.pick(0, 25, 64, 8192, 8192)
  const left = random.pick(0, 10, 64)
  world.note(() => `entropy ${left}, then ${subject.entropyChunk} at a time`)
  subject.refill(left)
}
