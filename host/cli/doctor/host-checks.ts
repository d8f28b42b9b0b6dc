/**
 * Checks of the local machine: UDP buffers, file descriptors, clock, capabilities. Limits are read from /proc; checks
 * that are not possible on other systems are omitted.
 */

import type { Config } from '../../config/config.ts'
import type { OperatingSystem, SocketOptions } from '../../runtime.ts'
import type { Report } from './report.ts'

/** File descriptors that are not available for connections: sockets, files, those of the runtime. */
const OWN_FILES = 32
/** This many descriptors are always enough; fewer than FILES_LOW are a warning. */
const FILES_PLENTY = 4096
const FILES_LOW = 256
/** Bit of CAP_NET_RAW in the mask of capabilities (capabilities(7)). */
const CAP_NET_RAW = 13
/** An earlier wall clock time means that the clock was never set. */
const CLOCK_FIRST = Date.UTC(2026, 0, 1)
/** A larger difference between wall clock and monotonic clock means that the wall clock was set, ms. */
const CLOCK_STEP_MS = 250

function readText(os: OperatingSystem | undefined, path: string): string | undefined {
  try {
    return os?.readText(path)
  } catch {
    return undefined
  }
}

/** Collects the socket options that the system refused, for `reportBuffers`. */
export class Refusals {
  readonly texts: { readonly option: string; readonly why: string }[] = []

  /** The same options, with refusals recorded here instead of logged. */
  of(socketOptions: SocketOptions | undefined): SocketOptions | undefined {
    if (socketOptions === undefined) return undefined
    const refused = (option: string, why: string): void => {
      if (!this.texts.some((text) => text.option === option)) this.texts.push({ option, why })
    }
    return { ...socketOptions, refused }
  }
}

/** Reports the buffers that a socket of this configuration was granted. */
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
    report.add('buffers', 'ok', 'all UDP socket options granted', { values })
    return
  }
  const asked = texts.some(({ option }) => option !== 'rcvbuf' || config.udp.rcvbuf > 0)
  const text = texts.map(({ option, why }) => `${option}: ${why.replace(/; raise it: .*$/, '')}`).join('; ')
  const remedies = texts.flatMap(({ why }) => /sysctl -w \S+/.exec(why) ?? [])
  const lossy = ' Bursts that exceed the buffer are lost, which looks like loss on the path.'
  report.add('buffers', asked ? 'warning' : 'note', `${text}.${lossy}`, {
    remedies: remedies.map((command) => `as root: ${command} (permanently: in /etc/sysctl.d)`),
    values,
  })
}

/** Reports the limit of open files. Each connection takes one descriptor. */
export function reportFiles(report: Report, os: OperatingSystem | undefined, config: Config): void {
  const text = readText(os, '/proc/self/limits')
  const [, soft = '', hard = ''] = /^Max open files\s+(\S+)\s+(\S+)/m.exec(text ?? '') ?? []
  if (soft === '') return
  const limit = soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
  const values = { files_limit: Number.isFinite(limit) ? limit : null, max_sessions: config.max_sessions }
  const room = Math.max(limit - OWN_FILES, 0)
  if (room >= config.max_sessions || limit >= FILES_PLENTY) {
    report.add('files', 'ok', `limit of open files: ${soft}`, { values })
    return
  }
  const summary = `limit of open files: ${soft}, enough for about ${room} connections`
  report.add('files', limit < FILES_LOW ? 'warning' : 'note', summary, {
    values,
    remedies: [`raise the limit: LimitNOFILE= in the unit, or ulimit -n ${hard === soft ? FILES_PLENTY : hard}`],
  })
}

/**
 * Reports the wall clock. The protocol does not depend on it (docs/protocol.md 7.2), the log does.
 * @param before, after readings at the start and at the end of the test
 */
export function reportClock(report: Report, before: ClockReading, after: ClockReading): void {
  const step = after.wall - before.wall - (after.monotonic - before.monotonic)
  const values = { step_ms: Math.round(step) }
  if (after.wall < CLOCK_FIRST) {
    const text = `wrong time: ${new Date(after.wall).toISOString()}; affects the log, not the tunnel`
    report.add('clock', 'warning', text, { values, remedies: ['set the clock or run an NTP client'] })
  } else if (Math.abs(step) > CLOCK_STEP_MS) {
    const text = `the clock changed by ${Math.round(step)} ms during the test; the results are not affected`
    report.add('clock', 'note', text, { values })
  } else report.add('clock', 'ok', 'plausible and stable', { values })
}

/** Both clocks at one moment, ms. */
export interface ClockReading {
  readonly wall: number
  readonly monotonic: number
}

/** Reports the capabilities that obfuscation requires. */
export function reportCapabilities(report: Report, os: OperatingSystem | undefined, config: Config): void {
  if (config.obfs === undefined) return
  const [, mask = ''] = /^CapEff:\s*([0-9a-f]+)/m.exec(readText(os, '/proc/self/status') ?? '') ?? []
  if (mask === '') {
    report.add('capabilities', 'warning', 'obfs requires Linux; cannot read capabilities on this system')
    return
  }
  if (((BigInt(`0x${mask}`) >> BigInt(CAP_NET_RAW)) & 1n) === 1n) {
    report.add('capabilities', 'ok', 'CAP_NET_RAW is available for obfs')
    return
  }
  report.add('capabilities', 'failure', 'CAP_NET_RAW is missing, which obfs requires for raw sockets', {
    remedies: [
      'start as root and set user to drop privileges after opening the sockets',
      'with systemd: AmbientCapabilities=CAP_NET_RAW',
    ],
  })
}
