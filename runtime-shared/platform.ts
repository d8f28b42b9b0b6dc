/**
 * Clock, name resolution, files, standard streams and signals, for Node and Bun.
 */

import { ADDRCONFIG, promises as dns } from 'node:dns'
import { writeSync } from 'node:fs'
import { readFile as readFileBytes } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { codeOf, systemError } from '../host/errors.ts'
import type { SocketAddress } from '../host/net/address.ts'
import { AddressSpelling } from '../host/net/native-address.ts'
import type { Runtime } from '../host/runtime.ts'
import { clock } from './clock.ts'

/** Retries of a blocked write; if the reader takes nothing for so long, the rest of the text is dropped. */
const PRINT_RETRY_MS = 5
const PRINT_RETRIES = 200

const MICROSECONDS_PER_MS = 1000

const STDOUT_FD = 1
const STDERR_FD = 2

/** The spelling of addresses in the runtimes' calls. */
export const spelling = new AddressSpelling(networkInterfaces, process.platform === 'win32')

type System = Pick<
  Runtime,
  | 'clock'
  | 'cpuTime'
  | 'residentBytes'
  | 'resolve'
  | 'readFile'
  | 'print'
  | 'exit'
  | 'onTerminate'
  | 'onReload'
  | 'onReopen'
  | 'logFiles'
>

/** Sleeps without running the event loop. */
function block(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}

/** Writes all of `text`. A non-blocking pipe returns EAGAIN while it is full; a closed one always fails with EPIPE. */
export function printTo(fd: number, text: string): void {
  const bytes = Buffer.from(text)
  let offset = 0
  let retries = 0
  while (offset < bytes.length) {
    try {
      offset += writeSync(fd, bytes, offset)
      retries = 0
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN' || retries === PRINT_RETRIES) return
      retries += 1
      block(PRINT_RETRY_MS)
    }
  }
}

export const system: System = {
  clock,

  cpuTime() {
    const { user, system } = process.cpuUsage()
    return (user + system) / MICROSECONDS_PER_MS
  },

  residentBytes: () => process.memoryUsage.rss(),

  async resolve(host) {
    const address = spelling.parse(host)
    if (address !== null) return [address]
    if (host.includes('%')) throw systemError('ENODEV', `no such interface: ${host}`)
    const found: Omit<SocketAddress, 'port'>[] = []
    // keep getaddrinfo's own order (RFC 6724)
    for (const entry of await dns.lookup(host, { all: true, verbatim: true, hints: ADDRCONFIG })) {
      const parsed = spelling.parse(entry.address)
      if (parsed === null) continue
      if (!found.some((other) => other.address === parsed.address && other.scope === parsed.scope)) found.push(parsed)
    }
    if (found.length === 0) throw systemError('ENOTFOUND', `no address for ${host}`, 'getaddrinfo')
    return found
  },

  // a plain Uint8Array: some methods of Buffer differ
  readFile: async (path) => new Uint8Array(await readFileBytes(path)),

  print: (stream, text) => printTo(stream === 'stdout' ? STDOUT_FD : STDERR_FD, text),

  exit: (status) => process.exit(status),

  onTerminate(callback) {
    process.on('SIGINT', () => callback('SIGINT'))
    process.on('SIGTERM', () => callback('SIGTERM'))
  },

  onReload(callback) {
    // on Windows SIGHUP means that the console closes
    if (process.platform !== 'win32') process.on('SIGHUP', () => callback())
  },

  onReopen(callback) {
    if (process.platform !== 'win32') process.on('SIGUSR2', () => callback())
  },

  // loaded on demand: most logs are no files
  logFiles: async () => (await import('./log-file.ts')).logFileCalls,
}
