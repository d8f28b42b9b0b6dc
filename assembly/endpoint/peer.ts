/*
 * The peer: the address of new sessions, whether it answers, and how a rendezvous client finds it (protocol.md 7.3,
 * 7.6, 8).
 */

import {
  ADDRESS_BYTES,
  CONFIG_KEEPALIVE,
  E_ARGUMENT,
  E_NO_PEER,
  EVENT_PEER_FOUND,
  EVENT_PONG,
  EVENT_PROBED,
  EVENT_RESOLVE,
  MODE_CLIENT,
  MODE_RENDEZVOUS,
  MODE_SERVER,
  OK,
  TICKS_PER_MS,
  TICKS_PER_SECOND,
} from '../abi'
import { elapsed } from '../clock'
import {
  checkPing,
  isSilent,
  onPeerDatagram,
  onPong,
  onSilence,
  pingDeadline,
  schedulePing,
  setAlone,
} from '../control/keepalive'
import {
  argumentOf,
  closePing,
  PEER_PING,
  PUNCH_PING,
  purposeOf,
  sendPing,
  sentAtOf,
  wasSentTo,
} from '../control/pings'
import { isProbing, setProbing } from '../control/queue'
import {
  addRendezvous,
  announcedTo,
  checkRendezvous,
  connectFrom,
  endPunches,
  punchSource,
  rendezvousDeadline,
  rendezvousServer,
  scheduleHello,
  setRendezvous,
  wasPunched,
} from '../control/rendezvous'
import { checkServices, servicesDeadline } from '../control/services'
import { copyAddress, copyPlace, familyOf, IPV6, isAddress, sameAddress, samePlace } from '../packet/address'
import { queueEndpointEvent } from '../session/events'
import { gauge, LAST_RECEIVED_AGE, set, WAITSND } from '../stats'
import { ElapsedTicks, Seconds, Ticks } from '../units'
import { field } from './config'

/** Written by the host before `set_peer`, and by the engine before PEER_FOUND. */
export const peer: usize = memory.data(ADDRESS_BYTES, 8)
export const currentPeer: usize = memory.data(ADDRESS_BYTES, 8)
/** The peer before the last change, whose sessions are to move. */
export const previousPeer: usize = memory.data(ADDRESS_BYTES, 8)

let mode: u32 = 0
let lastReceivedAt: ElapsedTicks = 0
let everReceived: bool = false
/** The last datagram that did not come from the rendezvous server. */
let peerReceivedAt: ElapsedTicks = 0
let resolvedAt: ElapsedTicks = 0
let silenceTicks: ElapsedTicks = 0

/** @param silence seconds without a datagram after which names are resolved again */
export function configurePeer(modeBits: u32, silence: Seconds): void {
  mode = modeBits
  setAlone(!isAddress(currentPeer))
  silenceTicks = <u64>silence * TICKS_PER_SECOND
}

/**
 * Takes the address that the host wrote.
 * @returns true if it changed
 */
export function takePeer(now: Ticks): bool {
  if (sameAddress(currentPeer, peer)) return false
  if (samePlace(currentPeer, peer)) {
    // new sessions use another key; those of the previous one keep it
    copyAddress(currentPeer, peer)
    schedulePing(now)
    return false
  }
  changePeer(peer, now)
  return true
}

function changePeer(address: usize, now: Ticks): void {
  copyAddress(previousPeer, currentPeer)
  copyAddress(currentPeer, address)
  setAlone(!isAddress(currentPeer))
  schedulePing(now)
}

/** @returns the address that is pinged: the peer, or without one the rendezvous server; family 0 if there is neither */
function pinged(): usize {
  return isAddress(currentPeer) || !(mode & MODE_RENDEZVOUS) ? currentPeer : announcedTo()
}

/** Pings the peer in addition to the keepalive, which is not affected. */
export function probePeer(now: Ticks): i32 {
  if (!isAddress(currentPeer)) return E_NO_PEER
  sendPing(PEER_PING, 0, currentPeer, now)
  return OK
}

/**
 * Finds out whether the peer, or without one the rendezvous server, answers at another local port, or at another
 * address, which the host wrote: PINGs it from both sockets. A rendezvous client announces the port of the probing
 * socket, so that its peer opens its NAT for it.
 */
export function probePath(port: u32, now: Ticks): i32 {
  const target = pinged()
  if (!isAddress(target)) return E_NO_PEER
  const other = isAddress(peer) ? peer : target
  sendPing(PEER_PING, 0, target, now)
  setProbing(true)
  if (isSearching()) connectFrom(port)
  sendPing(PEER_PING, 0, other, now)
  setProbing(false)
  return OK
}

/** A PONG arrived at the probing socket. */
export function onProbePong(ping: usize, address: usize): void {
  if (!isAnswer(ping, address)) return
  closePing(ping)
  queueEndpointEvent(EVENT_PROBED, 0)
}

/** Takes the rendezvous server, local address and service id that the host wrote. */
export function takeRendezvous(idBytes: u32, now: Ticks): i32 {
  const isOther = !sameAddress(announcedTo(), rendezvousServer)
  if (!setRendezvous(idBytes, now)) return E_ARGUMENT
  if (isOther && !isAddress(currentPeer)) schedulePing(now)
  return OK
}

/** Takes another address of the rendezvous server's name that the host wrote. */
export function takeOtherRendezvous(): i32 {
  return addRendezvous() ? OK : E_ARGUMENT
}

/** @returns seconds of silence after which a peer is considered lost (protocol.md 7.4) */
export function silenceSeconds(): Seconds {
  return <u32>(silenceTicks / TICKS_PER_SECOND)
}

/**
 * A datagram arrived from `address` that is authentic, not a replay and not our own. Nothing less proves that the peer
 * is alive, because it can be forged.
 */
export function onAuthentic(address: usize): void {
  everReceived = true
  lastReceivedAt = elapsed()
  // that the rendezvous server answers PINGs does not show that its name and our own address are up to date
  if (!sameAddress(address, announcedTo())) peerReceivedAt = lastReceivedAt
  // what arrives at the probing socket shows nothing about the socket in use
  if (!isProbing() && sameAddress(address, pinged())) onPeerDatagram()
}

/** A session moved to `address`; a client follows its server. */
export function followPeer(from: usize, address: usize): void {
  if (!samePlace(from, currentPeer)) return
  copyPlace(currentPeer, address)
  copyPlace(peer, address)
}

/**
 * Pings the peer; when it becomes silent the host resolves names again, and a rendezvous client sends CONNECT.
 * @returns as `checkPing`
 */
function checkPeer(now: Ticks): bool {
  const wasSilent = isSilent()
  const isTurn = checkPing(pinged(), now)
  if (wasSilent || !isSilent()) return isTurn
  resolvedAt = elapsed()
  queueEndpointEvent(EVENT_RESOLVE, 0)
  if (isAddress(currentPeer)) scheduleHello(now)
  return isTurn
}

/**
 * @returns true when LISTEN or CONNECT is to be sent: always for a server, for a client while it has no peer that
 *   answers
 */
function needsRendezvous(): bool {
  if (!(mode & MODE_RENDEZVOUS)) return false
  return (mode & MODE_SERVER) != 0 || ((mode & MODE_CLIENT) != 0 && (!isAddress(currentPeer) || isSilent()))
}

function listenTicks(): Ticks {
  return mode & MODE_SERVER ? field(CONFIG_KEEPALIVE) * TICKS_PER_SECOND : 0
}

/** @returns true if the socket is an IPv6 one, according to the rendezvous server's address */
export function isMappedSocket(): bool {
  return familyOf(announcedTo()) == IPV6
}

/** @returns true while a rendezvous client searches for its peer */
function isSearching(): bool {
  return (mode & MODE_CLIENT) != 0 && needsRendezvous()
}

/** A PING arrived from `address`. */
export function onPing(address: usize, now: Ticks): void {
  if (isSearching() && !sameAddress(address, currentPeer)) punchSource(address, now)
}

/** @returns true if a PONG from `address` answers a PING to the peer or to a punched address */
function isAnswer(ping: usize, address: usize): bool {
  if (wasSentTo(ping, address)) return true
  return purposeOf(ping) == PUNCH_PING && wasPunched(argumentOf(ping), address)
}

/**
 * A PONG from `address` answers `ping`, which was sent to the peer or to a punched address. While a rendezvous client
 * searches, the first such PONG determines the peer.
 * @returns true if the peer changed
 */
export function onPeerPong(ping: usize, address: usize, now: Ticks): bool {
  const isPunch = purposeOf(ping) == PUNCH_PING
  if (!isAnswer(ping, address)) return false
  closePing(ping)
  const isNew = isPunch && isSearching() && !sameAddress(address, currentPeer)
  if (isNew) {
    changePeer(address, now)
    copyAddress(peer, address)
    endPunches()
    queueEndpointEvent(EVENT_PEER_FOUND, 0)
  }
  if (sameAddress(address, pinged())) {
    onPong()
    queueEndpointEvent(EVENT_PONG, now - sentAtOf(ping))
  }
  return isNew
}

/** @returns ticks until names are to be resolved again (protocol.md 7.6) */
function resolveDeadline(): Ticks {
  const since = elapsed() - max(resolvedAt, peerReceivedAt)
  return since >= silenceTicks ? 0 : <u32>(silenceTicks - since)
}

/**
 * Performs what is due: pings, LISTEN, CONNECT, RESOLVE, claims of services.
 * @returns true if a session at the peer may have to ask for an answer (`askSilent`)
 */
export function checkPeerTimers(now: Ticks): bool {
  checkServices(now)
  checkRendezvous(needsRendezvous(), listenTicks(), now)
  const isTurn = isAddress(pinged()) && checkPeer(now)
  if (resolveDeadline() != 0) return isTurn
  resolvedAt = elapsed()
  if (isAddress(currentPeer)) onSilence(gauge(WAITSND) != 0, now)
  queueEndpointEvent(EVENT_RESOLVE, 0)
  return isTurn
}

/** @returns ticks until `checkPeerTimers` has something to do */
export function peerDeadline(now: Ticks): Ticks {
  const wanted = min(min(resolveDeadline(), servicesDeadline(now)), rendezvousDeadline(needsRendezvous(), now))
  return isAddress(pinged()) ? min(wanted, pingDeadline(now)) : wanted
}

export function refreshReceivedAge(): void {
  set(LAST_RECEIVED_AGE, everReceived ? (elapsed() - lastReceivedAt) / TICKS_PER_MS : u64.MAX_VALUE)
}

/** The host sends from another local port: the peer is pinged at once. */
export function onPathMoved(now: Ticks): void {
  schedulePing(now)
}

/** After a suspension: PING, and LISTEN or CONNECT, are due. */
export function wakePeer(now: Ticks): void {
  schedulePing(now)
  scheduleHello(now)
}
