/** Library entry for Deno. */

import { makeLibrary } from '../host/library/library.ts'
import { streamOf } from '../runtime-shared/duplex.ts'
import { crypto } from './crypto.ts'
import { denoRuntime } from './runtime.ts'

export * from '../host/library/exports.ts'
export { KcpStream } from '../runtime-shared/duplex.ts'

export const { createClient, createServer, createTunnel, generatePsk } = makeLibrary({
  runtime: denoRuntime,
  crypto,
  sharesMemory: true,
  streamOf,
})
