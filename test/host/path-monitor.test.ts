/** When the path to a peer is checked and the socket opened again, and when names are resolved again, in virtual time. */
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

/** A client's socket, and the network that it is in. */
class Scene implements PathHost {
  readonly clock = new VirtualClock()
  readonly monitor = new PathMonitor(this, this.clock)
  /** Where the socket is bound, and what the system would take now. */
  bound = address(1)
  route: SocketAddress | undefined = address(1)
  silent = false
  free = true
  connected = true
  /** When what happened, ms. */
  readonly checks: number[] = []
  readonly reopened: number[] = []
  readonly routes: boolean[] = []
  failures = 0
  /** The socket gets another address than the route has (netdev). */
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
  async onRoute(wasLost: boolean): Promise<void> {
    this.routes.push(wasLost)
  }
  onFailure(): void {
    this.failures++
  }
}

test('nothing is checked while nothing happens, and a check that finds all well is the only one', async () => {
  const scene = new Scene()
  assert.is(scene.clock.armed, 0)
  scene.monitor.checkIn(0)
  await scene.clock.advance(60_000)
  assert.equal(scene.checks, [0])
  assert.equal(scene.reopened, [])
  assert.is(scene.clock.armed, 0)
})

test('a silent peer has the path checked every 2 s; the socket moves at once when the local address does', async () => {
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

test('a route that was lost has the socket opened again when it is back, though the address is the same', async () => {
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

test('errors that say nothing about the local side cause no check', async () => {
  const scene = new Scene()
  scene.monitor.onError(systemError('ECONNREFUSED', 'refused'))
  await scene.clock.advance(10_000)
  assert.equal(scene.checks, [])
})

test('a silent socket that reported errors is opened again at most every 10 s', async () => {
  const scene = new Scene()
  scene.silent = true
  for (let second = 0; second < 60; second++) {
    scene.monitor.onError(systemError('EHOSTUNREACH', 'no route'))
    await scene.clock.advance(1000)
  }
  assert.ok(scene.reopened.length >= 4 && scene.reopened.length <= 6, scene.reopened.join())
  for (const [i, at] of scene.reopened.entries()) assert.ok(i === 0 || at - (scene.reopened[i - 1] ?? 0) >= 10_000)
})

test('an address that the socket does not get though it was opened again is not tried for ever', async () => {
  const scene = new Scene()
  scene.silent = true
  scene.sticks = true
  scene.route = address(2)
  scene.monitor.checkIn(0)
  await scene.clock.advance(60_000)
  assert.equal(scene.reopened, [0])
})

test('an unconnected socket is announced with its route instead, and a closed monitor does nothing', async () => {
  const scene = new Scene()
  scene.connected = false
  scene.silent = true
  scene.monitor.checkIn(0)
  await scene.clock.advance(3000)
  assert.equal(scene.routes, [false, false])
  scene.monitor.close()
  await scene.clock.advance(60_000)
  assert.is(scene.routes.length, 2)
  assert.is(scene.clock.armed, 0)
})

test('a failing look is repeated with pauses that double up to a minute, and logged once; then all is quiet', async () => {
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

test('looks that are wanted during a look become one more look', async () => {
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
