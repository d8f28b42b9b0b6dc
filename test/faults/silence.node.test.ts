// time limit: 240 s
/**
 * Six hours without an answer: the peer drops everything, refuses, or has a name that does not resolve. Clocks and timers of
 * the program run fast (testkit/fast-clock-hook.mjs), sockets are real. Applications try to connect all the time. No
 * descriptor, no memory and no session is left over.
 */
import { createSocket } from 'node:dgram'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, freePort, type Program, projectRoot, type Running, start } from '../../testkit/process.ts'
import { dial } from '../../testkit/tcp.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { descriptorsOf, type Figures, measure } from '../soak/figures.ts'
import { form, note, together } from './form.ts'

/** The program lives six hours in this time. */
const SPEED = form(720, 72)
const HOURS = 6
const HOUR_MS = 3_600_000 / SPEED
/** Memory of the engine differs by a datagram that is on its way, at most. */
const BLOCK_BYTES = 2048
/** Between two attempts of an application. */
const DIAL_MS = 100
const LIMIT_MS = 60_000
/**
 * The least resident memory of the last two hours, beyond the greatest of the first three: buffers of the sockets of other
 * ports, of which there are hundreds a minute here, are collected later.
 */
const RSS_SHARE = 0.15

const test = suite('faults: silence')

type Silence = 'dropped' | 'refused' | 'no name'
type Role = 'client' | 'announced server'

interface Case {
  readonly program: Program
  readonly path: 'auto' | 'portable'
  readonly silence: Silence
  readonly role: Role
}

const nameOf = (one: Case): string => `${one.program} ${one.role}, path ${one.path}, ${one.silence}`

/** A UDP socket that never answers. */
async function deaf(): Promise<{ readonly port: number; close(): void }> {
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  return { port: socket.address().port, close: () => socket.close() }
}

/** The program, with clocks that run fast, and a young generation whose size does not hide what is measured. */
function fastCommand(program: Program): readonly string[] {
  const [runtime, ...script] = commandOf(program)
  const hook = join(projectRoot, 'testkit/fast-clock-hook.mjs')
  const flags = program === 'bun' ? ['--preload', hook] : ['--max-semi-space-size=2', '--import', hook]
  return ['env', `FAST_CLOCK=${SPEED}`, runtime, ...flags, ...script]
}

async function launch(one: Case, peer: number): Promise<{ readonly end: Running; readonly port: number }> {
  const port = await freePort()
  const host = one.silence === 'no name' ? 'name.invalid' : '127.0.0.1'
  const roleKeys =
    one.role === 'client'
      ? { listen: `127.0.0.1:${port}`, kcp_connect: `${host}:${peer}` }
      : { connect: '127.0.0.1:9', rendezvous_server: `${host}:${peer}`, service_id: 'silence' }
  const config = {
    ...{ method: 'xchacha20poly1305_ietf', password: 'silence', udp: { path: one.path } },
    ...{ http_listen: `127.0.0.1:${await freePort()}`, ...roleKeys },
  }
  return { end: await start(one.program, config, { command: fastCommand(one.program) }), port }
}

/** Connects and gives up when the program resets it, again and again. @returns the number of attempts */
async function dialUntil(port: number, end: number): Promise<number> {
  let count = 0
  while (performance.now() < end) {
    const app = await dial('127.0.0.1', port).catch(() => undefined)
    if (app !== undefined) {
      count++
      await waitFor('the application is not kept waiting', () => app.ended, LIMIT_MS)
      app.socket.destroy()
    }
    await sleep(DIAL_MS)
  }
  return count
}

/** Lets a program live through the silence. */
async function endure(one: Case, end: Running, port: number): Promise<void> {
  const began = performance.now()
  /** Figures when nothing is under way. Requests meet time limits that run fast too, so that some fail. */
  const quiet = async (): Promise<Figures> => {
    let figures: Figures | undefined
    await waitFor(
      `${nameOf(one)}: all sessions end`,
      async () => {
        figures = await measure(end, began).catch(() => undefined)
        return figures?.sessions === 0
      },
      LIMIT_MS,
      () => JSON.stringify(figures),
    )
    if (figures === undefined) throw new Error('no figures')
    // connections of requests close
    const counts: number[] = []
    for (let i = 0; i < 20; i++) {
      counts.push(descriptorsOf(end.pid))
      await sleep(20)
    }
    return { ...figures, descriptors: Math.min(...counts) }
  }
  const load = (hours: number): Promise<number> =>
    one.role === 'client'
      ? dialUntil(port, performance.now() + hours * HOUR_MS)
      : sleep(hours * HOUR_MS).then(() => Number.NaN)
  const sizes: number[] = []
  const descriptors: number[] = []
  /** Hours of load. @returns attempts */
  const hours = async (number: number): Promise<number> => {
    let count = 0
    for (let half = 0; half < 2 * number; half++) {
      count += await load(0.5)
      const figures = await quiet()
      sizes.push(figures.rssKiB)
      descriptors.push(figures.descriptors)
    }
    return count
  }
  await hours(2)
  const base = await quiet()
  const count = await hours(HOURS - 2)
  const last = await quiet()
  const text = `${nameOf(one)}: ${JSON.stringify({ count, base, last, sizes, descriptors })}`
  note(text)
  // one descriptor comes and goes: that of the probing socket, or of a request on a busy machine
  assert.ok(Math.min(...descriptors.slice(-4)) <= Math.max(...descriptors.slice(0, 4)), text)
  assert.ok(Math.abs(last.memory - base.memory) <= BLOCK_BYTES, text)
  assert.ok(Math.min(...sizes.slice(-4)) < Math.max(...sizes.slice(0, 6)) * (1 + RSS_SHARE), text)
  assert.ok(one.role !== 'client' || count > 10, text)
}

async function silent(one: Case): Promise<void> {
  const sink = await deaf()
  if (one.silence === 'refused') sink.close()
  const { end, port } = await launch(one, sink.port)
  try {
    await endure(one, end, port)
    assert.is((await end.stop()).code, 0, `${nameOf(one)}\n${end.log().slice(-2000)}`)
  } finally {
    await end.stop('SIGKILL')
    if (one.silence !== 'refused') sink.close()
  }
}

const CASES: readonly Case[] = RUNTIMES.flatMap((program) =>
  (['auto', 'portable'] as const).flatMap((path) => [
    { program, path, silence: 'dropped' as const, role: 'client' as const },
    { program, path, silence: 'refused' as const, role: 'client' as const },
    { program, path, silence: 'dropped' as const, role: 'announced server' as const },
  ]),
)

test('six hours of silence leave nothing behind', () => together(CASES.map((one) => () => silent(one))))

test.run()
