/** What host/workers/workers.ts needs of the system, for both runtimes: more processes of this program, each with a socket, and messages. */
import { createRequire } from 'node:module'
import type { WorkerCalls } from '../host/runtime.ts'

/** Descriptor of the socket in a worker: behind the standard streams and the channel of messages. */
const SOCKET_FD = 4
/** How long the last messages of a process that is gone are waited for, ms. */
const LAST_WORDS_MS = 500
/** Holds the first process's pid and the worker's number: a mark that was left over from elsewhere does not count. */
const MARK = 'KCPTUN_WASM_WORKER'

const [parent, number] = (process.env[MARK] ?? '').split(':')
const inside = parent === String(process.ppid) ? Number(number) : undefined
delete process.env[MARK]

export const workers: WorkerCalls = {
  inside,
  socket: SOCKET_FD,

  start(number, socket, onMessage, onEnd) {
    // most processes start no other
    const { spawn }: typeof import('node:child_process') = createRequire(import.meta.url)('node:child_process')
    const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', socket],
      env: { ...process.env, [MARK]: `${process.pid}:${number}` },
    })
    child.on('message', onMessage)
    let ended = false
    const end = (how: string): void => {
      if (ended) return
      ended = true
      onEnd(how)
    }
    child.once('error', (error) => end(error.message))
    child.once('exit', (code, signal) => {
      const how = signal === null ? `ended with status ${code}` : `was killed by ${signal}`
      if (!child.connected) return end(how)
      // its last messages may still be in the channel
      child.once('disconnect', () => end(how))
      setTimeout(end, LAST_WORDS_MS, how)
    })
    return {
      pid: child.pid ?? 0,
      send(message) {
        // a closed channel shows as the end of the process
        if (child.connected) child.send(message, () => {})
      },
      kill: (signal) => void child.kill(signal),
    }
  },

  send(message, sent = () => {}) {
    if (process.connected && process.send !== undefined) process.send(message, () => sent())
    else sent()
  },

  receive(onMessage, onGone) {
    process.on('message', onMessage)
    process.on('disconnect', onGone)
    if (!process.connected) onGone()
  },
}
