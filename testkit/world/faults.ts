/** What goes wrong in a simulated world. Each fault begins at a time, lasts, and is undone. */
import type { Random } from '../sim/random.ts'
import type { Conditions } from './network.ts'
import type { World } from './world.ts'

export const FAULT_KINDS = [
  'loss',
  'burst-loss',
  'duplicate',
  'reorder',
  'corrupt-2',
  'corrupt-30',
  'rtt-750',
  'slow-link',
  'blackhole',
  'partition',
  'nat-rebinding',
  'stale-mapping',
  'address-change',
  'interface-down',
  'dns-change',
  'dns-failure',
  'target-move',
  'crash',
  'restart',
  'trap',
  'reload',
  'wall-jump',
  'stall',
  'long-stall',
  'wrap',
  'ceiling',
  'full-sockets',
  'slow-apps',
  'stopped-apps',
  'reflect',
  'replay-old',
  'replay-new',
  'forge',
  'flood',
  'spoof',
  'small-mtu',
  'changing-mtu',
] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

export interface FaultPlan {
  readonly kind: FaultKind
  /** ms after the start. */
  readonly at: number
  readonly duration: number
  /** Which of the two ends it concerns, where it concerns one. */
  readonly end: 'client' | 'server'
  /** A number between 0 and 1 that decides what else there is. */
  readonly size: number
  /** `reload`: the keys that change. */
  readonly change?: Readonly<Record<string, unknown>>
}

export function drawFault(kind: FaultKind, random: Random, at: number): FaultPlan {
  const end = random.pick('client', 'server')
  return { kind, at, duration: random.between(1000, 15_000), end, size: random.unit() }
}

/** Undoes a fault. */
type Undo = () => void
type Begin = (world: World, plan: FaultPlan) => Undo | undefined

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
const MIB = 1 << 20

const link =
  (change: (size: number) => Partial<Conditions>): Begin =>
  (world, { size }) =>
    world.modify(change(size))

/** Calls every `period` ms until the fault is over. */
function repeat(world: World, period: number, action: (round: number) => void): Undo {
  let isOver = false
  let round = 0
  const next = (): void => {
    if (isOver) return
    action(round++)
    world.loop.in(period, next)
  }
  next()
  return () => {
    isOver = true
  }
}

/** Longest datagram that a path takes, bytes. */
const smallMtu = (size: number): number => 1000 + Math.floor(450 * size)

const BLACKHOLE_MS = { on: 5000, period: 7000 }

/** An injected attack: `act` is called with each of the recorded datagrams that it uses. */
const attack =
  (act: (world: World, plan: FaultPlan) => void, period: number): Begin =>
  (world, plan) =>
    repeat(world, period, () => act(world, plan))

export const FAULTS: Readonly<Record<FaultKind, Begin>> = {
  loss: link((size) => ({ loss: 0.05 + 0.25 * size, burst: 1 })),
  'burst-loss': link((size) => ({ loss: 0.3, burst: 3 + 10 * size })),
  duplicate: link((size) => ({ duplicate: 0.05 + 0.4 * size })),
  reorder: link((size) => ({ reorder: 0.05 + 0.4 * size, jitter: 30 * size })),
  'corrupt-2': link(() => ({ corrupt: 0.02 })),
  'corrupt-30': link(() => ({ corrupt: 0.3 })),
  'rtt-750': link(() => ({ delay: 375 })),
  'slow-link': link((size) => ({ rate: 60 + 200 * size, queue: 30_000 })),
  blackhole(world) {
    const stop = repeat(world, BLACKHOLE_MS.period, () => {
      world.network.isDark = true
      world.loop.in(BLACKHOLE_MS.on, () => {
        world.network.isDark = false
      })
    })
    return () => {
      stop()
      world.network.isDark = false
    }
  },
  partition(world) {
    world.network.isDark = true
    return () => {
      world.network.isDark = false
    }
  },
  'nat-rebinding': (world) =>
    repeat(world, 5000, () => {
      for (const nat of world.network.nats) nat.rebind()
    }),
  'stale-mapping'(world, { end }) {
    world.network.natOf(world.machineOf(end))?.strand()
    return undefined
  },
  'address-change'(world, { end }) {
    world.moveMachine(end)
    return undefined
  },
  'interface-down'(world, { end }) {
    const machine = world.machineOf(end)
    const { address } = machine
    machine.address = ''
    return () => {
      if (machine.address === '') machine.address = address
    }
  },
  'dns-change'(world) {
    world.moveMachine('server')
    world.moveRendezvous()
    return undefined
  },
  'dns-failure'(world) {
    world.network.isNameServerDown = true
    world.streams.onNameServer(true)
    return () => {
      world.network.isNameServerDown = false
      world.streams.onNameServer(false)
    }
  },
  'target-move'(world) {
    world.moveTarget()
    return undefined
  },
  crash(world, { end, duration }) {
    world.programOf(end).kill(duration / 4)
    if (end === 'server') world.streams.onServerLost()
    return undefined
  },
  restart(world, { end, duration }) {
    const program = world.programOf(end)
    if ('stop' in program) program.stop(duration / 10)
    else program.kill(duration / 10)
    if (end === 'server') world.streams.onServerLost()
    return undefined
  },
  trap(world, { end }) {
    const program = world.programOf(end)
    if ('trap' in program) program.trap()
    if (end === 'server') world.streams.onServerLost()
    return undefined
  },
  reload: (world, { end, change = {} }) => world.reload(end, change),
  'wall-jump'(world, { end, size }) {
    world.machineOf(end).wallJump += (size < 0.5 ? -1 : 1) * DAY_MS * (0.01 + 0.99 * size)
    return undefined
  },
  stall(world, { end, size }) {
    world.freeze(end, 1000 + 29_000 * size)
    return undefined
  },
  'long-stall'(world, { end, size }) {
    world.freeze(end, HOUR_MS * (1 + 2 * size))
    return undefined
  },
  // the clocks of the scenario see to it
  wrap: () => undefined,
  ceiling: (world, { end, size }) => world.lowerCeiling(end, MIB * (1 + Math.floor(1.5 * size))),
  'full-sockets'(world) {
    const stop = repeat(world, 400, (round) => {
      world.network.isSendBufferFull = round % 2 === 0
    })
    return () => {
      stop()
      world.network.isSendBufferFull = false
    }
  },
  'slow-apps': (world, { size }) => repeat(world, 60, (round) => world.stopApps(round % 2 === 0, size)),
  'stopped-apps'(world, { size }) {
    world.stopApps(true, size)
    return () => world.stopApps(false, size)
  },
  reflect: attack((world) => world.attacker.reflect(), 50),
  'replay-old': attack((world) => world.attacker.replay(), 50),
  'replay-new'(world) {
    world.attacker.isRacing = true
    return () => {
      world.attacker.isRacing = false
    }
  },
  forge: attack((world) => world.attacker.forge(), 20),
  flood: attack((world) => world.attacker.flood(40), 100),
  spoof: attack((world) => world.attacker.spoof(), 40),
  // ICMP is lost; what is sent without don't fragment passes
  'small-mtu': link((size) => ({ longest: smallMtu(size) })),
  'changing-mtu'(world, { size }) {
    let undo: Undo | undefined
    const stop = repeat(world, 4000, (round) => {
      undo?.()
      undo = round % 2 === 0 ? world.modify({ longest: smallMtu(size) }) : undefined
    })
    return () => {
      stop()
      undo?.()
    }
  },
}
