/**
 * The obfuscator's contexts in /stats and /stats.json (protocol.md 11.2). readContexts calls the engine, the rest is
 * pure.
 */

import { type Core, ObfsInfo, ObfsState } from '../../engine/core.ts'
import { formatBytes } from '../../format.ts'
import { formatAddress, readRecord, type SocketAddress } from '../../net/address.ts'

/** Table slots read in one step; the event loop runs between two steps. */
const SLOTS_PER_STEP = 256

/** State characters by state number. */
const STATE_CHARS = ['?', '>', '?', '-'] as const
/** State names in /stats.json. */
const STATE_NAMES = ['unknown', 'new', 'captured', 'authenticated'] as const

/** Snapshot of one context. */
export interface ContextStats {
  /** The tunnel that it belongs to, if there are several. */
  readonly tunnel?: string
  readonly remote: SocketAddress
  /** See ObfsState. */
  readonly state: number
  /** Seconds since its creation. */
  readonly age: number
  /** Seconds since the last payload. */
  readonly idle: number
  /** Bytes, including IP headers. */
  readonly bytesIn: number
  readonly bytesOut: number
  /** Packets received with a congestion mark (CE), and with its echo (ECE). */
  readonly congested: number
  readonly echoes: number
}

/** Contexts in batches. */
export type ContextSteps = Iterable<readonly ContextStats[]>

/** Reads all contexts of the engine. */
export function* readContexts(core: Core): Generator<readonly ContextStats[], void, undefined> {
  const { calls } = core
  for (let slot = 0; slot < calls.obfs_context_slots(); ) {
    const found: ContextStats[] = []
    const end = Math.min(slot + SLOTS_PER_STEP, calls.obfs_context_slots())
    for (; slot < end; slot++) {
      const context = readContext(core, slot)
      if (context !== undefined) found.push(context)
    }
    yield found
  }
}

function readContext(core: Core, slot: number): ContextStats | undefined {
  if (core.calls.obfs_context_info(slot) === 0) return undefined
  core.refresh()
  const info = new DataView(core.u8.buffer, core.calls.obfs_info_ptr() >>> 0, ObfsInfo.BYTES)
  const remote = readRecord(core.u8, info.byteOffset + ObfsInfo.address)
  if (remote === undefined) return undefined
  const u32 = (offset: number): number => info.getUint32(offset, true)
  return {
    remote,
    state: u32(ObfsInfo.state),
    age: u32(ObfsInfo.age),
    idle: u32(ObfsInfo.idle),
    bytesIn: Number(info.getBigUint64(ObfsInfo.bytesIn, true)),
    bytesOut: Number(info.getBigUint64(ObfsInfo.bytesOut, true)),
    congested: u32(ObfsInfo.congested),
    echoes: u32(ObfsInfo.echoes),
  }
}

/** Packets captured but dropped. `rate`: those since the last POST, `seconds` ago; undefined for GET. */
export interface Drops {
  readonly bytes: number
  readonly rate?: { readonly seconds: number; readonly packets: number; readonly bytes: number }
}

/** Renders the context section of /stats, preceded by an empty line, in parts. */
export function* renderContexts(steps: ContextSteps, drops: Drops): Generator<string, void, undefined> {
  let authenticated = 0
  let others = 0
  yield '\n'
  for (const step of steps) {
    let lines = ''
    for (const { remote, state, idle, bytesIn, bytesOut, congested, echoes } of step) {
      if (state === ObfsState.AUTHENTICATED) authenticated++
      else others++
      lines +=
        `[${formatAddress(remote)}] ${STATE_CHARS[state] ?? STATE_CHARS[0]} seen=${idle}s ` +
        `rx/tx=${formatBytes(bytesIn)}/${formatBytes(bytesOut)} ecn/ece=${congested}/${echoes}\n`
    }
    yield lines
  }
  yield `  = ${authenticated}(+${others}) contexts; drop ${dropText(drops)}\n`
}

function dropText({ bytes, rate }: Drops): string {
  const total = formatBytes(bytes)
  if (rate === undefined) return total
  if (rate.seconds <= 0) return `(unknown), ${total}`
  return `${(rate.packets / rate.seconds).toFixed(1)}/s (${formatBytes(rate.bytes / rate.seconds)}/s), ${total}`
}

/** One context in /stats.json. */
export function contextJson(context: ContextStats): object {
  return {
    tunnel: context.tunnel,
    peer: formatAddress(context.remote),
    state: STATE_NAMES[context.state] ?? STATE_NAMES[0],
    age_seconds: context.age,
    idle_seconds: context.idle,
    received_bytes: context.bytesIn,
    sent_bytes: context.bytesOut,
    congestion_marks: context.congested,
    congestion_echoes: context.echoes,
  }
}
