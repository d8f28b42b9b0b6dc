/**
 * Which datagrams pass, each way, by what every peer does anyway:
 *
 * there: a PING with padding behind it; its PONG says that it arrived (protocol.md 7.1: what follows a message is
 * ignored, MUST 10).
 *
 * back: a conversation without DIAL that carries KEEPALIVEs. The accepting side echoes each of them in its own stream,
 * before any DIAL too (6.1), and sends as many bytes as we asked for in datagrams as large as it makes them. Its first
 * segment is held back until the others are acknowledged, so that all of them are echoed at once. No connection to the
 * target is made; RESET ends it.
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

/** Between two datagrams of one row, ms. */
const SPACING_MS = 5
/** Steps of the first search, bytes. */
const COARSE_BYTES = 32
/** Smallest size looked for, bytes. */
export const SIZE_MIN_BYTES = 256
/** Payload of one of our own segments: small enough for every path, bytes. */
const CHUNK_BYTES = 200
/** Echo that is more than the longest datagram holds, bytes. */
const MORE_THAN_FULL_BYTES = 1600
/** Our segments are sent again after this time, ms, or twice the round trip. */
const RESEND_MS = 200
/** Share of lost round trips above which one failure says little. */
const LOSSY = 0.05
/** RESETs at the end of a conversation: some may be lost. */
const FAREWELLS = 3
/** Most attempts for one size. */
const ATTEMPTS_MAX = 20
/** Chance that a size is called lost though it only met bad luck. */
const ERROR_SHARE = 1e-3

/** What one direction lets through. */
export interface Passage {
  /** Longest datagram that arrived, bytes of UDP payload; 0: none of those tried. */
  readonly passed: number
  /** Shortest that did not, bytes; undefined: all arrived. */
  readonly lost: number | undefined
}

/** How a path behaves: for patience. */
export interface Path {
  readonly peer: SocketAddress
  /** A slow round trip, ms. */
  readonly rttMs: number
  /** Share of lost round trips, at the worst that the measurement allows for. */
  readonly loss: number
}

/** Attempts after which a size is lost by more than chance. */
function attempts(loss: number): number {
  return Math.min(Math.max(Math.ceil(Math.log(ERROR_SHARE) / Math.log(Math.max(loss, 0.05))), 3), ATTEMPTS_MAX)
}

const patience = ({ rttMs }: Path): number => 2 * rttMs + 150

/** Which of these sizes arrive, one round after the other until the longest does. @returns sizes answered */
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

/** All sizes from `from` to `to` in steps. */
function ladder(from: number, to: number, step: number): number[] {
  return Array.from({ length: Math.max(Math.ceil((to - from) / step), 0) }, (_, i) => from + i * step)
}

/**
 * The longest PING that arrives.
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

/** How a conversation of KEEPALIVEs went. */
export interface Echo {
  /** Bytes asked for. */
  readonly asked: number
  /** Longest datagram with a part of the echo, bytes. */
  readonly longest: number
  /** The first segment of the echo arrived: the longest one. */
  readonly first: boolean
  /** All that was asked for came back. */
  readonly whole: boolean
  /** The peer acknowledged something. */
  readonly acknowledged: boolean
  /** The peer wants no conversation: it is no server. */
  readonly refused: boolean
}

/** Conversations that are under way on one probe. */
export class Conversations {
  readonly #probe: Probe
  readonly #path: Path
  readonly #receivers = new Map<number, (arrival: Arrival) => void>()
  #conv = (Math.random() * 2 ** 32) >>> 0

  constructor(probe: Probe, path: Path) {
    this.#probe = probe
    this.#path = path
  }

  /** Whether a datagram may be missing for no other reason than that. */
  get isLossy(): boolean {
    return this.#path.loss > LOSSY
  }

  /** Takes what belongs to a conversation. */
  take(arrival: Arrival): void {
    const { message } = arrival
    if (message.kind === 'segments' || message.kind === 'reset') this.#receivers.get(message.conv)?.(arrival)
  }

  /** Asks for `bytes` of echo, a multiple of 4, and waits for its first segment, or for all if it is more than one. */
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
        // a server may ask first whether we are alive, by one KEEPALIVE of its own
        const isQuestion = segment.sn === 0 && segment.data.length === TLV_BYTES && bytes > TLV_BYTES
        if (isQuestion) continue
        echoed.set(segment.sn, segment.data.length)
        if (segment.sn <= 1) first = true
      }
      // a busy peer may cut its echo anywhere: one short segment does not say that it makes no longer ones
      return first && (bytes < MORE_THAN_FULL_BYTES || isWhole())
    })
    return { asked: bytes, longest, first, whole: isWhole(), acknowledged, refused }
  }

  /**
   * Has the server dial its target, and waits for what it says to that. There is no message for success (protocol.md
   * 6.3).
   */
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
   * Sends segments in rows, the next row when one is acknowledged, until `take` says that it is done or time is over.
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
        // a server that gives up on a conversation it took part in says so in the same way
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

/** What comes back. `refused`: the peer is no server; undefined `passage`: it did not take part. */
export interface Return {
  readonly passage: Passage | undefined
  readonly refused: boolean
  /** The datagrams that arrived are the longest that the peer makes. */
  readonly full: boolean
}

/**
 * The longest datagram that comes back.
 * @param most the longest size of interest, bytes of UDP payload
 */
export async function passageBack(conversations: Conversations, overhead: number, most: number): Promise<Return> {
  let whole = await conversations.echo(MORE_THAN_FULL_BYTES)
  // once more where bad luck is likely
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
