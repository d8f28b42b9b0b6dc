/** WorkerCalls for Node and Bun: starts processes of this program, each with sockets and a message channel. */
import { createRequire } from 'node:module'
import type { WorkerCalls } from '../host/runtime.ts'
import { programWords } from './program.ts'

/** Descriptor of the first socket in a worker: follows the standard streams and the message channel. */
const SOCKET_FD = 4
/** How long to wait for the last messages of an ended process, ms. */
const LAST_WORDS_MS = 500
/** Environment variable with the first process's pid and the worker's number; a stale value is ignored. */
const MARK = 'KCPTUN_WASM_WORKER'

const [parent, number] = (process.env[MARK] ?? '').split(':')
const inside = parent === String(process.ppid) ? Number(number) : undefined
delete process.env[MARK]

export const workers: WorkerCalls = {
  inside,
  socket: SOCKET_FD,

  start(number, sockets, onMessage, onEnd) {
    // loaded on demand: most processes start no other
    const { spawn }: typeof import('node:child_process') = createRequire(import.meta.url)('node:child_process')
    const child = spawn(process.execPath, programWords(), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...sockets],
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
      // the channel may still hold its last messages
      child.once('disconnect', () => end(how))
      setTimeout(end, LAST_WORDS_MS, how)
    })
    return {
      pid: child.pid ?? 0,
      send(message) {
        // a closed channel is reported by the end of the process
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
