/**
 * The Deno adapter: implements host/runtime.ts with Deno's node:net, node:dgram and node:http, and with system calls by
 * FFI for what these lack, fast UDP above all.
 */

import { terminalOf } from '../host/cli/terminal.ts'
import { openUdpByMode } from '../host/linux/open-udp.ts'
import type { CommandConsole, Runtime } from '../host/runtime.ts'
import { PROGRAM } from '../host/version.ts'
import { clock } from '../runtime-shared/clock.ts'
import { commandConsole } from '../runtime-shared/console.ts'
import { openLogOutput } from '../runtime-shared/log-output.ts'
import { system } from '../runtime-shared/platform.ts'
import { deno } from './deno.ts'
import { libc, syscalls } from './ffi.ts'
import { os } from './os.ts'
import { dialTcp, listenTcp, openUdp, serveHttp, unix } from './sockets.ts'
import { watch } from './watch.ts'

/** The words that started the program; `deno run npm:kcptun-wasm` sets its name as that of the command. */
const started: CommandConsole['started'] =
  commandConsole.started.command === PROGRAM
    ? { command: 'deno', words: ['run', '-A'], script: `npm:${PROGRAM}` }
    : { ...commandConsole.started, words: ['run', '-A'] }

/** The runtime of this process, which must be Deno. */
export function denoRuntime(): Runtime {
  return {
    name: 'deno',
    version: deno.version.deno,
    ...system,
    openLog: (native) => openLogOutput(native ? syscalls : undefined),
    os,
    commandConsole: { ...commandConsole, started },
    terminal: terminalOf(process),
    openUdp: openUdpByMode({ clock, libc, watch }, openUdp),
    listenTcp,
    dialTcp,
    unix,
    serveHttp: (address, fetch) => serveHttp(address, fetch),
  }
}
