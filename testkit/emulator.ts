/**
 * The link of the benchmarks as a separate process (this bundle started again as `bench emulator`), so that it does not
 * share a core with the traffic generator. Uses testkit/fast-link.ts where available, else the slower testkit/link.ts
 * (see `kind`). bench/peers.ts reads its kernel drops and CPU time from /proc.
 */
import type { ChildProcess } from 'node:child_process'
import { fork } from 'node:child_process'
import { type EmulatorCounters, type EmulatorOptions, type LaneCounters, type Opened, openFast } from './fast-link.ts'
import { openLink } from './link.ts'

/** Parent's handle of the emulator process. */
export interface Emulator extends Omit<Opened, 'counters'> {
  readonly pid: number
  counters(): Promise<EmulatorCounters>
  close(): Promise<void>
}

type Answer = { readonly opened: Omit<Opened, 'counters'> } | { readonly counters: EmulatorCounters }

/** Starts an emulator process. Rejects when it exits before the link is open. */
export async function startEmulator(options: EmulatorOptions): Promise<Emulator> {
  const child = fork(process.argv[1] ?? '', ['emulator', JSON.stringify(options)], {
    execPath: 'bun' in process.versions ? 'node' : process.execPath,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const first = await answer(child)
  if (!('opened' in first)) throw new Error('the emulator answered out of turn')
  return {
    ...first.opened,
    pid: child.pid ?? -1,
    async counters() {
      child.send('counters')
      const next = await answer(child)
      if (!('counters' in next)) throw new Error('the emulator answered out of turn')
      return next.counters
    },
    async close() {
      if (child.exitCode !== null) return
      const ended = new Promise((done) => child.once('exit', done))
      child.disconnect()
      await ended
    },
  }
}

function answer(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const end = (code: number | null): void => reject(new Error(`the link emulator ended with status ${code}`))
    child.once('exit', end)
    child.once('message', (message: Answer) => {
      child.off('exit', end)
      resolve(message)
    })
  })
}

/** `bench emulator JSON`: runs the emulator until its parent disconnects. */
export async function runEmulator(args: readonly string[]): Promise<void> {
  const options: EmulatorOptions = JSON.parse(args[0] ?? '{}')
  const opened = openFast(options) ?? (await openPortable(options))
  const { counters, ...rest } = opened
  process.on('disconnect', () => process.exit(0))
  process.on('message', () => process.send?.({ counters: counters() }))
  process.send?.({ opened: rest })
}

async function openPortable(options: EmulatorOptions): Promise<Opened> {
  const link = await openLink({ ...options, target: { host: '127.0.0.1', port: options.target } })
  const copy = (lane: typeof link.counters.up): LaneCounters => ({ ...lane, late: 0 })
  return {
    kind: 'dgram',
    port: link.port,
    upstreamPort: 0,
    receiveBuffer: 0,
    counters: () => ({ up: copy(link.counters.up), down: copy(link.counters.down), clientPort: 0 }),
  }
}
