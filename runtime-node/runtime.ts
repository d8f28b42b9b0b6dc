/**
 * The Node adapter: host/runtime.ts on node:dgram, node:net, node:http and the other `node:*` modules; system calls
 * by FFI only for what they lack.
 */

import type { Runtime } from '../host/runtime.ts'
import { terminalOf } from '../host/terminal.ts'
import { openUdpByPath } from '../host/udp/fast-udp.ts'
import { serveHttp } from './http.ts'
import { os } from './os.ts'
import { system } from './system.ts'
import { dialTcp, listenTcp } from './tcp.ts'
import { tools } from './tools.ts'
import { openUdp } from './udp.ts'

/** The runtime of this process, which must be Node. */
export function nodeRuntime(): Runtime {
  return {
    name: 'node',
    version: process.versions.node,
    ...system,
    os,
    tools,
    terminal: terminalOf(process),
    openUdp: openUdpByPath(os, openUdp),
    listenTcp,
    dialTcp,
    serveHttp: (address, fetch) => serveHttp(address, fetch),
  }
}
