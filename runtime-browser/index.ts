/**
 * Library entry for pages and workers. There are no sockets: clients and servers use a transport, such as
 * `overDataChannel` or `overMessagePort`.
 */

import { makeLibrary } from '../host/library/library.ts'
import { webStreamOf } from '../host/library/web-stream.ts'
import { crypto } from './crypto.ts'
import { browserRuntime, NO_SOCKETS } from './runtime.ts'

export * from '../host/library/exports.ts'

export const { createClient, createServer, createTunnel, generatePsk } = makeLibrary({
  runtime: browserRuntime,
  crypto,
  sharesMemory: false,
  streamOf: webStreamOf,
  noSockets: NO_SOCKETS,
})
