/**
 * Measures the largest datagram that passes in each direction, using only behaviour that every peer implements:
 *
 * Outbound: a PING followed by padding; a PONG confirms its arrival (protocol.md 7.1: bytes after a message are
 * ignored, MUST 10).
 *
 * Inbound: a session of KEEPALIVEs without a DIAL (`echo_open`, docs/abi.md). The accepting side echoes each KEEPALIVE in
 * its own stream, even before a DIAL (6.1), in datagrams of its maximum size. No connection to the target is made; a
 * RESET ends the session.
 */
import { AbortReason, EventType } from '../../engine/core.ts'
import type { SocketAddress } from '../../net/address.ts'
import type { Pinger } from './pings.ts'
import type { Probe } from './probe.ts'

/** Interval between two datagrams of one round, ms. */
const SPACING_MS = 5
/** Step of the coarse search, bytes. */
const COARSE_BYTES = 32
/** Smallest size tested, bytes. */
export const SIZE_MIN_BYTES = 256
/** What a segment adds to its data, bytes (protocol.md 5.1), and the unit of an echo. */
const HEADER_BYTES = 24
const TLV_BYTES = 4
/** The shortest echo that can be asked for, bytes. */
const ECHO_MIN_BYTES = 2 * TLV_BYTES
/** Size of an echo that does not fit in one datagram, bytes. */
const MORE_THAN_FULL_BYTES = 1600
/** Round trip loss rate above which a single failure is not significant. */
const LOSSY = 0.05
/** Attempts of an echo of one size: a busy peer may cut it, and datagrams may be lost. */
const ECHO_ATTEMPTS = 2
/** Wait for the end of a session of which our direction ended, beside the round trip, ms. */
const FAREWELL_MS = 500
/** Maximum number of attempts for one size. */
const ATTEMPTS_MAX = 20
/** Accepted probability that random loss makes a size count as lost. */
const ERROR_SHARE = 1e-3

/** Result for one direction. */
export interface Passage {
  /** Longest datagram that arrived, bytes of UDP payload; 0: none of those tried. */
  readonly passed: number
  /** Shortest datagram that did not arrive, bytes; undefined: all arrived. */
  readonly lost: number | undefined
}

/** Properties of the path, from which timeouts and attempts are derived. */
export interface Path {
  readonly peer: SocketAddress
  /** A slow round trip time, ms. */
  readonly rttMs: number
  /** Upper bound of the round trip loss rate. */
  readonly loss: number
}

/** Number of attempts after which a loss is unlikely to be random. */
function attempts(loss: number): number {
  return Math.min(Math.max(Math.ceil(Math.log(ERROR_SHARE) / Math.log(Math.max(loss, 0.05))), 3), ATTEMPTS_MAX)
}

const patience = ({ rttMs }: Path): number => 2 * rttMs + 150

/** Pings with each of these sizes, in rounds, until the longest is answered. @returns the sizes answered */
async function round(probe: Probe, pinger: Pinger, path: Path, sizes: readonly number[]): Promise<Set<number>> {
  const arrived = new Set<number>()
  const numbers = new Map<number, number>()
  const look = (): void => {
    for (const [number, size] of numbers) if (pinger.answers.has(number)) arrived.add(size)
  }
  const top = Math.max(...sizes)
  for (let attempt = 0; attempt < attempts(path.loss) && !arrived.has(top); attempt++) {
    const best = Math.max(0, ...arrived)
    for (const size of sizes) {
      if (size <= best) continue
      numbers.set(pinger.send(path.peer, size), size)
      await new Promise((resolve) => setTimeout(resolve, SPACING_MS))
    }
    const isOver = (): boolean => {
      look()
      return arrived.has(top)
    }
    await probe.until(isOver, attempt === 0 ? patience(path) : path.rttMs + 50)
  }
  await probe.until(() => {
    look()
    return arrived.has(top)
  }, patience(path))
  return arrived
}

/** All sizes from `from` to `to` (exclusive) in steps. */
function ladder(from: number, to: number, step: number): number[] {
  return Array.from({ length: Math.max(Math.ceil((to - from) / step), 0) }, (_, i) => from + i * step)
}

/**
 * Determines the longest PING that arrives.
 * @param full size that must pass, bytes of UDP payload
 * @param most the longest size of interest
 */
export async function passageThere(
  probe: Probe,
  pinger: Pinger,
  path: Path,
  full: number,
  most: number,
): Promise<Passage> {
  const ends = await round(probe, pinger, path, [full, most])
  if (ends.has(most)) return { passed: most, lost: undefined }
  if (ends.has(full)) return { passed: full, lost: most }
  const coarse = await round(probe, pinger, path, ladder(SIZE_MIN_BYTES, full, COARSE_BYTES))
  const low = Math.max(0, ...coarse)
  const high = low === 0 ? SIZE_MIN_BYTES : Math.min(low + COARSE_BYTES, full)
  if (low === 0) return { passed: 0, lost: high }
  const fine = await round(probe, pinger, path, [low, ...ladder(low + 1, high, 1)])
  const passed = Math.max(low, ...fine)
  return { passed, lost: passed + 1 }
}

/** Result of a session of KEEPALIVEs. */
export interface Echo {
  /** Bytes of the longest datagram with a part of the echo. */
  readonly longest: number
  /** The whole echo arrived. */
  readonly whole: boolean
  /** The peer acknowledged at least one segment. */
  readonly acknowledged: boolean
  /** The peer refused the session: it is not a server. */
  readonly refused: boolean
}

/** What the peer said about a connection to its target. */
export type DialAnswer = 'eof' | 'data' | 'nothing' | 'refused'

/** Sessions with the peer of one probe. */
export class Sessions {
  readonly #probe: Probe
  readonly #path: Path

  constructor(probe: Probe, path: Path) {
    this.#probe = probe
    this.#path = path
    probe.setPeer(path.peer)
  }

  /** Whether random loss is a likely reason for a missing datagram. */
  get isLossy(): boolean {
    return this.#path.loss > LOSSY
  }

  /**
   * Requests an echo of `bytes`, a multiple of 4, and waits for the whole of it.
   * @param enough length of a datagram that ends the wait
   */
  async echo(bytes: number, enough = Number.POSITIVE_INFINITY): Promise<Echo> {
    const probe = this.#probe
    let longest = 0
    let arrived = 0
    let acknowledged = false
    let refused = false
    let isOver = false
    const handle = probe.openSession(bytes, (type, arg, arg2) => {
      if (type === EventType.OPENED) acknowledged = true
      else if (type === EventType.ECHO) [longest, arrived] = [arg, arg2]
      else if (type === EventType.ABORT) {
        isOver = true
        // a RESET after the first answer only ends the session
        refused = arg === AbortReason.RESET && !acknowledged
      }
    })
    if (handle > 0) {
      const waitMs = attempts(this.#path.loss) * 300 + 2 * patience(this.#path)
      await probe.until(() => isOver || arrived >= bytes || longest >= enough, waitMs)
      probe.reset(handle)
    }
    return { longest, whole: arrived >= bytes, acknowledged, refused }
  }

  /** Makes the server dial its target and waits for the result. Success is not reported (protocol.md 6.3). */
  async dial(waitMs: number): Promise<DialAnswer> {
    const probe = this.#probe
    let answer: DialAnswer | undefined
    let acknowledged = false
    let isOver = false
    const handle = probe.openSession(0, (type, arg) => {
      if (type === EventType.OPENED) acknowledged = true
      else if (type === EventType.READABLE) {
        answer ??= 'data'
        probe.discard(handle)
      } else if (type === EventType.EOF) answer ??= 'eof'
      else if (type === EventType.DETACH) isOver = true
      else if (type === EventType.ABORT) {
        isOver = true
        if (arg === AbortReason.RESET && !acknowledged) answer = 'refused'
      }
    })
    if (handle > 0) {
      await probe.until(() => isOver || answer !== undefined, waitMs)
      // an end that the server takes for one of a connection that succeeded
      probe.shutdown(handle)
      await probe.until(() => isOver, FAREWELL_MS + 2 * this.#path.rttMs)
      probe.reset(handle)
    }
    return answer ?? 'nothing'
  }
}

/** Result for the inbound direction. */
export interface Return {
  /** undefined: the peer did not take part in the conversation. */
  readonly passage: Passage | undefined
  /** The peer is not a server. */
  readonly refused: boolean
  /** The longest datagrams that the peer sends arrived. */
  readonly full: boolean
}

/**
 * Determines the longest datagram that arrives from the peer.
 * @param most the longest size of interest, bytes of UDP payload
 */
export async function passageBack(sessions: Sessions, overhead: number, most: number): Promise<Return> {
  let whole = await sessions.echo(MORE_THAN_FULL_BYTES)
  // retry if random loss is likely
  if (!whole.whole && !whole.refused && sessions.isLossy) whole = await sessions.echo(MORE_THAN_FULL_BYTES)
  if (whole.refused) return { passage: undefined, refused: true, full: false }
  if (whole.whole) return { passage: { passed: whole.longest, lost: undefined }, refused: false, full: true }
  const asked = (size: number): number =>
    Math.max(Math.floor((size - overhead - HEADER_BYTES) / TLV_BYTES) * TLV_BYTES, ECHO_MIN_BYTES)
  const sizeOf = (size: number): number => asked(size) + HEADER_BYTES + overhead
  let isReached = false
  const passes = async (size: number): Promise<boolean> => {
    for (let attempt = 0; attempt < ECHO_ATTEMPTS; attempt++) {
      const { longest, acknowledged } = await sessions.echo(asked(size), sizeOf(size))
      isReached ||= acknowledged
      // an echo that was cut is not evidence
      if (longest >= sizeOf(size)) return true
      if (longest === 0 && !sessions.isLossy) return false
    }
    return false
  }
  const search = async (sizes: readonly number[]) => {
    const results = await Promise.all(sizes.map(passes))
    const passed = Math.max(0, ...sizes.filter((_, i) => results[i] === true).map(sizeOf))
    const lost = Math.min(...sizes.map(sizeOf).filter((size, i) => results[i] === false && size > passed), most)
    return { passed, lost }
  }
  const coarse = await search(ladder(SIZE_MIN_BYTES, most, 2 * COARSE_BYTES))
  if (!isReached && !whole.acknowledged) return { passage: undefined, refused: false, full: false }
  if (coarse.passed === 0) return { passage: { passed: 0, lost: coarse.lost }, refused: false, full: false }
  const fine = await search(ladder(coarse.passed + TLV_BYTES, coarse.lost, TLV_BYTES))
  const passed = Math.max(coarse.passed, fine.passed)
  return { passage: { passed, lost: Math.max(fine.lost, passed + 1) }, refused: false, full: false }
}
