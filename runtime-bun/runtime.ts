/**
 * The Bun adapter: host/runtime.ts on Bun.udpSocket, Bun.listen, Bun.connect and node:http; system calls by FFI only for
 * what they lack.
 */

import type { Runtime } from '../host/runtime.ts'
import { terminalOf } from '../host/terminal.ts'
import { openUdpByPath } from '../host/udp/fast-udp.ts'
import { serveHttp } from './http.ts'
import { os } from './os.ts'
import { sys } from './sys.ts'
import { system } from './system.ts'
import { dialTcp, listenTcp } from './tcp.ts'
import { tools } from './tools.ts'
import { openUdp } from './udp.ts'
import { watchArrivals } from './watch.ts'

/** The runtime of this process, which must be Bun. */
export function bunRuntime(): Runtime {
  return {
    name: 'bun',
    version: Bun.version,
    ...system,
    os,
    tools,
    terminal: terminalOf(process),
    openUdp: openUdpByPath({ sys, watch: watchArrivals }, openUdp),
    listenTcp,
    dialTcp,
    serveHttp: (address, fetch) => serveHttp(address, fetch),
  }
}
