/*
 * Rendezvous (protocol.md 8): a server and a client behind NATs find each other through a third party.
 *
 * Every endpoint can act as a rendezvous server (services.ts). A server with a rendezvous server registers there
 * (LISTEN); a client asks there (CONNECT) until it has a peer, and again when the peer is silent. The addresses in a
 * PUNCH are pinged several times, because the NAT of the other side often drops the first ping.
 */

import { ADDRESS_BYTES, RENDEZVOUS_OTHERS, SERVICE_BYTES, TICKS_PER_SECOND } from '../abi'
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
import { CONNECT, isProbing, LISTEN, push, setProbing } from './queue'
import { connectToService, registerService } from './services'

/** Maximum number of addresses that are pinged at the same time. */
const MAX_PUNCHES: u32 = 16
/** Pings per address, and the interval after the first, which doubles. */
const PUNCH_PINGS: u32 = 5
const PUNCH_PAUSE_TICKS: Ticks = TICKS_PER_SECOND / 4
const CONNECT_INTERVAL_TICKS: Ticks = 4 * TICKS_PER_SECOND

/** Written by the host before `setRendezvous`, the first also before `addRendezvous`. */
export const rendezvousServer: usize = memory.data(ADDRESS_BYTES, 8)
export const localAddress: usize = memory.data(ADDRESS_BYTES, 8)
export const serviceId: usize = memory.data(SERVICE_BYTES, 8)

const server: usize = memory.data(ADDRESS_BYTES, 8)
const local: usize = memory.data(ADDRESS_BYTES, 8)
let idBytes: u32 = 0

/** The addresses of the last PUNCH, for the host; family 0 = not usable. */
export const punched: usize = memory.data(2 * ADDRESS_BYTES, 8)

/**
 * Other addresses of the rendezvous server's name. Each may be a server of its own with other services, so a client
 * sends CONNECT to them, too: to one of them with each CONNECT to the server, in turn.
 */
const others: usize = memory.data(RENDEZVOUS_OTHERS * ADDRESS_BYTES, 8)
let otherCount: u32 = 0
let nextOther: u32 = 0

/** An address that is being pinged. */
@unmanaged
class Punch {
  // address record
  address0: u64
  address1: u64
  address2: u64
  // 0 = this entry is free
  pingsLeft: u32
  dueAt: Ticks
  // number of the PUNCH that contained it
  number: u32
  // it arrived at the probing socket, which is to be opened for
  isProbe: u32
}

const PUNCH_BYTES: u32 = 40
const punches: usize = memory.data(16 * 40, 8)
let punchCount: u32 = 0

function punchAt(i: u32): Punch {
  return changetype<Punch>(punches + <usize>(i * PUNCH_BYTES))
}

/** An address that no PUNCH contained is pinged only if none of the others answers within this time. */
const UNNAMED_DELAY_TICKS: Ticks = TICKS_PER_SECOND

let helloAt: Ticks = 0

/**
 * Applies what the host wrote; makes LISTEN or CONNECT due now. Other addresses are forgotten.
 * @returns false if the id is too long
 */
export function setRendezvous(length: u32, now: Ticks): bool {
  if (length > SERVICE_BYTES) return false
  copyAddress(server, rendezvousServer)
  copyAddress(local, localAddress)
  idBytes = length
  otherCount = 0
  helloAt = now
  return true
}

/**
 * Adds the address that the host wrote.
 * @returns false if there are too many
 */
export function addRendezvous(): bool {
  if (otherCount == RENDEZVOUS_OTHERS) return false
  copyAddress(otherAt(otherCount++), rendezvousServer)
  return true
}

/** @returns the rendezvous server; family 0 if there is none */
export function announcedTo(): usize {
  return server
}

// ---- LISTEN and CONNECT of this endpoint

/** Sends CONNECT with another local port to every address: from the socket in use nothing may arrive anywhere. */
export function connectFrom(port: u32): void {
  if (isAddress(server)) push(CONNECT, port, server)
  for (let i: u32 = 0; i < otherCount; i++) push(CONNECT, port, otherAt(i))
}

function otherAt(i: u32): usize {
  return others + <usize>(i * ADDRESS_BYTES)
}

/**
 * @param isWanted LISTEN or CONNECT is to be sent
 * @returns ticks until `checkRendezvous` has something to do
 */
export function rendezvousDeadline(isWanted: bool, now: Ticks): Ticks {
  let wanted = isWanted && isAddress(server) ? ticksUntil(helloAt, now) : NEVER
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft) wanted = min(wanted, ticksUntil(punch.dueAt, now))
  }
  return wanted
}

/** Sends what is due: LISTEN every `listenTicks` (server), CONNECT every 4 s (client, `listenTicks` 0), pings. */
export function checkRendezvous(isWanted: bool, listenTicks: Ticks, now: Ticks): void {
  if (isWanted && isAddress(server) && ticksUntil(helloAt, now) == 0) {
    push(listenTicks ? LISTEN : CONNECT, 0, server)
    if (listenTicks == 0 && otherCount != 0) push(CONNECT, 0, otherAt(nextOther++ % otherCount))
    helloAt = now + (listenTicks ? listenTicks : CONNECT_INTERVAL_TICKS)
  }
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft == 0 || ticksUntil(punch.dueAt, now) != 0) continue
    setProbing(punch.isProbe != 0)
    sendPing(PUNCH_PING, punch.number, changetype<usize>(punch), now)
    setProbing(false)
    punch.dueAt = now + (PUNCH_PAUSE_TICKS << (PUNCH_PINGS - punch.pingsLeft))
    punch.pingsLeft--
  }
}

/** Makes the next CONNECT due now: the peer is silent. */
export function scheduleHello(now: Ticks): void {
  helloAt = now
}

/** Stops the pings: the peer is found. */
export function endPunches(): void {
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) punchAt(i).pingsLeft = 0
}

/**
 * Writes the body of LISTEN and CONNECT: local address, service id.
 * @param port local port to announce; 0 = that of the local address
 * @returns its bytes
 */
export function writeHello(at: usize, port: u32): u32 {
  const length = writeWireAddress(at, local)
  if (port) store<u16>(at + length - 2, bswap<u16>(<u16>port))
  store<u16>(at + length, bswap<u16>(<u16>idBytes))
  memory.copy(at + length + 2, serviceId, idBytes)
  return length + 2 + idBytes
}

// ---- as rendezvous server

/**
 * Handles the body of a LISTEN or CONNECT from `observed`.
 * @returns false if it is malformed
 */
export function onHello(isListen: bool, at: usize, len: u32, observed: usize, second: Seconds, now: Ticks): bool {
  const length = wireAddressBytes(at, len)
  if (length == 0) return false
  let id = at + length
  let bytes: u32 = 0
  if (len >= length + 2) {
    bytes = bswap<u16>(load<u16>(id))
    id += 2
    // an id that does not fit is treated as empty (protocol.md 7.1)
    if (bytes > len - length - 2) bytes = 0
  }
  readWireAddress(at, parsed)
  if (isListen) registerService(id, bytes, parsed, observed, second, now)
  else connectToService(id, bytes, parsed, observed, second)
  return true
}

const parsed: usize = memory.data(ADDRESS_BYTES, 8)

/**
 * Handles the body of a PUNCH: starts pinging each usable address.
 * @returns false if it is malformed
 */
export function onPunch(at: usize, len: u32, mapped: bool, now: Ticks): bool {
  const first = wireAddressBytes(at, len)
  if (first == 0) return false
  const second = wireAddressBytes(at + first, len - first)
  if (second == 0) return false
  punchCount++
  onPunchAddress(at, punched, mapped, now)
  onPunchAddress(at + first, punched + ADDRESS_BYTES, mapped, now)
  return true
}

/**
 * @returns true if the PUNCH of this number contained the address: behind a hairpin NAT the other address may answer
 */
export function wasPunched(number: u32, address: usize): bool {
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.number == number && sameAddress(changetype<usize>(punch), address)) return true
  }
  return false
}

/**
 * A PING arrived from `address` while the peer is searched for: its NAT may map it to another address than the
 * rendezvous server observed (RFC 8445 7.3.1.4, triggered checks). It is pinged after the addresses of a PUNCH, because
 * a PING can be relayed by an attacker.
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

/**
 * Starts pinging an address of a PUNCH.
 * @param record where the host reads it
 * @param mapped the socket is an IPv6 one: an IPv4 address is sent to as v4-mapped
 */
function onPunchAddress(at: usize, record: usize, mapped: bool, now: Ticks): void {
  readWireAddress(at, parsed)
  memory.fill(record, 0, ADDRESS_BYTES)
  if (!isPunchable(parsed)) return
  if (mapped && familyOf(parsed) == IPV4) mapIpv4(parsed)
  copyAddress(record, parsed)
  startPunch(parsed, now)
}

/** Starts pinging an address at `due`, unless all entries are in use. */
function startPunch(address: usize, due: Ticks): void {
  for (let i: u32 = 0; i < MAX_PUNCHES; i++) {
    const punch = punchAt(i)
    if (punch.pingsLeft) continue
    punch.pingsLeft = PUNCH_PINGS
    punch.dueAt = due
    punch.number = punchCount
    punch.isProbe = isProbing() ? 1 : 0
    copyAddress(changetype<usize>(punch), address)
    return
  }
}
