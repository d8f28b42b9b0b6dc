/*
 * Services kept for others (protocol.md 8): a server announces itself by LISTEN, a client asks by CONNECT, and both are
 * told of each other by PUNCH.
 *
 * With a method the address of a service changes only when the one before is silent: anybody can send a recorded LISTEN
 * from elsewhere. Both are pinged, several times; if the old one answers it stays, if only the new one does it takes
 * over (docs/validation.md, "PONG and LISTEN").
 *
 * Services are found by keyed hash of their id, and expire from the head of a list in the order of their last LISTEN.
 */

import { TICKS_PER_SECOND } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import { Chains, firstWith, link, nextWith, unlink } from '../memory/chains'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { alloc, classOf, free } from '../memory/slab'
import { copyAddress, sameAddress } from '../packet/address'
import { tagBytes } from '../packet/datagram'
import { hashBytes } from '../siphash'
import { Seconds, Ticks } from '../units'
import { NEW_SERVICE_PING, OLD_SERVICE_PING, sendPing } from './pings'
import { pushPunch } from './queue'

/** The newest is refused beyond that. */
const MAX_SERVICES: u32 = 1024

@unmanaged
class Service {
  chained: usize
  hash: u32
  // neighbours by last LISTEN
  older: usize
  younger: usize
  // of the last LISTEN, in seconds of the endpoint
  seen: Seconds
  idBytes: u32
  // told by it, and seen
  local0: u64
  local1: u64
  local2: u64
  observed0: u64
  observed1: u64
  observed2: u64
}

const ID: usize = offsetof<Service>()
const chains: Chains = changetype<Chains>(memory.data(12, 8))
const list: List = changetype<List>(memory.data(8, 8))
const LINKS: usize = offsetof<Service>('older')
let expirySeconds: Seconds = 0

/** A service that another address claims. */
@unmanaged
class Claim {
  // 0 = this place is free
  service: usize
  generation: u32
  pings: u32
  hasAnswered: u32
  // when the next pings leave; when it is decided
  pingAt: Ticks
  endsAt: Ticks
  local0: u64
  local1: u64
  local2: u64
  observed0: u64
  observed1: u64
  observed2: u64
}

/** Claims at a time; a LISTEN beyond them changes nothing, its sender repeats it. */
const CLAIMS: u32 = 64
const CLAIM_BYTES: u32 = 72
const claims: usize = memory.data(64 * 72, 8)
let claimCount: u32 = 0
/** Pings of each of the two addresses, the pause between them, and when it is decided. */
const CLAIM_PINGS: u32 = 3
const PING_PAUSE_TICKS: Ticks = TICKS_PER_SECOND / 2
const DECIDE_TICKS: Ticks = 2 * TICKS_PER_SECOND

export function setServiceExpiry(seconds: Seconds): void {
  expirySeconds = seconds
}

function localOf(s: Service): usize {
  return changetype<usize>(s) + offsetof<Service>('local0')
}

function observedOf(s: Service): usize {
  return changetype<usize>(s) + offsetof<Service>('observed0')
}

function blockClass(idBytes: u32): u32 {
  return classOf(<u32>ID + idBytes)
}

/** A LISTEN from `observed` with an id and the address that the service has by itself. */
export function keepService(id: usize, bytes: u32, local: usize, observed: usize, second: Seconds, now: Ticks): void {
  forgetExpired(second)
  const hash = <u32>hashBytes(id, bytes)
  const known = findService(id, bytes, hash)
  if (!known) {
    addService(id, bytes, hash, local, observed, second)
    return
  }
  const s = changetype<Service>(known)
  if (tagBytes() != 0 && !sameAddress(observedOf(s), observed)) {
    claim(s, local, observed, now)
    return
  }
  s.seen = second
  copyAddress(localOf(s), local)
  copyAddress(observedOf(s), observed)
  unlinkEntry(list, known, LINKS)
  appendEntry(list, known, LINKS)
}

/** Tells a service and a client of each other. */
export function introduce(id: usize, bytes: u32, local: usize, observed: usize, second: Seconds): void {
  forgetExpired(second)
  const known = findService(id, bytes, <u32>hashBytes(id, bytes))
  if (!known) return
  const s = changetype<Service>(known)
  pushPunch(observedOf(s), local, observed)
  pushPunch(observed, localOf(s), observedOf(s))
}

function findService(id: usize, bytes: u32, hash: u32): usize {
  for (let at = firstWith(chains, hash); at; at = nextWith(at, hash)) {
    const s = changetype<Service>(at)
    if (s.idBytes == bytes && memory.compare(at + ID, id, bytes) == 0) return at
  }
  return 0
}

function addService(id: usize, bytes: u32, hash: u32, local: usize, observed: usize, second: Seconds): void {
  if (chains.count == MAX_SERVICES) return
  const at = alloc(blockClass(bytes))
  if (!at) return
  if (!link(chains, at, hash)) {
    free(at, blockClass(bytes))
    return
  }
  const s = changetype<Service>(at)
  s.seen = second
  s.idBytes = bytes
  memory.copy(at + ID, id, bytes)
  copyAddress(localOf(s), local)
  copyAddress(observedOf(s), observed)
  appendEntry(list, at, LINKS)
}

function forgetExpired(second: Seconds): void {
  for (let at = list.oldest; at; at = list.oldest) {
    const s = changetype<Service>(at)
    if (second - s.seen < expirySeconds) return
    unlinkEntry(list, at, LINKS)
    unlink(chains, at)
    endClaim(s)
    free(at, blockClass(s.idBytes))
  }
}

// ---- claims

function claimAt(i: u32): Claim {
  return changetype<Claim>(claims + <usize>(i * CLAIM_BYTES))
}

function candidateOf(c: Claim): usize {
  return changetype<usize>(c) + offsetof<Claim>('observed0')
}

function candidateLocalOf(c: Claim): usize {
  return changetype<usize>(c) + offsetof<Claim>('local0')
}

/** A LISTEN for `s` came from another address: unless that is being looked at already, both are asked. */
function claim(s: Service, local: usize, observed: usize, now: Ticks): void {
  let found: Claim | null = null
  for (let i: u32 = 0; i < CLAIMS; i++) {
    const c = claimAt(i)
    // one claim at a time: who comes later comes again
    if (c.service == changetype<usize>(s)) return
    if (!found && c.service == 0) found = c
  }
  if (!found) return
  claimCount++
  found.service = changetype<usize>(s)
  found.generation++
  found.pings = 0
  found.hasAnswered = 0
  found.pingAt = now
  found.endsAt = now + DECIDE_TICKS
  copyAddress(candidateLocalOf(found), local)
  copyAddress(candidateOf(found), observed)
  checkClaim(found, now)
}

function end(c: Claim): void {
  c.service = 0
  claimCount--
}

function endClaim(s: Service): void {
  for (let i: u32 = 0; i < CLAIMS; i++) if (claimAt(i).service == changetype<usize>(s)) end(claimAt(i))
}

function argumentOf(c: Claim): u32 {
  return (c.generation * CLAIMS) | (<u32>(changetype<usize>(c) - claims) / CLAIM_BYTES)
}

function checkClaim(c: Claim, now: Ticks): void {
  const s = changetype<Service>(c.service)
  if (ticksUntil(c.endsAt, now) == 0) {
    if (c.hasAnswered) {
      // its next LISTEN says that it is alive; until then it is as old as the one before
      copyAddress(localOf(s), candidateLocalOf(c))
      copyAddress(observedOf(s), candidateOf(c))
    }
    end(c)
    return
  }
  if (c.pings == CLAIM_PINGS || ticksUntil(c.pingAt, now) != 0) return
  c.pings++
  c.pingAt = now + PING_PAUSE_TICKS
  sendPing(OLD_SERVICE_PING, argumentOf(c), observedOf(s), now)
  if (!c.hasAnswered) sendPing(NEW_SERVICE_PING, argumentOf(c), candidateOf(c), now)
}

/** One of the two addresses of a claim answered its PING. */
export function onServicePong(argument: u32, isNew: bool): void {
  const c = claimAt(argument & (CLAIMS - 1))
  if (c.service == 0 || argumentOf(c) != argument) return
  if (isNew) c.hasAnswered = 1
  else end(c)
}

/** Decides claims and sends their pings, as far as they are due. */
export function checkServices(now: Ticks): void {
  if (claimCount == 0) return
  for (let i: u32 = 0; i < CLAIMS; i++) if (claimAt(i).service) checkClaim(claimAt(i), now)
}

/** Ticks until `checkServices` has something to do. */
export function servicesDeadline(now: Ticks): Ticks {
  let wanted = NEVER
  if (claimCount == 0) return wanted
  for (let i: u32 = 0; i < CLAIMS; i++) {
    const c = claimAt(i)
    if (c.service == 0) continue
    wanted = min(wanted, ticksUntil(c.endsAt, now))
    if (c.pings < CLAIM_PINGS) wanted = min(wanted, ticksUntil(c.pingAt, now))
  }
  return wanted
}
