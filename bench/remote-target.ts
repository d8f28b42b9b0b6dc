/**
 * A target as a process of its own (`bench target`), for `bench open`, `bench memory` and tests: ten thousand connections of it and of the applications
 * together are more descriptors than one process may have.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { projectRoot } from '../test/tools/process.ts'
import { openTarget } from './flow.ts'

export interface RemoteTarget {
  readonly port: number
  close(): Promise<void>
}

/** Starts it. It ends with this process at the latest. */
export async function startTarget(): Promise<RemoteTarget> {
  const child = fork(join(projectRoot, 'dist/bench.js'), ['target'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const port = await firstMessage(child)
  return {
    port,
    async close() {
      if (child.exitCode !== null) return
      const ended = new Promise((done) => child.once('exit', done))
      child.disconnect()
      await ended
    },
  }
}

function firstMessage(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the target ended with status ${code}`)))
    child.once('message', (port: number) => resolve(port))
  })
}

/** `bench target`: the process itself, until its parent disconnects. */
export async function runTarget(): Promise<void> {
  const target = await openTarget()
  process.on('disconnect', () => process.exit(0))
  process.send?.(target.port)
}
