/**
 * The Node adapter: implements host/runtime.ts with node:dgram, node:net, node:http and other `node:*` modules, and
 * with system calls by FFI only for what these lack.
 */

import { terminalOf } from '../host/cli/terminal.ts'
import { openUdpByMode } from '../host/linux/open-udp.ts'
import type { Runtime } from '../host/runtime.ts'
import { clock } from '../runtime-shared/clock.ts'
import { commandConsole } from '../runtime-shared/console.ts'
import { serveHttp } from '../runtime-shared/http.ts'
import { openLogOutput } from '../runtime-shared/log-output.ts'
import { system } from '../runtime-shared/platform.ts'
import { prepareMemory } from './exec.ts'
import { syscalls } from './ffi.ts'
import { os } from './os.ts'
import { dialTcp, listenTcp, openUdp, unix } from './sockets.ts'

/** The runtime of this process, which must be Node. */
export function nodeRuntime(): Runtime {
  return {
    name: 'node',
    version: process.versions.node,
    ...system,
    prepareMemory,
    openLog: (native) => openLogOutput(native ? syscalls : undefined),
    os,
    commandConsole,
    terminal: terminalOf(process),
    openUdp: openUdpByMode({ clock, libc: os.libc, watch: os.watch }, openUdp),
    listenTcp,
    dialTcp,
    unix,
    serveHttp: (address, fetch) => serveHttp(address, fetch),
  }
}
