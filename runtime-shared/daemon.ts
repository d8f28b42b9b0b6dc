/** DaemonCalls for Node and Bun: starts this program a second time, with a pipe between the processes. */
import { closeSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { DaemonCalls } from '../host/runtime.ts'
import { programWords } from './program.ts'

/** Descriptor of the pipe in the daemon. */
const REPORT_FD = 3
/** Environment variable with the pid of the first process; a stale value from elsewhere is ignored. */
const MARK = 'KCPTUN_WASM_DAEMON'

const inside = process.env[MARK] === String(process.ppid)
delete process.env[MARK]

export const daemon: DaemonCalls = {
  inside,

  start(onReport, onEnd) {
    // loaded on demand: most processes start no other
    const { spawn }: typeof import('node:child_process') = createRequire(import.meta.url)('node:child_process')
    const child = spawn(process.execPath, programWords(), {
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      env: { ...process.env, [MARK]: String(process.pid) },
    })
    const pipe = child.stdio[REPORT_FD]
    const decoder = new TextDecoder()
    pipe?.on('data', (chunk: Buffer) => onReport(decoder.decode(chunk, { stream: true })))
    // a broken pipe is reported by the end of the process
    pipe?.on('error', () => {})
    child.once('error', (error) => onEnd(error.message))
    // close: after everything in the pipe was read
    child.once('close', (code, signal) =>
      onEnd(signal === null ? `it ended with status ${code}` : `killed by ${signal}`),
    )
    return { pid: child.pid ?? 0, kill: () => void child.kill('SIGKILL') }
  },

  report(text) {
    try {
      writeSync(REPORT_FD, text)
    } catch {
      // the first process was killed: the daemon continues
    }
  },

  reported() {
    try {
      closeSync(REPORT_FD)
    } catch {
      // already closed
    }
  },
}
