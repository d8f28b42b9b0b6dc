/*
 * Runs: consecutive datagrams to one peer that the host may pass to the kernel as one message (UDP_SEGMENT). A firewall
 * that matches by length, a driver or a tunnel may drop such a message although it passes single datagrams, and nothing
 * reports it.
 *
 * So what is sent after a probe timeout, or for the third time, is sent alone. When that is delivered several times and
 * no datagram that was joined to another arrives meanwhile, runs to this peer are given up for some time. Only segments
 * are joined: the loss of anything else would not be noticed.
 */

import { ADDRESS_BYTES, EVENT_RUNS_LOST, TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { elapsed } from '../clock'
import { LONE_PASSED, RUN_PASSED } from '../kcp/input'
import { JOINED, LONE, RUN, TRANSMISSIONS } from '../kcp/send_buffer'
import { copyAddress, sameAddress } from '../packet/address'
import { queueEndpointEvent } from '../session/events'
import { addressOf, Session } from '../session/session'
import { ElapsedTicks, Ticks } from '../units'

/** The kernel's limits of a message: UDP_MAX_SEGMENTS, and the length of an IP packet without the longest headers. */
const MAX_RUN: u32 = 64
const MAX_RUN_BYTES: u32 = 65000
/** Datagrams of one flush of the host are built within this time. */
const MAX_PAUSE_TICKS: Ticks = TICKS_PER_MS / 2
/** A segment is sent alone from this transmission on. */
const LONE_TRANSMISSION: u32 = 3
/**
 * Runs are given up after so many deliveries of lone segments, with so many joined datagrams lost in between. One lost
 * ACK datagram hides many deliveries: with 30 % loss in both directions, in bursts of 8, three such rounds came about by
 * chance 65 times in 120 transfers of 1.2 MB each way, six once.
 */
const MIN_ROUNDS: u32 = 6
const MIN_LOST: u32 = 24
/** Then they are tried again: the network may have changed. */
const LONE_TICKS: ElapsedTicks = 3600 * TICKS_PER_SECOND

/** What is known about a peer that runs may not reach. */
@unmanaged
class Suspect {
  // address record; family 0 = this entry is free
  address0: u64
  address1: u64
  address2: u64
  rounds: u32
  lost: u32
  // when runs were given up; 0 = they are not
  givenUpAt: ElapsedTicks
}

/** Maximum number of such peers; the oldest is replaced. */
const MAX_SUSPECTS: u32 = 32
const SUSPECT_BYTES: u32 = 40
const suspects: usize = memory.data(32 * 40, 8)
let suspectCount: u32 = 0
let nextSuspect: u32 = 0

/** The run that the next datagram may join: its receiver, size of its first datagram (0: none), bytes, datagrams. */
const receiver: usize = memory.data(ADDRESS_BYTES, 8)
let firstBytes: u32 = 0
let runBytes: u32 = 0
let runLength: u32 = 0
let runAt: Ticks = 0

function suspectAt(i: u32): Suspect {
  return changetype<Suspect>(suspects + <usize>(i * SUSPECT_BYTES))
}

function findSuspect(address: usize): Suspect | null {
  for (let i: u32 = 0; i < suspectCount; i++) {
    if (sameAddress(changetype<usize>(suspectAt(i)), address)) return suspectAt(i)
  }
  return null
}

/** @returns true while runs to this address are given up */
function isGivenUp(address: usize): bool {
  if (suspectCount == 0) return false
  const suspect = findSuspect(address)
  if (!suspect || suspect.givenUpAt == 0) return false
  if (elapsed() - suspect.givenUpAt < LONE_TICKS) return true
  forget(suspect)
  return false
}

function forget(suspect: Suspect): void {
  memory.copy(changetype<usize>(suspect), changetype<usize>(suspectAt(--suspectCount)), SUSPECT_BYTES)
}

/** The next datagram joins none. */
export function endRun(): void {
  firstBytes = 0
}

/**
 * A datagram of a session was built.
 * @param entry its last segment; 0 if it has none, or copies one
 * @param bytes on the socket
 * @returns true if the host may join it to the one before
 */
export function joinRun(s: Session, entry: usize, bytes: u32, now: Ticks): bool {
  if (!entry) {
    endRun()
    return false
  }
  const address = addressOf(s)
  if (s.ptoCount != 0 || load<u8>(entry, TRANSMISSIONS) >= LONE_TRANSMISSION || isGivenUp(address)) {
    store<u8>(entry, LONE, RUN)
    s.joinedBefore = <u8>min<u32>(<u32>s.joinedBefore + s.joined, u8.MAX_VALUE)
    s.joined = 0
    endRun()
    return false
  }
  const isOpen = firstBytes != 0 && now - runAt <= MAX_PAUSE_TICKS && sameAddress(receiver, address)
  const fits = bytes <= firstBytes && runLength < MAX_RUN && runBytes + bytes <= MAX_RUN_BYTES
  runAt = now
  if (!isOpen || !fits) {
    copyAddress(receiver, address)
    firstBytes = runBytes = bytes
    runLength = 1
    return false
  }
  store<u8>(entry, JOINED, RUN)
  if (s.joined != u8.MAX_VALUE) s.joined++
  runBytes += bytes
  runLength++
  // only the last one may be shorter
  if (bytes < firstBytes) endRun()
  return true
}

/** ACKs of a datagram showed that a joined or a lone segment was delivered. */
export function onRunEffects(s: Session, effects: u32): void {
  const address = addressOf(s)
  if (effects & RUN_PASSED) {
    s.joined = s.joinedBefore = 0
    const suspect = suspectCount ? findSuspect(address) : null
    if (suspect) forget(suspect)
    return
  }
  // with loss in both directions the ACK of a joined one may be lost too: its una counts
  if (!(effects & LONE_PASSED) || s.joinedBefore == 0) return
  let suspect = findSuspect(address)
  if (!suspect) suspect = addSuspect(address)
  suspect.rounds++
  suspect.lost += s.joinedBefore
  s.joinedBefore = 0
  if (suspect.givenUpAt != 0 || suspect.rounds < MIN_ROUNDS || suspect.lost < MIN_LOST) return
  suspect.givenUpAt = max<u64>(1, elapsed())
  queueEndpointEvent(EVENT_RUNS_LOST, s.handle)
}

function addSuspect(address: usize): Suspect {
  if (suspectCount < MAX_SUSPECTS) nextSuspect = suspectCount++
  else nextSuspect = (nextSuspect + 1) % MAX_SUSPECTS
  const suspect = suspectAt(nextSuspect)
  memory.fill(changetype<usize>(suspect), 0, SUSPECT_BYTES)
  copyAddress(changetype<usize>(suspect), address)
  return suspect
}
