/**
 * Measures the largest datagram that passes in each direction, using only behaviour that every peer implements:
 *
 * Outbound: a PING followed by padding; a PONG confirms its arrival (protocol.md 7.1: bytes after a message are
 * ignored, MUST 10).
 *
 * Inbound: a conversation of KEEPALIVEs without a DIAL. The accepting side echoes each KEEPALIVE in its own stream,
 * even before a DIAL (6.1), in datagrams of its maximum size. The first segment is withheld until the others are
 * acknowledged, so that all KEEPALIVEs are echoed at once. No connection to the target is made; a RESET ends the
 * conversation.
 */
import type { SocketAddress } from '../../net/address.ts'
import type { Pinger } from './pings.ts'
import type { Arrival, Probe } from './probe.ts'
import {
  ackSegment,
  control,
  dial as dialMessage,
  firstMessage,
  HEADER_BYTES,
  keepalives,
  pushSegment,
  RESET,
  TLV_BYTES,
} from './wire.ts'

/** Interval between two datagrams of one round, ms. */
const SPACING_MS = 5
/** Step of the coarse search, bytes. */
const COARSE_BYTES = 32
/** Smallest size tested, bytes. */
export const SIZE_MIN_BYTES = 256
/** Payload of one of our segments: small enough for any path, bytes. */
const CHUNK_BYTES = 200
/** Size of an echo that does not fit in one datagram, bytes. */
const MORE_THAN_FULL_BYTES = 1600
/** Minimum retransmission interval of our segments, ms; otherwise twice the round trip time. */
const RESEND_MS = 200
/** Round trip loss rate above which a single failure is not significant. */
const LOSSY = 0.05
/** Number of RESETs at the end of a conversation, since some may be lost. */
const FAREWELLS = 3
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

/** Result of a conversation of KEEPALIVEs. */
export interface Echo {
  /** Bytes requested. */
  readonly asked: number
  /** Longest datagram with a part of the echo, bytes. */
  readonly longest: number
  /** The first segment of the echo, which is the longest, arrived. */
  readonly first: boolean
  /** The whole echo arrived. */
  readonly whole: boolean
  /** The peer acknowledged at least one segment. */
  readonly acknowledged: boolean
  /** The peer refused the conversation: it is not a server. */
  readonly refused: boolean
}

/** The active conversations on one probe. */
export class Conversations {
  readonly #probe: Probe
  readonly #path: Path
  readonly #receivers = new Map<number, (arrival: Arrival) => void>()
  #conv = (Math.random() * 2 ** 32) >>> 0

  constructor(probe: Probe, path: Path) {
    this.#probe = probe
    this.#path = path
  }

  /** Whether random loss is a likely reason for a missing datagram. */
  get isLossy(): boolean {
    return this.#path.loss > LOSSY
  }

  /** Dispatches a message to its conversation. */
  take(arrival: Arrival): void {
    const { message } = arrival
    if (message.kind === 'segments' || message.kind === 'reset') this.#receivers.get(message.conv)?.(arrival)
  }

  /**
   * Requests an echo of `bytes`, a multiple of 4. Waits for its first segment, or for the whole echo if it does not fit
   * in one datagram.
   */
  async echo(bytes: number): Promise<Echo> {
    const chunks: Uint8Array[] = []
    for (let at = 0; at < bytes; at += CHUNK_BYTES) chunks.push(keepalives(Math.min(CHUNK_BYTES, bytes - at)))
    const later = chunks.map((_, sn) => sn).slice(1)
    let longest = 0
    let first = false
    const echoed = new Map<number, number>()
    const isWhole = (): boolean => [...echoed.values()].reduce((sum, length) => sum + length, 0) >= bytes
    const { acknowledged, refused } = await this.#converse(chunks, [later, [0]], (arrival) => {
      if (arrival.message.kind !== 'segments') return false
      for (const segment of arrival.message.segments) {
        if (!segment.push) continue
        longest = Math.max(longest, arrival.bytes)
        // a server may first send a KEEPALIVE of its own to confirm that we are alive
        const isQuestion = segment.sn === 0 && segment.data.length === TLV_BYTES && bytes > TLV_BYTES
        if (isQuestion) continue
        echoed.set(segment.sn, segment.data.length)
        if (segment.sn <= 1) first = true
      }
      // a busy peer may split its echo anywhere: a short segment is not evidence of its maximum size
      return first && (bytes < MORE_THAN_FULL_BYTES || isWhole())
    })
    return { asked: bytes, longest, first, whole: isWhole(), acknowledged, refused }
  }

  /** Makes the server dial its target and waits for the result. Success is not reported (protocol.md 6.3). */
  async dial(waitMs: number): Promise<'eof' | 'data' | 'nothing' | 'refused'> {
    let answered: 'eof' | 'data' | undefined
    const { refused } = await this.#converse(
      [dialMessage()],
      [[0]],
      (arrival) => {
        if (arrival.message.kind !== 'segments') return false
        for (const segment of arrival.message.segments) {
          if (segment.push && segment.sn <= 1) answered ??= firstMessage(segment.data)
        }
        return answered !== undefined
      },
      waitMs,
    )
    return refused ? 'refused' : (answered ?? 'nothing')
  }

  /**
   * Sends segments in rows, each row after the previous one is acknowledged, until `take` returns true or the time is
   * over.
   */
  async #converse(
    chunks: readonly Uint8Array[],
    rows: readonly (readonly number[])[],
    take: (arrival: Arrival) => boolean,
    waitMs = attempts(this.#path.loss) * 300 + 2 * patience(this.#path),
  ): Promise<{ acknowledged: boolean; refused: boolean }> {
    const probe = this.#probe
    const { peer, rttMs } = this.#path
    this.#conv = (this.#conv + 1) >>> 0 || 1
    const conv = this.#conv
    const acked = new Set<number>()
    const arrived = new Set<number>()
    let una = 0
    let done = false
    let refused = false
    this.#receivers.set(conv, (arrival) => {
      if (arrival.message.kind === 'reset') {
        // a RESET after the first ACK only ends the conversation
        refused ||= acked.size === 0
        done = true
        return
      }
      if (arrival.message.kind === 'segments') {
        for (const { ack, push, sn, ts } of arrival.message.segments) {
          if (ack) acked.add(sn)
          if (!push) continue
          arrived.add(sn)
          while (arrived.has(una)) una++
          probe.send(ackSegment(conv, sn, ts, una), peer)
        }
      }
      if (take(arrival)) done = true
    })
    const over = probe.now() + waitMs
    for (const row of rows) {
      const isAcked = (): boolean => done || row.every((sn) => acked.has(sn))
      while (!isAcked() && probe.now() < over) {
        for (const sn of row) {
          const data = chunks[sn]
          if (data !== undefined && !acked.has(sn)) probe.send(pushSegment(conv, sn, 0, data), peer)
        }
        await probe.until(isAcked, Math.min(Math.max(RESEND_MS, 2 * rttMs), over - probe.now()))
      }
    }
    await probe.until(() => done, over - probe.now())
    this.#receivers.delete(conv)
    for (let i = 0; i < FAREWELLS; i++) probe.send(control(RESET, conv), peer)
    return { acknowledged: acked.size > 0, refused }
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
export async function passageBack(conversations: Conversations, overhead: number, most: number): Promise<Return> {
  let whole = await conversations.echo(MORE_THAN_FULL_BYTES)
  // retry if random loss is likely
  if (!whole.whole && !whole.refused && conversations.isLossy) whole = await conversations.echo(MORE_THAN_FULL_BYTES)
  if (whole.refused) return { passage: undefined, refused: true, full: false }
  if (whole.whole) return { passage: { passed: whole.longest, lost: undefined }, refused: false, full: true }
  const asked = (size: number): number =>
    Math.max(Math.floor((size - overhead - HEADER_BYTES) / TLV_BYTES) * TLV_BYTES, TLV_BYTES)
  const sizeOf = (bytes: number): number => bytes + HEADER_BYTES + overhead
  const search = async (sizes: readonly number[]) => {
    const echoes = await Promise.all(sizes.map((size) => conversations.echo(asked(size))))
    const arrived = echoes.filter(({ first }) => first)
    const passed = Math.max(0, ...arrived.map(({ longest }) => longest))
    const best = Math.max(0, ...arrived.map((echo) => sizeOf(echo.asked)))
    const lost = Math.min(
      ...echoes.filter((echo) => !echo.first && sizeOf(echo.asked) > best).map((echo) => sizeOf(echo.asked)),
      most,
    )
    return { passed, best, lost, reached: echoes.some((echo) => echo.acknowledged) }
  }
  const coarse = await search(ladder(SIZE_MIN_BYTES, most, 2 * COARSE_BYTES))
  if (!coarse.reached && !whole.acknowledged) return { passage: undefined, refused: false, full: false }
  if (coarse.best === 0) return { passage: { passed: 0, lost: coarse.lost }, refused: false, full: false }
  const fine = await search(ladder(coarse.best + TLV_BYTES, coarse.lost, TLV_BYTES))
  const passed = Math.max(coarse.passed, fine.passed)
  return { passage: { passed, lost: Math.max(fine.lost, passed + 1) }, refused: false, full: false }
}
