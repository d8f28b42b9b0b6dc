/** Probing from a second socket while the peer is silent, in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Log } from '../../host/log/log.ts'
import { PortProbe, type PortProbeHost } from '../../host/transport/port-probe.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const test = suite('port probe')

/** Round trip to the peer, ms. */
const RTT_MS = 50

class Scene implements PortProbeHost {
  readonly clock = new VirtualClock()
  readonly probe = new PortProbe(this, this.clock, new Log(() => {}))
  silent = true
  /** Whether the peer answers at the socket in use, and at a new port. */
  oldAnswers = false
  newAnswers = true
  /** Whether the configuration sets the port. */
  fixed = false
  opened = 0
  isOpen = false
  pings = 0
  count = 1
  /** Addresses that were tried. */
  readonly tried: number[] = []
  moves = 0

  isPeerSilent = (): boolean => this.silent
  inTurn = (action: () => Promise<void>): Promise<void> => action()
  addresses = (): number => this.count
  async openProbe(address: number): Promise<void> {
    this.tried.push(address)
    this.opened++
    this.isOpen = true
  }
  closeProbe(): void {
    this.isOpen = false
  }
  pingBoth(): void {
    this.pings++
    const { opened } = this
    this.clock.setTimer(() => {
      if (this.oldAnswers) this.silent = false
      if (this.newAnswers && this.isOpen && opened === this.opened) this.probe.onAnswer()
    }, RTT_MS)
  }
  async moveToProbe(): Promise<boolean> {
    this.moves++
    if (!this.fixed) this.silent = false
    return !this.fixed
  }

  /** What the path monitor does while the peer is silent. */
  async silence(ms: number): Promise<void> {
    for (const end = this.clock.monotonic() + ms; this.clock.monotonic() < end; ) {
      if (this.silent) this.probe.onSilence()
      await this.clock.advance(2000)
    }
  }
}

test('a peer that answers at a new port only: the endpoint moves there after several answers, once', async () => {
  const scene = new Scene()
  await scene.silence(60_000)
  assert.is(scene.moves, 1)
  assert.is(scene.opened, 1)
  assert.ok(scene.pings >= 3, 'one answer is not enough')
  assert.is(scene.clock.armed, 0, 'nothing is left to do')
})

test('a peer that answers at neither port: no move, a new port for each attempt, with growing pauses', async () => {
  const scene = new Scene()
  scene.newAnswers = false
  await scene.silence(600_000)
  assert.is(scene.moves, 0)
  assert.is(scene.opened, scene.pings)
  assert.ok(scene.opened > 10 && scene.opened < 30, `${scene.opened} ports in ten minutes`)
})

test('when both ports answer again after an outage, the old one stays', async () => {
  const scene = new Scene()
  scene.newAnswers = false
  await scene.silence(30_000)
  scene.oldAnswers = true
  scene.newAnswers = true
  await scene.silence(90_000)
  assert.is(scene.moves, 0)
  assert.not.ok(scene.isOpen)
  assert.is(scene.clock.armed, 0)
})

test('an old port that answers between two answers at the new one stays', async () => {
  const scene = new Scene()
  const { pingBoth } = scene
  scene.pingBoth = () => {
    pingBoth.call(scene)
    if (scene.pings === 3) scene.oldAnswers = true
  }
  await scene.silence(60_000)
  assert.is(scene.moves, 0)
  assert.not.ok(scene.isOpen)
})

test('answers that are not in a row do not suffice', async () => {
  const scene = new Scene()
  const { pingBoth } = scene
  scene.pingBoth = () => {
    scene.newAnswers = scene.pings % 3 !== 2
    pingBoth.call(scene)
  }
  await scene.silence(120_000)
  assert.is(scene.moves, 0)
})

test('a port that the configuration sets is kept, and is not probed again', async () => {
  const scene = new Scene()
  scene.fixed = true
  await scene.silence(120_000)
  assert.is(scene.moves, 1)
  assert.is(scene.opened, 1)
  scene.probe.reset()
  await scene.silence(60_000)
  assert.is(scene.moves, 2, 'another socket is probed')
})

test('of several addresses one after the other is tried, and the first one that answers is used', async () => {
  const scene = new Scene()
  scene.count = 3
  const { openProbe } = scene
  scene.openProbe = async (address) => {
    scene.newAnswers = address === 2
    await openProbe.call(scene, address)
  }
  await scene.silence(60_000)
  assert.equal(scene.tried, [0, 1, 2])
  assert.is(scene.moves, 1)
})

test('a port that must be kept does not prevent a move to another address', async () => {
  const scene = new Scene()
  scene.fixed = true
  scene.count = 2
  const { moveToProbe } = scene
  scene.moveToProbe = () => {
    scene.fixed = scene.tried.at(-1) === 0
    return moveToProbe.call(scene)
  }
  await scene.silence(60_000)
  assert.equal(scene.tried, [0, 1])
  assert.is(scene.moves, 2)
})

test('a socket that cannot be opened is tried again', async () => {
  const scene = new Scene()
  const { openProbe } = scene
  let failures = 3
  scene.openProbe = async (address) => {
    if (failures-- > 0) throw new Error('too many open files')
    await openProbe.call(scene, address)
  }
  await scene.silence(60_000)
  assert.is(scene.moves, 1)
})

test('after close nothing happens', async () => {
  const scene = new Scene()
  scene.probe.onSilence()
  scene.probe.close()
  await scene.silence(60_000)
  assert.is(scene.opened, 0)
  assert.is(scene.clock.armed, 0)
})

test.run()
