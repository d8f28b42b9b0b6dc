/**
 * The Node adapter: host/runtime.ts on node:dgram, node:net, node:http and the other `node:*` modules; portable calls
 * only.
 */
import type { Runtime } from '../host/runtime.ts'
import { serveHttp } from './http.ts'
import { system } from './system.ts'
import { dialTcp, listenTcp } from './tcp.ts'
import { openUdp } from './udp.ts'

/** The runtime of this process, which must be Node. */
export function nodeRuntime(): Runtime {
  return {
    name: 'node',
    version: process.versions.node,
    ...system,
    openUdp,
    listenTcp,
    dialTcp,
    serveHttp: (address, fetch) => serveHttp(address, fetch),
  }
}
