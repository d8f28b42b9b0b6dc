/** The simulated world itself: it repeats a seed exactly, sees what is wrong, and makes a failing scenario smaller. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Channel } from '../../host/library/channel.ts'
import { crypto } from '../../runtime-node/crypto.ts'
import { Coverage } from '../../testkit/world/coverage.ts'
import { missingKeys } from '../../testkit/world/reloads.ts'
import { drawScenario, type Scenario, TOPOLOGIES, type Topology } from '../../testkit/world/scenario.ts'
import { shrink } from '../../testkit/world/shrink.ts'
import { SimulatedTcp } from '../../testkit/world/tcp.ts'
import { World } from '../../testkit/world/world.ts'

const test = suite('simulate/world')

const HOUR_MS = 3_600_000

/** A pair on a good link, without faults. */
function calm(seed: number): Scenario {
  return { ...drawScenario(seed), topology: 'pair', faults: [], config: {} }
}

/** The first seed of a role. */
function seedOf(topology: Topology): number {
  let seed = 0
  while (drawScenario(seed).topology !== topology) seed++
  return seed
}

/** A client and a server of the library on a good link, without faults. */
function calmLibrary(): Scenario {
  return { ...drawScenario(seedOf('library-pair')), faults: [], config: {} }
}

const run = async (scenario: Scenario): Promise<readonly string[]> =>
  (await (await World.make(scenario, crypto)).run()).violations

for (const topology of ['workers', 'library-pair', 'library-carrier'] as const)
  test(`a seed gives the same world again: ${topology}`, async () => {
    const runs = []
    for (let i = 0; i < 2; i++) {
      const { events, datagrams, bytes, logs } = await (await World.make(drawScenario(seedOf(topology)), crypto)).run()
      runs.push({ events, datagrams, bytes, logs })
    }
    assert.ok((runs[0]?.bytes ?? 0) > 1_000_000)
    assert.equal(runs[0], runs[1])
  })

test('one wrong byte is seen', async () => {
  const { write } = SimulatedTcp.prototype
  let writes = 0
  SimulatedTcp.prototype.write = function (buffer, length) {
    if (++writes === 500) buffer[0] = (buffer[0] ?? 0) ^ 1
    return write.call(this, buffer, length)
  }
  try {
    const { violations } = await (await World.make(calm(1), crypto)).run()
    assert.match(violations[0] ?? '', /wrong bytes|nobody opened/)
  } finally {
    SimulatedTcp.prototype.write = write
  }
})

test('a clean end before every byte is seen', async () => {
  const { write } = SimulatedTcp.prototype
  let writes = 0
  SimulatedTcp.prototype.write = function (buffer, length) {
    if (++writes < 500 || length < 10) return write.call(this, buffer, length)
    SimulatedTcp.prototype.write = write
    return write.call(this, buffer, length - 1) + 1
  }
  try {
    const { violations } = await (await World.make(calm(1), crypto)).run()
    assert.match(violations[0] ?? '', /wrong bytes|clean end/)
  } finally {
    SimulatedTcp.prototype.write = write
  }
})

test('a network that never heals leaves streams that are reported', async () => {
  const world = await World.make(calm(2), crypto)
  world.network.send = () => {}
  const { violations } = await world.run()
  assert.match(violations[0] ?? '', /stuck/)
})

test('a path that was down for an hour carries new streams when it is back, in every role', async () => {
  for (const topology of TOPOLOGIES) {
    const outage = { kind: 'partition', at: 5000, duration: HOUR_MS, end: 'client', size: 0.5 } as const
    assert.equal(await run({ ...drawScenario(seedOf(topology)), faults: [outage] }), [], topology)
  }
})

const library = Channel.prototype

/** Runs a world of the library while a method of its channels is broken. @returns the first violation */
async function brokenBy<Name extends 'write' | 'onAnswered' | 'end' | 'reset'>(
  name: Name,
  broken: (original: Channel[Name]) => (this: Channel, ...words: Parameters<Channel[Name]>) => unknown,
  scenario = calmLibrary(),
): Promise<string> {
  const original = library[name]
  Object.assign(library, { [name]: broken(original) })
  try {
    const [first = 'nothing'] = await run(scenario)
    return first
  } finally {
    Object.assign(library, { [name]: original })
  }
}

test('what is wrong with a stream of the library is seen', async () => {
  let calls = 0
  const wrong = await brokenBy('write', (write) => {
    return function (buffer, length) {
      if (++calls === 50) buffer[length - 1] = (buffer[length - 1] ?? 0) ^ 1
      return write.call(this, buffer, length)
    }
  })
  assert.match(wrong, /wrong bytes/)
  calls = 0
  const lost = await brokenBy('write', (write) => {
    return function (buffer, length) {
      return ++calls === 50 ? length : write.call(this, buffer, length)
    }
  })
  assert.match(lost, /wrong bytes|clean end/)
  const silent = await brokenBy('onAnswered', () => () => {})
  assert.match(silent, /stuck|still to come|not completed/)
  const endless = await brokenBy('end', () => () => {})
  assert.match(endless, /stuck/)
})

test('a stream of the library that is cut, and ends cleanly, is seen', async () => {
  const crash = { kind: 'crash', at: 3000, duration: 4000, end: 'server', size: 0.5 } as const
  const cut = await brokenBy(
    'reset',
    () =>
      function () {
        this.end()
      },
    { ...calmLibrary(), faults: [crash] },
  )
  assert.match(cut, /a clean end after|closed without/)
})

test('a rejection that nobody handles is a violation', async () => {
  const world = await World.make(calmLibrary(), crypto)
  world.loop.at(100, () => void Promise.reject(new Error('nobody handles it')))
  assert.match((await world.run()).violations[0] ?? '', /uncaught: Error: nobody handles it/)
})

test('an answer to a forged datagram is reported', async () => {
  const world = await World.make(calm(3), crypto)
  const [forger] = world.network.outsiders.values()
  const address = { family: 4, address: '198.51.100.1', port: 4000, scope: 0 } as const
  world.loop.at(100, () => forger?.({ from: address, to: address, bytes: new Uint8Array(9) }))
  const { violations } = await world.run()
  assert.match(violations[0] ?? '', 'a forged datagram was answered')
})

test('every key of the configuration is reloaded with some value, or cannot be', () => {
  assert.equal(missingKeys(), [])
})

test('what no seed reached is named', () => {
  const coverage = new Coverage()
  const all = coverage.missing().length
  coverage.add({ topology: 'pair', kinds: ['loss', 'crash'], reloaded: ['linger'], states: ['linger'], acts: ['open'] })
  assert.is(coverage.missing().length, all - 7)
  assert.ok(coverage.missing().includes('faults crash and trap'))
})

test('a failing scenario loses what its failure does not need', async () => {
  const scenario = drawScenario(15)
  const [wanted] = scenario.faults
  const small = await shrink(scenario, async ({ faults, streams }) => {
    return faults.some(({ kind }) => kind === wanted?.kind) && streams.length >= 2
  })
  assert.equal(
    small.faults.map(({ kind }) => kind),
    [wanted?.kind],
  )
  assert.is(small.streams.length, 2)
})

test.run()
