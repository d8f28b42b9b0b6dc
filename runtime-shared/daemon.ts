/** What host/service/daemon.ts needs of the system: a second start of this program, and the pipe between the two. */
import { closeSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { DaemonCalls } from '../host/runtime.ts'

/** Descriptor of the pipe in the second process. */
const REPORT_FD = 3
/** Holds the pid of the first process: a mark that was left over from elsewhere does not count. */
const MARK = 'KCPTUN_WASM_DAEMON'

const inside = process.env[MARK] === String(process.ppid)
delete process.env[MARK]

export const daemon: DaemonCalls = {
  inside,

  start(onReport, onEnd) {
    // most processes start no other
    const { spawn }: typeof import('node:child_process') = createRequire(import.meta.url)('node:child_process')
    const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      env: { ...process.env, [MARK]: String(process.pid) },
    })
    const pipe = child.stdio[REPORT_FD]
    const decoder = new TextDecoder()
    pipe?.on('data', (chunk: Buffer) => onReport(decoder.decode(chunk, { stream: true })))
    // a broken pipe shows as the end of the process
    pipe?.on('error', () => {})
    child.once('error', (error) => onEnd(error.message))
    // close: after everything that the pipe held
    child.once('close', (code, signal) =>
      onEnd(signal === null ? `it ended with status ${code}` : `killed by ${signal}`),
    )
    return { pid: child.pid ?? 0, kill: () => void child.kill('SIGKILL') }
  },

  report(text) {
    try {
      writeSync(REPORT_FD, text)
    } catch {
      // the first process was killed: the daemon goes on
    }
  },

  reported() {
    try {
      closeSync(REPORT_FD)
    } catch {
      // it was closed already
    }
  },
}
