/*
 * Services registered at this endpoint as a rendezvous server (protocol.md 8): a server registers by LISTEN, a client
 * asks by CONNECT, and a PUNCH sends each the address of the other.
 *
 * With a method, the address of a service changes only if the previous one is silent, because a recorded LISTEN can be
 * replayed from another address. Both are pinged several times; if the old one answers it stays, if only the new one
 * does it replaces the old one (docs/validation.md, "PONG and LISTEN").
 *
 * Services are found by the keyed hash of their id, and expire in the order of their last LISTEN.
 */

import { TICKS_PER_SECOND } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import { Chains, firstWith, link, nextWith, unlink } from '../memory/chains'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { alloc, classOf, free } from '../memory/slab'
import { copyAddress, sameAddress, sameRemote } from '../packet/address'
import { tagBytes } from '../packet/datagram'
import { hashBytes } from '../siphash'
import { Seconds, Ticks } from '../units'
import { NEW_SERVICE_PING, OLD_SERVICE_PING, sendPing } from './pings'
import { pushPunch } from './queue'

/** Further services are refused. */
const MAX_SERVICES: u32 = 1024

@unmanaged
class Service {
  chained: usize
  hash: u32
  // links of the list by last LISTEN
  older: usize
  younger: usize
  // last LISTEN, in seconds of the endpoint
  seen: Seconds
  idBytes: u32
  // as reported by the service, and as observed
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
  // 0 = this entry is free
  service: usize
  generation: u32
  pings: u32
  hasAnswered: u32
  // when the next pings are due; when the claim is decided
  pingAt: Ticks
  endsAt: Ticks
  local0: u64
  local1: u64
  local2: u64
  observed0: u64
  observed1: u64
  observed2: u64
}

/** Claims at a time; a LISTEN beyond them has no effect, its sender repeats it. */
const CLAIMS: u32 = 64
const CLAIM_BYTES: u32 = 72
const claims: usize = memory.data(64 * 72, 8)
let claimCount: u32 = 0
/** Pings of each of the two addresses, their interval, and the time to decide. */
const CLAIM_PINGS: u32 = 3
const PING_PAUSE_TICKS: Ticks = TICKS_PER_SECOND / 2
const DECIDE_TICKS: Ticks = 2 * TICKS_PER_SECOND

/** Sets the time after which a service without LISTEN expires. */
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

/**
 * Handles a LISTEN from `observed`.
 * @param local address that the service reports
 * @param second age of the endpoint
 */
export function registerService(
  id: usize,
  bytes: u32,
  local: usize,
  observed: usize,
  second: Seconds,
  now: Ticks,
): void {
  removeExpired(second)
  const hash = <u32>hashBytes(id, bytes)
  const known = findService(id, bytes, hash)
  if (!known) {
    addService(id, bytes, hash, local, observed, second)
    return
  }
  const s = changetype<Service>(known)
  const isMove = tagBytes() != 0 && !sameAddress(observedOf(s), observed)
  if (isMove) claim(s, local, observed, now)
  // a service that asks at another local address than before is not silent
  if (isMove && !sameRemote(observedOf(s), observed)) return
  s.seen = second
  unlinkEntry(list, known, LINKS)
  appendEntry(list, known, LINKS)
  if (isMove) return
  copyAddress(localOf(s), local)
  copyAddress(observedOf(s), observed)
}

/** Handles a CONNECT: sends a PUNCH to the service and to the client. */
export function connectToService(id: usize, bytes: u32, local: usize, observed: usize, second: Seconds): void {
  removeExpired(second)
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

function removeExpired(second: Seconds): void {
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

/** A LISTEN for `s` arrived from another address: starts a claim unless one is pending. */
function claim(s: Service, local: usize, observed: usize, now: Ticks): void {
  let found: Claim | null = null
  for (let i: u32 = 0; i < CLAIMS; i++) {
    const c = claimAt(i)
    // one claim at a time: the sender of this one repeats it
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
      // the next LISTEN renews it; until then it expires like the previous address
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

/** @returns ticks until `checkServices` has something to do */
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
