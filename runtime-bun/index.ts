/** Library entry for Bun. */

import { makeLibrary } from '../host/library/library.ts'
import { streamOf } from '../runtime-shared/duplex.ts'
import { crypto } from './crypto.ts'
import { bunRuntime } from './runtime.ts'

export * from '../host/library/exports.ts'
export { KcpStream } from '../runtime-shared/duplex.ts'

export const { createClient, createServer, createTunnel, generatePsk } = makeLibrary({
  runtime: bunRuntime,
  crypto,
  sharesMemory: true,
  streamOf,
})
