/**
 * What this machine lends to a tunnel: UDP buffers, files, a clock, capabilities. Linux tells them in /proc; elsewhere
 * what cannot be known is left out.
 */

import type { Config } from '../../config/config.ts'
import type { OperatingSystem, SocketOptions } from '../../runtime.ts'
import type { Report } from './report.ts'

/** Descriptors of a process beside those of connections: sockets, files, the runtime's own. */
const OWN_FILES = 32
/** As many descriptors are enough for anybody, fewer than the lower number are a warning. */
const FILES_PLENTY = 4096
const FILES_LOW = 256
/** Bit of CAP_NET_RAW in the mask of capabilities (capabilities(7)). */
const CAP_NET_RAW = 13
/** A clock that is earlier was never set. */
const CLOCK_FIRST = Date.UTC(2026, 0, 1)
/** A wall clock that moved so much against the monotonic one was set meanwhile, ms. */
const CLOCK_STEP_MS = 250

function readText(os: OperatingSystem | undefined, path: string): string | undefined {
  try {
    return os?.readText(path)
  } catch {
    return undefined
  }
}

/** Collects what a socket's options were refused for, for `reportBuffers`. */
export class Refusals {
  readonly texts: { readonly option: string; readonly why: string }[] = []

  /** The same options, with its refusals kept here and not logged. */
  of(socketOptions: SocketOptions | undefined): SocketOptions | undefined {
    if (socketOptions === undefined) return undefined
    const refused = (option: string, why: string): void => {
      if (!this.texts.some((text) => text.option === option)) this.texts.push({ option, why })
    }
    const { reuseport, sndbuf, rcvbuf, netdev } = socketOptions
    return { reuseport, sndbuf, rcvbuf, netdev, refused }
  }
}

/** The buffers that a socket of this configuration got. */
export function reportBuffers(
  report: Report,
  os: OperatingSystem | undefined,
  config: Config,
  refusals: Refusals,
): void {
  const limit = (name: string): number | null => {
    const text = readText(os, `/proc/sys/net/core/${name}`)
    return text === undefined ? null : Number(text)
  }
  const values = { rmem_max_bytes: limit('rmem_max'), wmem_max_bytes: limit('wmem_max') }
  const { texts } = refusals
  if (texts.length === 0) {
    report.add('buffers', 'ok', 'the UDP socket got what it asks for', { values })
    return
  }
  const asked = texts.some(({ option }) => option !== 'rcvbuf' || config.udp.rcvbuf > 0)
  const text = texts.map(({ option, why }) => `${option}: ${why.replace(/; raise it: .*$/, '')}`).join('; ')
  const remedies = texts.flatMap(({ why }) => /sysctl -w \S+/.exec(why) ?? [])
  const lossy = ' Bursts that do not fit in it are lost, which looks like loss on the path.'
  report.add('buffers', asked ? 'warning' : 'note', `${text}.${lossy}`, {
    remedies: remedies.map((command) => `as root: ${command} (and in /etc/sysctl.d to keep it)`),
    values,
  })
}

/** How many files the process may open: each connection is one. */
export function reportFiles(report: Report, os: OperatingSystem | undefined, config: Config): void {
  const text = readText(os, '/proc/self/limits')
  const [, soft = '', hard = ''] = /^Max open files\s+(\S+)\s+(\S+)/m.exec(text ?? '') ?? []
  if (soft === '') return
  const limit = soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
  const values = { files_limit: Number.isFinite(limit) ? limit : null, max_sessions: config.max_sessions }
  const room = Math.max(limit - OWN_FILES, 0)
  if (room >= config.max_sessions || limit >= FILES_PLENTY) {
    report.add('files', 'ok', `${soft} files may be open`, { values })
    return
  }
  report.add('files', limit < FILES_LOW ? 'warning' : 'note', `${soft} files may be open: about ${room} connections`, {
    values,
    remedies: [`raise it: LimitNOFILE= of the service, or ulimit -n ${hard === soft ? FILES_PLENTY : hard}`],
  })
}

/**
 * The wall clock. The protocol does not need it (docs/protocol.md 7.2), the log and a reader of it do.
 * @param wall, monotonic ms at the start of the test
 */
export function reportClock(report: Report, before: ClockReading, after: ClockReading): void {
  const step = after.wall - before.wall - (after.monotonic - before.monotonic)
  const values = { step_ms: Math.round(step) }
  if (after.wall < CLOCK_FIRST) {
    const text = `the clock says ${new Date(after.wall).toISOString()}: the tunnel works by any clock, but its log is wrong`
    report.add('clock', 'warning', text, { values, remedies: ['set the clock, or run an NTP client'] })
  } else if (Math.abs(step) > CLOCK_STEP_MS) {
    const text = `the clock was set by ${Math.round(step)} ms during this test; the figures here do not depend on it`
    report.add('clock', 'note', text, { values })
  } else report.add('clock', 'ok', 'plausible and steady', { values })
}

export interface ClockReading {
  readonly wall: number
  readonly monotonic: number
}

/** What obfuscation needs. */
export function reportCapabilities(report: Report, os: OperatingSystem | undefined, config: Config): void {
  if (config.obfs === undefined) return
  const [, mask = ''] = /^CapEff:\s*([0-9a-f]+)/m.exec(readText(os, '/proc/self/status') ?? '') ?? []
  if (mask === '') {
    report.add('capabilities', 'warning', 'obfs needs Linux; capabilities cannot be read here')
    return
  }
  if (((BigInt(`0x${mask}`) >> BigInt(CAP_NET_RAW)) & 1n) === 1n) {
    report.add('capabilities', 'ok', 'CAP_NET_RAW is there, obfs can open raw sockets')
    return
  }
  report.add('capabilities', 'failure', 'obfs needs raw sockets: CAP_NET_RAW is missing', {
    remedies: [
      'start as root; the key user gives root away once the sockets are open',
      'with systemd: AmbientCapabilities=CAP_NET_RAW',
    ],
  })
}
