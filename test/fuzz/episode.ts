/**
 * One episode: an engine, a few thousand inputs, and the end of all sessions.
 */
import { type CoreExports, ObfsKind } from '../../host/engine/core.ts'
import { checkGauges } from './checks.ts'
import {
  controlDatagram,
  garbageDatagram,
  oldDatagram,
  openSession,
  pickSession,
  sessionDatagram,
} from './datagrams.ts'
import { administer, nonsense, reconfigure, starve, tcpCall } from './host-calls.ts'
import { Obfuscator } from './obfuscator.ts'
import { makePlan } from './plan.ts'
import { checkRoom, measure, windDown } from './room.ts'
import { checkService } from './service.ts'
import { World } from './world.ts'

/** Inputs of one episode. */
export const EPISODE_INPUTS = 4000
/** Number of sessions that receive inputs at a time. */
const SESSIONS_WANTED = 12
const SESSIONS_LARGE = 2

/** Makes one input, or two or three that belong together. */
function input(world: World): void {
  const { random, sessions, plan } = world
  const r = random.below(plan.isLarge ? 860 : 1000)
  if (r < 560) {
    const isFew = sessions.list.length < (plan.isLarge ? SESSIONS_LARGE : SESSIONS_WANTED)
    const s = isFew && random.below(sessions.list.length * 4 + 1) === 0 ? openSession(world) : pickSession(world)
    if (s) sessionDatagram(world, s)
    else controlDatagram(world)
  } else if (r < 860) {
    const s = pickSession(world)
    if (s) tcpCall(world, s)
  } else if (r < 900) controlDatagram(world)
  else if (r < 950) oldDatagram(world)
  else if (r < 970) garbageDatagram(world)
  else if (r < 980) nonsense(world)
  else if (r < 986) administer(world)
  else if (r < 990) reconfigure(world)
  else if (r < 993) starve(world)
  else if (world.obfuscator) world.obfuscator.act()
}

/** Lets time pass between inputs: usually none, rarely hours. */
function sleep(world: World): void {
  const { random, plan } = world
  const r = random.below(plan.isLarge ? 9900 : 10_000)
  if (r < 5000) return
  if (r < 9400) world.pass(random.below(80), true)
  else if (r < 9900) world.pass(random.below(800), true)
  else if (r < 9960) world.pass(random.below(8000 * 2), true)
  else if (r < 9985) world.pass(random.below(8000 * 40), true)
  else if (r < 9995) world.pass(random.below(8000 * 600), false)
  else world.pass(random.below(8000 * 3600 * (r < 9999 ? 5 : 100)), false)
}

function step(world: World): void {
  const { random } = world
  const n = random.pick(1, 1, 1, 2, 4, random.below(random.below(40) === 0 ? 800 : 80))
  for (let i = 0; i < n && world.inputs < EPISODE_INPUTS; i++) input(world)
  if (random.below(10) !== 0) world.drain(random.below(20) === 0 ? random.pick(1, 3, 1000) : 64)
  if (world.subject.entropyChunk === 0 && random.below(10) === 0) world.subject.entropyChunk = 8192
  sleep(world)
  if (random.below(8) === 0) world.expire()
  if (random.below(8) === 0 && world.subject.isDrained) checkGauges(world)
}

/**
 * Runs the episode of a seed on a fresh engine.
 * @returns the final world
 * @throws Fault, or the error of a trap
 */
export function runEpisode(seed: number, calls: CoreExports, log?: (text: string) => void): World {
  const plan = makePlan(seed)
  const world = new World(plan, calls)
  world.log = log
  log?.(`${plan.name}: ${JSON.stringify(plan.config)}`)
  if (plan.obfs !== ObfsKind.NONE) world.obfuscator = new Obfuscator(world, plan.obfs, plan.local)
  world.drain()
  world.fixedBytes = world.subject.gauge('memory_used')
  const base = measure(world)
  world.subject.configure(plan.config)
  world.isMeasuring = false
  while (world.inputs < EPISODE_INPUTS) step(world)
  world.drain()
  windDown(world)
  checkService(world)
  windDown(world)
  const end = measure(world)
  log?.(`room ${JSON.stringify(base)}, at the end ${JSON.stringify(end)}`)
  checkRoom(world, base, end)
  return world
}
