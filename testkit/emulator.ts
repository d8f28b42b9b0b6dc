/**
 * The link of the benchmarks as a separate process (this bundle started again as `bench emulator`), so that it does not
 * share a core with the traffic generator. For UDP it uses testkit/fast-link.ts where available, else the slower
 * testkit/link.ts (see `kind`); for IP between two namespaces testkit/tun-link.ts. bench/peers.ts reads its kernel drops
 * and CPU time from /proc.
 */
import type { ChildProcess } from 'node:child_process'
import { fork } from 'node:child_process'
import { type EmulatorCounters, type EmulatorOptions, type LaneCounters, type Opened, openFast } from './fast-link.ts'
import { openLink } from './link.ts'
import { openTun, type TunCounters, type TunLinkOptions } from './tun-link.ts'

/** Parent's handle of the emulator process. */
export interface Emulator extends Omit<Opened, 'counters'> {
  readonly pid: number
  counters(): Promise<EmulatorCounters>
  close(): Promise<void>
}

/** Parent's handle of the process of an IP link. */
export interface TunLink {
  readonly pid: number
  counters(): Promise<TunCounters>
  close(): Promise<void>
}

type Answer =
  | { readonly opened: Omit<Opened, 'counters'> | null }
  | { readonly counters: EmulatorCounters | TunCounters }

/** Starts an emulator process. Rejects when it exits before the link is open. */
export async function startEmulator(options: EmulatorOptions): Promise<Emulator> {
  const { child, opened, ...handle } = await startProcess<EmulatorCounters>('udp', options)
  if (opened === null) throw new Error('the emulator answered out of turn')
  return { ...opened, ...handle }
}

/** Starts the process of an IP link between two namespaces; its devices are there then, without addresses. */
export async function startTunLink(options: TunLinkOptions): Promise<TunLink> {
  const { child, opened, ...handle } = await startProcess<TunCounters>('tun', options)
  return handle
}

async function startProcess<Counters>(kind: string, options: object) {
  const child = fork(process.argv[1] ?? '', ['emulator', kind, JSON.stringify(options)], {
    execPath: 'bun' in process.versions ? 'node' : process.execPath,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const first = await answer(child)
  if (!('opened' in first)) throw new Error('the emulator answered out of turn')
  return {
    child,
    opened: first.opened,
    pid: child.pid ?? -1,
    async counters(): Promise<Counters> {
      child.send('counters')
      const next = await answer(child)
      if (!('counters' in next)) throw new Error('the emulator answered out of turn')
      return next.counters as Counters
    },
    async close(): Promise<void> {
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

/** `bench emulator KIND JSON`: runs the emulator until its parent disconnects. */
export async function runEmulator([kind, text = '{}']: readonly string[]): Promise<void> {
  const options = JSON.parse(text)
  const opened = kind === 'tun' ? openTun(options) : (openFast(options) ?? (await openPortable(options)))
  process.on('disconnect', () => process.exit(0))
  process.on('message', () => process.send?.({ counters: opened.counters() }))
  const { counters, ...rest } = opened
  process.send?.({ opened: 'port' in rest ? rest : null })
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
