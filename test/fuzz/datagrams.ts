/**
 * Datagrams of the modelled peers: valid ones built from session state, damaged ones, replayed ones, and garbage.
 */
import { Cmd, HEADER_BYTES, What } from '../../testkit/sim/wire.ts'
import { type Conversation, Session } from './model.ts'
import { DATAGRAM_MAX } from './subject.ts'
import { hex, type World } from './world.ts'

/** The datagram under construction. */
const bytes = new Uint8Array(4096)
const view = new DataView(bytes.buffer)
let length = 0

function putHeader(conv: number, cmd: number, wnd: number, ts: number, sn: number, una: number, len: number): void {
  view.setUint32(length, conv)
  bytes[length + 4] = cmd
  bytes[length + 5] = 0
  view.setUint16(length + 6, wnd)
  view.setUint32(length + 8, ts)
  view.setUint32(length + 12, sn)
  view.setUint32(length + 16, una)
  view.setUint32(length + 20, len)
  length += HEADER_BYTES
}

/** Largest datagram that a session may send, bytes of plaintext. */
const largestOf = ({ subject: { config } }: World): number => Math.max(config.kcpMtu, config.searchMtu)

/** Opens a session as a modelled client, or lets the engine open one. */
export function openSession(world: World): Session | undefined {
  const { random, plan } = world
  if (plan.role === 'neither') return undefined
  if (plan.role === 'client') return openOurs(world)
  const conv = world.nextConv()
  const conversation = world.sessions.conversation(random, conv, true, world.isCalm)
  return world.sessions.add(
    new Session(conversation, pickAddress(world), false, random.u32() % 65521, largestOf(world)),
  )
}

function openOurs(world: World): Session | undefined {
  const { subject, random, sessions } = world
  world.note(() => 'stream_open')
  // a damaged datagram may already have used the next conv
  subject.flush()
  const handle = subject.calls.stream_open(subject.now)
  subject.isDrained = false
  if (handle <= 0) {
    if (handle < -5 || handle === -1 || handle === -2) throw new Error(`stream_open = ${handle}`)
    return undefined
  }
  if (subject.calls.session_info(handle & 0xffff, subject.now) !== handle) throw new Error('a handle without session')
  const conv = subject.core.info().getUint32(0, true)
  const conversation = sessions.conversation(random, conv, false, world.isCalm)
  const session = new Session(conversation, world.peer, true, random.u32() % 65521, largestOf(world))
  session.phase = 2
  sessions.bind(session, handle)
  return sessions.add(session)
}

export function pickAddress(world: World): Uint8Array {
  const { addresses, random, plan } = world
  const address = addresses[random.below(addresses.length)] ?? world.peer
  if (!plan.hasStrangers || random.chance(0.5)) return address
  const stranger = address.slice()
  random.fill(stranger.subarray(2, 4))
  return stranger
}

export function pickSession(world: World): Session | undefined {
  const { list } = world.sessions
  return list[world.random.below(list.length)]
}

// ---- segments

/** Remaining bytes of the datagram. */
function room(world: World): number {
  return DATAGRAM_MAX - world.subject.overhead - length
}

function pickWindow(world: World): number {
  const r = world.random.below(100)
  if (r < 70) return 1024
  return r < 94 ? world.random.pick(256, 32, 65535, 5) : r < 97 ? 0 : 1
}

/** The una reported by the peer, usually the true one. */
function pickUna(world: World, s: Session): number {
  const { random } = world
  const r = random.below(100)
  if (r < 88) return s.received
  if (r < 95) return Math.max(0, s.received - random.below(20))
  return (s.output.next + random.below(9) - 4) >>> 0
}

/** Selects the next segment to send. */
function pickSn(world: World, s: Session): number {
  const { random } = world
  const r = random.below(100)
  if (r < 68) return s.next++
  if (r < 80) return s.una
  if (r < 88) return Math.max(0, s.next - random.below(6))
  if (r < 97) return s.next + 1 + random.below(8)
  return s.una + s.window + random.below(5) - 2
}

function putPush(world: World, s: Session, wnd: number, una: number): void {
  const { random } = world
  const { input } = s.conversation
  const sn = pickSn(world, s)
  const most = random.chance(0.7) ? 1300 : 1 + random.below(DATAGRAM_MAX - HEADER_BYTES - world.subject.overhead)
  if (!input.ensure(random, sn, most)) return
  const start = input.start(sn)
  const end = input.end(sn)
  if (HEADER_BYTES + end - start > room(world)) return
  // the clock of kcptun-libev advances once per 100 ms
  const ts = s.conversation.conv & 1 ? world.subject.now : world.subject.now - (world.subject.now % 800)
  putHeader(s.conversation.conv, Cmd.PUSH, wnd, ts >>> 0, sn, una, end - start)
  bytes.set(input.bytes.subarray(start, end), length)
  length += end - start
}

function putAcks(world: World, s: Session, wnd: number, una: number): void {
  const { random } = world
  for (let n = random.pick(1, 2, 8, 40); n > 0 && room(world) >= HEADER_BYTES; n--) {
    const at = random.chance(0.8) ? 0 : 2 * random.below(s.owed.length / 2 + 1)
    let sn = s.owed[at]
    let ts = s.owed[at + 1]
    if (sn === undefined || ts === undefined) {
      if (random.chance(0.8)) return
      sn = random.pick(s.output.next, 0, random.u32(), s.output.next - 1) >>> 0
      ts = random.u32()
    } else if (random.chance(0.95)) s.owed.splice(at, 2)
    if (random.chance(0.03)) ts = random.pick(random.u32(), ts + 8, ts - 8000, 0) >>> 0
    if (random.chance(0.01)) sn = random.pick(random.u32(), sn + 1, sn - 1) >>> 0
    putHeader(s.conversation.conv, Cmd.ACK, wnd, ts, sn, una, 0)
  }
}

/** Fills a datagram with small segments behind one that is never sent. */
function putFlood(world: World, s: Session): void {
  const { random } = world
  const { input } = s.conversation
  const wnd = pickWindow(world)
  for (; room(world) >= HEADER_BYTES; s.next++) {
    if (s.next === s.una) s.next++
    if (!input.ensure(random, s.next, random.pick(1, 1, 8, 60))) return
    const start = input.start(s.next)
    const end = input.end(s.next)
    if (HEADER_BYTES + end - start > room(world)) return
    putHeader(s.conversation.conv, Cmd.PUSH, wnd, world.subject.now, s.next, s.received, end - start)
    bytes.set(input.bytes.subarray(start, end), length)
    length += end - start
  }
}

/** Segments of a session. */
function putSegments(world: World, s: Session): void {
  const { random } = world
  const wnd = pickWindow(world)
  const una = pickUna(world, s)
  if (s.owed.length > 0 && random.chance(0.6)) putAcks(world, s, wnd, una)
  const parts = random.pick(0, 1, 1, 1, 1, 2, 4)
  for (let i = 0; i < parts && room(world) >= HEADER_BYTES; i++) {
    const r = random.below(100)
    if (r < 80) putPush(world, s, wnd, una)
    else if (r < 90) putAcks(world, s, wnd, una)
    else putHeader(s.conversation.conv, random.pick(Cmd.WASK, Cmd.WINS), wnd, 0, 0, una, 0)
  }
  if (length === 0) putHeader(s.conversation.conv, Cmd.WINS, wnd, 0, 0, una, 0)
}

// ---- control messages

function putAddress(world: World): void {
  const { random } = world
  const record = pickAddress(world)
  const isIpv4 = record[0] === 4
  bytes[length++] = random.chance(0.03) ? random.below(256) : isIpv4 ? 0 : 1
  const ip = isIpv4 ? 4 : 16
  bytes.set(record.subarray(8, 8 + ip), length)
  length += ip
  view.setUint16(length, (record[2] ?? 0) | ((record[3] ?? 0) << 8))
  length += 2
}

/**
 * Builds PING, PONG, RESET, LISTEN, CONNECT, PUNCH, or a variation of one.
 * @returns the source address
 */
function putControl(world: World): Uint8Array {
  const { random } = world
  const what = random.pick(What.PING, What.PONG, What.PONG, What.RESET, What.LISTEN, What.CONNECT, What.PUNCH)
  let from = pickAddress(world)
  let value = random.u32()
  const ping = world.pings[random.below(world.pings.length)]
  if (what === What.PONG && ping && random.chance(0.8)) {
    value = ping.value
    if (random.chance(0.9)) from = ping.address
  }
  const s = pickSession(world)
  if (what === What.RESET && s && random.chance(0.4)) {
    value = s.conversation.conv
    if (random.chance(0.7)) from = s.address
  }
  view.setUint32(0, 0)
  view.setUint16(4, random.chance(0.02) ? random.below(65536) : what)
  length = 6
  if (what <= What.RESET) {
    view.setUint32(length, value)
    length += 4
  } else {
    putAddress(world)
    if (what === What.PUNCH) putAddress(world)
    else putServiceId(world)
  }
  return from
}

function putServiceId(world: World): void {
  const { random } = world
  const id = random.below(6)
  const idBytes = random.pick(0, 1, 8, 100, 256, 700)
  view.setUint16(length, random.chance(0.1) ? random.below(65536) : idBytes)
  length += 2
  bytes.fill(id, length, length + idBytes)
  length += idBytes
}

// ---- damage

/** Damages the datagram. @returns its source address */
function damage(world: World, from: Uint8Array): Uint8Array {
  const { random } = world
  switch (random.below(9)) {
    case 0:
      bytes[random.below(length)] = random.below(256)
      break
    case 1: {
      // a header field
      const at = random.pick(0, 4, 5, 6, 8, 12, 16, 20)
      if (at + 4 <= length) view.setUint32(at, view.getUint32(at) + random.pick(1, -1, 0x10000, 0x7fffffff, -0x10000))
      break
    }
    case 2:
      length = random.below(length + 1)
      break
    case 3:
      for (let n = random.below(40); n > 0 && room(world) > 0; n--) bytes[length++] = random.below(256)
      break
    case 4:
      if (length >= HEADER_BYTES) view.setUint32(20, random.pick(0xffffffff, length - 23, 0x80000000, random.u32()))
      break
    case 5:
      if (length >= 4) view.setUint32(0, random.pick(random.u32(), 0, world.nextConv()))
      break
    case 6:
      return pickAddress(world)
    case 7:
      length = Math.max(length, 1480 + random.below(60))
      break
    default:
      random.fill(bytes.subarray(random.below(length + 1), length))
  }
  return from
}

/** Marks conversations for which this datagram carries data that differs from their streams. */
function judge(world: World, plain: Uint8Array, size: number): void {
  const data = new DataView(plain.buffer, plain.byteOffset, size)
  for (let at = 0; size - at >= HEADER_BYTES; ) {
    const conversation = world.sessions.conversations.get(data.getUint32(at))
    const len = data.getUint32(at + 20)
    if (len > size - at - HEADER_BYTES) return
    if (conversation && data.getUint8(at + 4) === Cmd.PUSH) {
      const payload = plain.subarray(at + HEADER_BYTES, at + HEADER_BYTES + len)
      if (!conversation.input.isSegment(data.getUint32(at + 12), payload)) dirty(conversation)
    }
    at += HEADER_BYTES + len
  }
}

function dirty(conversation: Conversation): void {
  conversation.isDirty = true
}

// ---- inputs

/** Delivers a datagram, through the obfuscator if there is one. */
export function deliver(
  world: World,
  plain: Uint8Array,
  size: number,
  from: Uint8Array,
  nonce?: Uint8Array,
  isOpened = true,
): void {
  if (world.obfuscator) world.obfuscator.deliver(plain, size, from, nonce, isOpened)
  else world.subject.feed(plain, size, from, nonce, isOpened)
}

function send(world: World, plain: Uint8Array, size: number, from: Uint8Array, nonce?: Uint8Array): void {
  const { random, subject } = world
  const shown = Math.max(0, size)
  world.note(() => `datagram of ${size} from ${from.slice(0, 4)}.${from[11]}: ${hex(plain, shown)}`)
  const isKept = random.below(8) === 0
  const used = nonce ?? (isKept && subject.overhead ? random.bytes(subject.fixed.nonceBytes) : undefined)
  deliver(world, plain, size, from, used, random.below(200) !== 0)
  if (isKept) world.keep(world.fed, { plain: plain.slice(0, Math.max(0, size)), nonce: used, address: from })
}

/** A datagram of a session of a modelled peer. */
export function sessionDatagram(world: World, s: Session): void {
  length = 0
  if (world.random.below(100) < world.plan.floods) putFlood(world, s)
  if (length === 0) putSegments(world, s)
  let from = s.address
  if (world.random.below(100) < 6) {
    from = damage(world, from)
    judge(world, bytes, length)
  }
  send(world, bytes, length, from)
}

/** Sends as a correct peer does: all pending ACKs, and the next or a missing segment. */
export function honestDatagram(world: World, s: Session): void {
  const { random } = world
  const { input, conv } = s.conversation
  length = 0
  for (; s.owed.length > 0 && room(world) >= HEADER_BYTES; s.owed.splice(0, 2)) {
    putHeader(conv, Cmd.ACK, 1024, s.owed[1] ?? 0, s.owed[0] ?? 0, s.received, 0)
  }
  // one in flight
  const sn = s.una
  if (input.ensure(random, sn, 1200) && HEADER_BYTES + input.end(sn) - input.start(sn) <= room(world)) {
    putHeader(conv, Cmd.PUSH, 1024, world.subject.now, sn, s.received, input.end(sn) - input.start(sn))
    bytes.set(input.bytes.subarray(input.start(sn), input.end(sn)), length)
    length += input.end(sn) - input.start(sn)
  }
  if (length > 0) deliver(world, bytes, length, s.address)
}

export function controlDatagram(world: World): void {
  length = 0
  let from = putControl(world)
  if (world.random.chance(0.1)) {
    from = damage(world, from)
    judge(world, bytes, length)
  }
  send(world, bytes, Math.min(length, 1540), from)
}

/** Replays an earlier datagram of either side. */
export function oldDatagram(world: World): void {
  const { random, subject } = world
  const isReflected = random.chance(0.5)
  const list = isReflected ? world.sent : world.fed
  const kept = list[random.below(list.length)]
  if (!kept) return
  // the engine recognizes its own nonces; any other datagram counts as its content
  if (isReflected && subject.overhead === 0) judge(world, kept.plain, kept.plain.length)
  const from = random.chance(0.8) ? kept.address : pickAddress(world)
  send(world, kept.plain, kept.plain.length, from, kept.nonce)
}

/** Random bytes. */
export function garbageDatagram(world: World): void {
  const { random, subject } = world
  length = random.pick(random.below(30), random.below(200), random.below(1540))
  random.fill(bytes.subarray(0, length))
  if (random.chance(0.3)) bytes.fill(0, 0, Math.min(length, 4))
  judge(world, bytes, length)
  // with a method, some are too short for tag and nonce
  send(world, bytes, random.chance(0.2) ? Math.max(-subject.overhead, length - 1500) : length, pickAddress(world))
}
