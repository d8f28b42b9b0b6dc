/*
 * Rendezvous (protocol.md 8): how a server and a client behind NATs find each other through a third party.
 *
 * Every endpoint keeps services for others (services.ts); a server with a rendezvous server announces itself there, a client asks
 * there until it has a peer, and again when the peer falls silent. Addresses told by PUNCH are pinged several times:
 * the first ping of one side often dies at the NAT of the other.
 */

import { TICKS_PER_SECOND } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import {
  copyAddress,
  familyOf,
  IPV4,
  isAddress,
  isPunchable,
  mapIpv4,
  readWireAddress,
  sameAddress,
  wireAddressBytes,
  writeWireAddress,
} from '../packet/address'
import { Seconds, Ticks } from '../units'
import { PUNCH_PING, sendPing } from './pings'
import { CONNECT, LISTEN, push } from './queue'
import { introduce, keepService } from './services'

/** Addresses being pinged after a PUNCH. */
const MAX_PUNCHES: u32 = 16
/** Pings of one punched address, and the pause after the first; it doubles. */
const PUNCH_PINGS: u32 = 5
const PUNCH_PAUSE_TICKS: Ticks = TICKS_PER_SECOND / 4
const CONNECT_INTERVAL_TICKS: Ticks = 4 * TICKS_PER_SECOND
const MAX_ID_BYTES: u32 = 256

/** Written by the host before `setRendezvous`. */
export const rendezvousServer: usize = memory.data(24, 8)
export const localAddress: usize = memory.data(24, 8)
export const serviceId: usize = memory.data(256, 8)

const server: usize = memory.data(24, 8)
const local: usize = memory.data(24, 8)
let idBytes: u32 = 0

/** An address that is being pinged. */
@unmanaged
class Punch {
  // address record
  address0: u64
  address1: u64
  address2: u64
  // 0 = this place is free
  pingsLeft: u32
  dueAt: Ticks
  // number of the PUNCH that named it
  number: u32
}

const PUNCH_BYTES: u32 = 40
const punches: usize = memory.data(16 * 40, 8)
let punchCount: u32 = 0

function punchAt(i: u32): Punch {
  return changetype<Punch>(punches + <usize>(i * PUNCH_BYTES))
}

/** A source that was not named is pinged only if none of the named ones answers meanwhile. */
const UNNAMED_DELAY_TICKS: Ticks = TICKS_PER_SECOND

let helloAt: Ticks = 0

/** Takes over what the host wrote; the next LISTEN or CONNECT leaves at once. */
export function setRendezvous(length: u32, now: Ticks): bool {
  if (length > MAX_ID_BYTES) return false
  copyAddress(server, rendezvousServer)
  copyAddress(local, localAddress)
  idBytes = length
  helloAt = now
  return true
}

// ---- our own LISTEN and CONNECT

/** Ticks until `checkRendezvous` has something to do. `wanting`: a LISTEN or CONNECT is wanted at all. */
export function rendezvousDeadline(wanting: bool, now: Ticks): Ticks {
  let wanted = wanting && isAddress(server) ? ticksUntil(helloAt, now) : NEVER
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft) wanted = min(wanted, ticksUntil(punch.dueAt, now))
  }
  return wanted
}

/**
 * Sends what is due: LISTEN every `listenTicks` (a server), CONNECT every 4 s (0, a client), pings to punched
 * addresses.
 */
export function checkRendezvous(wanting: bool, listenTicks: Ticks, now: Ticks): void {
  if (wanting && isAddress(server) && ticksUntil(helloAt, now) == 0) {
    push(listenTicks ? LISTEN : CONNECT, 0, server)
    helloAt = now + (listenTicks ? listenTicks : CONNECT_INTERVAL_TICKS)
  }
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft == 0 || ticksUntil(punch.dueAt, now) != 0) continue
    sendPing(PUNCH_PING, punch.number, changetype<usize>(punch), now)
    punch.dueAt = now + (PUNCH_PAUSE_TICKS << (PUNCH_PINGS - punch.pingsLeft))
    punch.pingsLeft--
  }
}

/** Asks for the next CONNECT at once: the peer fell silent. */
export function scheduleHello(now: Ticks): void {
  helloAt = now
}

/** Ends the pings to punched addresses: the peer is found. */
export function endPunches(): void {
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) punchAt(i).pingsLeft = 0
}

/** Body of LISTEN and CONNECT: local address, service id. Result: its bytes. */
export function writeHello(at: usize): u32 {
  const length = writeWireAddress(at, local)
  store<u16>(at + length, bswap<u16>(<u16>idBytes))
  memory.copy(at + length + 2, serviceId, idBytes)
  return length + 2 + idBytes
}

// ---- for others

/** Takes the body of LISTEN or CONNECT from `observed`. False if it is malformed. */
export function onHello(isListen: bool, at: usize, len: u32, observed: usize, second: Seconds, now: Ticks): bool {
  const length = wireAddressBytes(at, len)
  if (length == 0) return false
  let id = at + length
  let bytes: u32 = 0
  if (len >= length + 2) {
    bytes = bswap<u16>(load<u16>(id))
    id += 2
    // an id that does not fit counts as the empty one (protocol.md 7.1)
    if (bytes > len - length - 2) bytes = 0
  }
  readWireAddress(at, parsed)
  if (isListen) keepService(id, bytes, parsed, observed, second, now)
  else introduce(id, bytes, parsed, observed, second)
  return true
}

const parsed: usize = memory.data(24, 8)

/** Takes the body of PUNCH: starts pinging each usable address. False if it is malformed. */
export function onPunch(at: usize, len: u32, mapped: bool, now: Ticks): bool {
  const first = wireAddressBytes(at, len)
  if (first == 0) return false
  const second = wireAddressBytes(at + first, len - first)
  if (second == 0) return false
  punchCount++
  onPunchAddress(at, mapped, now)
  onPunchAddress(at + first, mapped, now)
  return true
}

/** True if the PUNCH of this number named the address: behind a hairpin NAT the other one may answer. */
export function wasPunched(number: u32, address: usize): bool {
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.number == number && sameAddress(changetype<usize>(punch), address)) return true
  }
  return false
}

/**
 * A PING came from `address` while the peer is searched: its NAT may show it elsewhere than the rendezvous server saw
 * it (RFC 8445 7.3.1.4, triggered checks). It is pinged later than what a PUNCH named, since anybody can relay a PING.
 */
export function punchSource(address: usize, now: Ticks): void {
  if (!isPunchable(address)) return
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft && sameAddress(changetype<usize>(punch), address)) return
  }
  punchCount++
  startPunch(address, now + UNNAMED_DELAY_TICKS)
}

/** `mapped`: the socket is an IPv6 one, an IPv4 address goes out as v4-mapped. */
function onPunchAddress(at: usize, mapped: bool, now: Ticks): void {
  readWireAddress(at, parsed)
  if (!isPunchable(parsed)) return
  if (mapped && familyOf(parsed) == IPV4) mapIpv4(parsed)
  startPunch(parsed, now)
}

/** Has an address pinged from `due` on; not when all places are taken. */
function startPunch(address: usize, due: Ticks): void {
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft) continue
    punch.pingsLeft = PUNCH_PINGS
    punch.dueAt = due
    punch.number = punchCount
    copyAddress(changetype<usize>(punch), address)
    return
  }
}
