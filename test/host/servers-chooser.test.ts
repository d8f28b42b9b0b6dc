/** Which of several servers gets a new session, in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Strategy } from '../../host/config/config.ts'
import { Chooser } from '../../host/servers/chooser.ts'
import { ServerHealth, WELL_MS } from '../../host/servers/health.ts'

const test = suite('choice of a server')

/** Servers `a`, `b`, ... that are up from time 0 on. */
class Scene {
  now = 0
  readonly servers: readonly { readonly name: string; readonly health: ServerHealth }[]
  readonly chooser: Chooser<{ readonly name: string; readonly health: ServerHealth }>

  constructor(names: string, strategy: Strategy) {
    this.servers = [...names].map((name) => ({ name, health: new ServerHealth(0) }))
    this.chooser = new Chooser(strategy)
    for (const { health } of this.servers) health.set('up', 0)
  }

  set(name: string, state: 'up' | 'down'): void {
    this.servers.find((server) => server.name === name)?.health.set(state, this.now)
  }

  rtt(name: string, ms: number): void {
    for (let i = 0; i < 4; i++) this.servers.find((server) => server.name === name)?.health.sample(ms)
  }

  /** What new sessions get, one after the other. */
  get(count = 1): string {
    return Array.from({ length: count }, () => this.chooser.choose(this.servers, this.now)?.name).join('')
  }
}

test('failover returns to the first server only after it was well for some time', () => {
  const scene = new Scene('ab', 'failover')
  assert.is(scene.get(), 'a')
  scene.set('a', 'down')
  assert.is(scene.get(), 'b')
  for (let i = 0; i < 5; i++) {
    scene.now += WELL_MS - 1
    scene.set('a', i % 2 === 0 ? 'up' : 'down')
    assert.is(scene.get(), 'b', 'a server that comes and goes')
  }
  scene.now += WELL_MS
  assert.is(scene.get(), 'a')
})

test('failover takes a server that has just come back if no other one answers', () => {
  const scene = new Scene('ab', 'failover')
  scene.set('a', 'down')
  scene.set('b', 'down')
  scene.now = 1000
  scene.set('b', 'up')
  assert.is(scene.get(), 'b')
})

test('round_robin takes each in turn and skips those that are down', () => {
  const scene = new Scene('abc', 'round_robin')
  assert.is(scene.get(4), 'abca')
  scene.set('b', 'down')
  assert.is(scene.get(4), 'caca')
  scene.set('b', 'up')
  assert.is(scene.get(2), 'ca')
  scene.now += WELL_MS
  assert.is(scene.get(3), 'bca')
})

test('least_rtt changes only for a clear advantage that lasts', () => {
  const scene = new Scene('ab', 'least_rtt')
  scene.rtt('a', 50)
  scene.rtt('b', 60)
  assert.is(scene.get(), 'a')
  scene.rtt('b', 45)
  for (let i = 0; i < 60; i++, scene.now += 1000) assert.is(scene.get(), 'a', 'a tenth is not clear')
  scene.rtt('b', 20)
  assert.is(scene.get(), 'a')
  scene.now += 10_000
  scene.rtt('b', 60)
  assert.is(scene.get(), 'a', 'it did not last')
  scene.rtt('b', 20)
  for (let i = 0; i < 15; i++, scene.now += 1000) assert.is(scene.get(), 'a')
  assert.is(scene.get(), 'b')
  scene.set('b', 'down')
  assert.is(scene.get(), 'a', 'at once if it does not answer')
})

test('without any answer the first server is used', () => {
  for (const strategy of ['failover', 'least_rtt', 'round_robin'] as const) {
    const scene = new Scene('ab', strategy)
    for (const name of 'ab') scene.set(name, 'down')
    assert.is(scene.get(), 'a')
  }
})

test.run()
