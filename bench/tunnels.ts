/**
 * `bench tunnels`: resident memory of a process with 1, 2, 10 and 50 idle client tunnels, and of one whose file has no
 * `tunnels`; the time from the start of the process to the last "client start" in its log.
 *
 * Options: --runs N (default 5); --programs node,bun; --cli FILE: a program to compare with, in place of that of dist/
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { type Config, commandOf, freePort, type Program, writeConfig } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'

const COUNTS = [1, 2, 10, 50]
/** Time without traffic after which memory is read. */
const IDLE_MS = 5000
const SECURITY = { method: 'xchacha20poly1305_ietf', psk: `${'A'.repeat(43)}=` }

interface Result {
  /** MiB */
  readonly memory: number
  /** ms */
  readonly start: number
}

const entry = async (): Promise<Config> => ({
  listen: `127.0.0.1:${await freePort()}`,
  kcp_connect: `127.0.0.1:${await freePort()}`,
})

function memoryOf(pid: number | undefined): number {
  const [, kib] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kib) / 1024
}

async function measure(program: Program, cli: string | undefined, config: Config, count: number): Promise<Result> {
  const file = writeConfig({ ...SECURITY, ...config })
  const [command, ...leading] = commandOf(program)
  const words = cli === undefined ? leading : [cli]
  const began = performance.now()
  const child = spawn(command, [...words, '-c', file.path], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise((resolve) => child.once('close', resolve))
  let log = ''
  const start = await new Promise<number>((resolve) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      log += text
      if (log.split('client start').length > count) resolve(performance.now() - began)
    })
  })
  await sleep(IDLE_MS)
  const memory = memoryOf(child.pid)
  child.kill()
  await ended
  file.remove()
  return { memory, start }
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

export async function benchTunnels(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string', default: '5' },
      programs: { type: 'string', default: 'node,bun' },
      cli: { type: 'string' },
    },
  })
  console.log(`\nidle clients without a server, medians of ${values.runs} runs; MiB, ms`)
  console.log('\n| | file without tunnels | tunnels: 1 | 2 | 10 | 50 |\n|---|---|---|---|---|---|')
  for (const program of values.programs.split(',') as Program[]) {
    const cells: string[] = []
    for (const count of values.cli === undefined ? [0, ...COUNTS] : [0]) {
      const results: Result[] = []
      for (let i = 0; i < Number(values.runs); i++) {
        const tunnels = await Promise.all(Array.from({ length: count }, entry))
        const config = count === 0 ? await entry() : { tunnels }
        results.push(await measure(program, values.cli, config, Math.max(count, 1)))
      }
      const [memory, start] = [results.map((result) => result.memory), results.map((result) => result.start)]
      cells.push(`${median(memory).toFixed(1)}, ${median(start).toFixed(0)}`)
    }
    console.log(`| ${program} | ${cells.join(' | ')} |`)
  }
}
