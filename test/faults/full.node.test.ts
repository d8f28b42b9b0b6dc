// time limit: 120 s
/**
 * What is full: the queue of the interface (ENOBUFS from every send call for a while), and the file system that the log or
 * a new configuration is written to (ENOSPC). The program goes on, or fails as it says, and the log stays short.
 */
import { spawn, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, freePort, httpGet, type Program, projectRoot, run, writeConfig } from '../../testkit/process.ts'
import { dial } from '../../testkit/tcp.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { figuresOf, ROLES, type Role, together } from './form.ts'
import { Streams } from './streams.ts'

const FULL_MS = 2000
const SIZE = 2_000_000
const LINK = { delay: 5, rate: 20e6 }
const LIMIT_MS = 60_000
/** Lines of one kind are at least a second apart. */
const LINES_MAX = FULL_MS / 1000 + 2

const test = suite('faults: full')

/** The command of a program that loads full-hook.mjs first. */
function hookedCommand(program: Program): readonly string[] {
  const [runtime, ...script] = commandOf(program)
  return [runtime, program === 'bun' ? '--preload' : '--import', join(projectRoot, 'testkit/full-hook.mjs'), ...script]
}

async function sendsFail(program: Program, role: Role, path: string): Promise<void> {
  const streams = await Streams.open()
  const other: Program = program === 'node' ? 'bun' : 'node'
  const programs = role === 'server' ? { server: program, client: other } : { server: other, client: program }
  const options = {
    ...{ ...programs, config: { udp: { path } }, target: streams.target.address, link: LINK },
    commands: { [role]: hookedCommand(program) },
  } as const
  await withTunnel(options, async (tunnel) => {
    const stream = await streams.start(tunnel, SIZE)
    await waitFor('the stream is under way', () => stream.received() > SIZE / 10, LIMIT_MS)
    process.kill(tunnel[role].pid, 'SIGUSR2')
    await sleep(FULL_MS)
    const { host } = await figuresOf(tunnel[role])
    process.kill(tunnel[role].pid, 'SIGUSR2')
    assert.ok((host['udp_full'] ?? 0) > 0, `${program} ${role}, path ${path}: the failures are counted`)
    const outcome = await stream.outcome(LIMIT_MS)
    assert.ok(outcome.isComplete, JSON.stringify(outcome))
    const lines = tunnel[role].log().match(/^. .* udp: .*$/gm) ?? []
    assert.ok(lines.length > 0 && lines.length <= LINES_MAX, lines.join('\n'))
  }).finally(() => streams.target.close())
}

for (const path of ['auto', 'portable']) {
  test(`sends fail with ENOBUFS for ${FULL_MS / 1000} s, either end and runtime, path ${path}`, () =>
    together(RUNTIMES.flatMap((program) => ROLES.map((role) => () => sendsFail(program, role, path)))))
}

/** A file system of one page, mounted while `body` runs. */
async function withTinyDisk(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-full-'))
  try {
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', directory], { encoding: 'utf8' })
    assert.is(mounted.status, 0, mounted.stderr)
    await body(directory)
  } finally {
    spawnSync('umount', ['-l', directory])
    rmSync(directory, { recursive: true, force: true })
  }
}

function diskProblem(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'a file system is mounted by root on Linux'
  const probe = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', tmpdir()], { encoding: 'utf8' })
  return probe.status === 0 ? undefined : `no file system can be mounted: ${probe.stderr}`
}

/** Fills a disk, also what is left of the last page of `log`. */
function fill(directory: string, log?: string): void {
  const { bfree, bsize } = statfsSync(directory)
  writeFileSync(join(directory, 'filler'), Buffer.alloc(bfree * bsize))
  if (log === undefined) return
  try {
    for (;;) appendFileSync(log, '.')
  } catch {
    // no space is left
  }
}

async function logsToFullDisk(program: Program, directory: string): Promise<void> {
  const port = await freePort()
  const http = `127.0.0.1:${await freePort()}`
  const config = { listen: `127.0.0.1:${port}`, kcp_connect: '127.0.0.1:9', http_listen: http, loglevel: 8 }
  const file = writeConfig(config)
  const log = join(directory, 'log')
  const fd = openSync(log, 'a')
  const [command, ...args] = commandOf(program)
  const child = spawn(command, [...args, '-c', file.path], { stdio: ['ignore', fd, fd] })
  const ended = new Promise((done) => child.once('exit', (code) => done(code)))
  try {
    const serves = (): Promise<boolean> =>
      httpGet(`http://${http}/healthy`).then(
        () => true,
        () => false,
      )
    await waitFor('the program serves', serves, LIMIT_MS)
    fill(directory, log)
    for (let i = 0; i < 50; i++) (await dial('127.0.0.1', port)).destroy()
    assert.ok(await serves(), 'it goes on while the disk is full')
    rmSync(join(directory, 'filler'))
    const before = readFileSync(log, 'utf8').length
    await waitFor(
      'new lines when there is room again',
      async () => {
        ;(await dial('127.0.0.1', port)).destroy()
        return readFileSync(log, 'utf8').length > before
      },
      LIMIT_MS,
    )
    child.kill('SIGTERM')
    assert.is(await ended, 0)
  } finally {
    child.kill('SIGKILL')
    file.remove()
  }
}

const problem = diskProblem()
for (const program of RUNTIMES) {
  const logs = `a ${program} client goes on while the disk of its log is full, and logs again afterwards`
  const writes = `init on a full disk fails and leaves nothing behind: ${program}`
  if (problem !== undefined) {
    skip(test, logs, problem)
    skip(test, writes, problem)
    continue
  }
  test(logs, () => withTinyDisk((directory) => logsToFullDisk(program, directory)))

  test(writes, () =>
    withTinyDisk(async (directory) => {
      fill(directory)
      const flags = ['--server', '127.0.0.1:5200', '--listen', '5201', '--connect', '80', '--dir', directory]
      const { code, stderr } = await run(program, ['init', ...flags])
      assert.is(code, 1)
      assert.match(stderr, /ENOSPC|no space/i)
      assert.equal(readdirSync(directory), ['filler'])
    }),
  )
}

test.run()
