/**
 * The Bun adapter: implements host/runtime.ts with Bun.udpSocket, Bun.listen, Bun.connect and node:http, and with
 * system calls by FFI only for what these lack.
 */

import { terminalOf } from '../host/cli/terminal.ts'
import { openUdpByMode } from '../host/linux/open-udp.ts'
import type { Runtime } from '../host/runtime.ts'
import { clock } from '../runtime-shared/clock.ts'
import { commandConsole } from '../runtime-shared/console.ts'
import { serveHttp } from '../runtime-shared/http.ts'
import { openLogOutput } from '../runtime-shared/log-output.ts'
import { system } from '../runtime-shared/platform.ts'
import { libc, syscalls } from './ffi.ts'
import { os } from './os.ts'
import { dialTcp, listenTcp, unix } from './tcp.ts'
import { openUdp } from './udp.ts'
import { watchArrivals } from './watch.ts'

/** The runtime of this process, which must be Bun. */
export function bunRuntime(): Runtime {
  return {
    name: 'bun',
    version: Bun.version,
    ...system,
    openLog: (native) => openLogOutput(native ? syscalls : undefined),
    os,
    commandConsole,
    terminal: terminalOf(process),
    openUdp: openUdpByMode({ clock, libc, watch: watchArrivals }, openUdp),
    listenTcp,
    dialTcp,
    unix,
    serveHttp: (address, fetch) => serveHttp(address, fetch),
  }
}
