/** Path checks, reopening of the socket, and the loop that resolves names again, in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemError } from '../../host/errors.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { type PathHost, PathMonitor } from '../../host/transport/path-monitor.ts'
import { ResolveLoop } from '../../host/transport/resolve-loop.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const test = suite('path monitor')

const address = (last: number): SocketAddress => ({ family: 4, address: `192.0.2.${last}`, port: 5000, scope: 0 })

/** A client's socket and its network. */
class Scene implements PathHost {
  readonly clock = new VirtualClock()
  readonly monitor = new PathMonitor(this, this.clock)
  /** The socket's address, and the source address that the system would choose now. */
  bound = address(1)
  route: SocketAddress | undefined = address(1)
  silent = false
  free = true
  connected = true
  /** Times of the events, ms. */
  readonly checks: number[] = []
  readonly reopened: number[] = []
  readonly routes: boolean[] = []
  failures = 0
  silences = 0
  /** Whether the socket keeps its address although the route has another one (netdev). */
  sticks = false

  local = (): SocketAddress => this.bound
  isLocalFree = (): boolean => this.free
  isConnected = (): boolean => this.connected
  isPeerSilent = (): boolean => this.silent
  inTurn = (action: () => Promise<void>): Promise<void> => action()
  async localTowardsPeer(): Promise<SocketAddress | undefined> {
    this.checks.push(this.clock.monotonic())
    return this.route
  }
  async reconnect(): Promise<SocketAddress> {
    this.reopened.push(this.clock.monotonic())
    if (this.route !== undefined && !this.sticks) this.bound = this.route
    this.monitor.onOpened()
    return this.bound
  }
  onSilence(): void {
    this.silences++
  }
  async onRoute(wasLost: boolean): Promise<void> {
    this.routes.push(wasLost)
  }
  onFailure(): void {
    this.failures++
  }
}

test('without events nothing is checked, and a check without findings is not repeated', async () => {
  const scene = new Scene()
  assert.is(scene.clock.armed, 0)
  scene.monitor.checkIn(0)
  await scene.clock.advance(60_000)
  assert.equal(scene.checks, [0])
  assert.equal(scene.reopened, [])
  assert.is(scene.clock.armed, 0)
})

test('a silent peer triggers a check every 2 s, and the socket moves as soon as the local address changes', async () => {
  const scene = new Scene()
  scene.silent = true
  scene.monitor.checkIn(0)
  await scene.clock.advance(5000)
  assert.equal(scene.checks, [0, 2000, 4000])
  scene.route = address(2)
  await scene.clock.advance(2000)
  assert.equal(scene.reopened, [6000])
  scene.silent = false
  await scene.clock.advance(60_000)
  assert.is(scene.clock.armed, 0)
  assert.is(scene.reopened.length, 1)
})

test('when a lost route is back, the socket is reopened even if the address is the same', async () => {
  const scene = new Scene()
  scene.route = undefined
  scene.monitor.onError(systemError('ENETUNREACH', 'network is unreachable'))
  await scene.clock.advance(7000)
  assert.equal(scene.checks, [200, 2200, 4200, 6200])
  assert.equal(scene.reopened, [])
  scene.route = address(1)
  await scene.clock.advance(2000)
  assert.equal(scene.reopened, [8200])
})

test('errors unrelated to the local side cause no check', async () => {
  const scene = new Scene()
  scene.monitor.onError(systemError('ECONNREFUSED', 'refused'))
  await scene.clock.advance(10_000)
  assert.equal(scene.checks, [])
})

test('the socket of a silent peer that reports errors is reopened after 10 s, then less often', async () => {
  const scene = new Scene()
  scene.silent = true
  for (let second = 0; second < 60; second++) {
    scene.monitor.onError(systemError('EHOSTUNREACH', 'no route'))
    await scene.clock.advance(1000)
  }
  const pauses = scene.reopened.map((at, i) => at - (scene.reopened[i - 1] ?? 0))
  assert.ok(pauses.length >= 2, scene.reopened.join())
  for (const [i, pause] of pauses.entries()) assert.ok(pause >= 10_000 * 2 ** i, 'a search for another port has time')
})

test('an address that reopening does not yield is not retried', async () => {
  const scene = new Scene()
  scene.silent = true
  scene.sticks = true
  scene.route = address(2)
  scene.monitor.checkIn(0)
  await scene.clock.advance(60_000)
  assert.equal(scene.reopened, [0])
})

test('an unconnected socket reports its route instead, and a closed monitor does nothing', async () => {
  const scene = new Scene()
  scene.connected = false
  scene.silent = true
  scene.monitor.checkIn(0)
  await scene.clock.advance(3000)
  assert.equal(scene.routes, [false, false])
  scene.monitor.close()
  // a timer would keep the process alive
  assert.is(scene.clock.armed, 0)
  await scene.clock.advance(60_000)
  assert.is(scene.routes.length, 2)
})

test('failed lookups are retried with backoff up to a minute and logged once; after a success they stop', async () => {
  const clock = new VirtualClock()
  const lines: string[] = []
  const log = new Log((_stream, text) => lines.push(text))
  let isFailing = true
  const looks: number[] = []
  const loop = new ResolveLoop(
    {
      isUnbound: () => false,
      isUnsettled: () => false,
      async resolve() {
        looks.push(clock.monotonic() / 1000)
        if (isFailing) throw new Error('no such host')
      },
      onEnded() {},
    },
    log,
    clock,
  )
  void loop.look()
  await clock.advance(200_000)
  assert.equal(looks, [0, 5, 15, 35, 75, 135, 195])
  assert.is(lines.filter((line) => line.includes('no such host')).length, 1)
  isFailing = false
  await clock.advance(60_000)
  assert.equal(looks.at(-1), 255)
  assert.is(lines.filter((line) => line.includes('addresses resolved again')).length, 1)
  assert.is(clock.armed, 0)
})

test('lookups requested during a lookup are merged into one', async () => {
  const clock = new VirtualClock()
  let looks = 0
  let finish = (): void => {}
  const loop = new ResolveLoop(
    {
      isUnbound: () => false,
      isUnsettled: () => false,
      resolve: () =>
        new Promise((resolve) => {
          looks++
          finish = resolve
        }),
      onEnded() {},
    },
    new Log(() => {}),
    clock,
  )
  void loop.look()
  await clock.settle()
  void loop.look()
  void loop.look()
  finish()
  await clock.settle()
  assert.is(looks, 2)
  finish()
  await clock.settle()
  assert.is(looks, 2)
})

test.run()
