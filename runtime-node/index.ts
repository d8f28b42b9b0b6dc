/** Library entry for Node. */

import { makeLibrary } from '../host/library/library.ts'
import { streamOf } from '../runtime-shared/duplex.ts'
import { crypto } from './crypto.ts'
import { nodeRuntime } from './runtime.ts'

export * from '../host/library/exports.ts'
export { KcpStream } from '../runtime-shared/duplex.ts'

export const { createClient, createServer, createTunnel, generatePsk } = makeLibrary({
  runtime: nodeRuntime,
  crypto,
  sharesMemory: true,
  streamOf,
})
