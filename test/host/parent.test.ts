/** The end of the process that started this one: reported by its descriptor, or polled. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NotAvailable } from '../../host/errors.ts'
import type { Libc, OperatingSystem } from '../../host/runtime.ts'
import { type ParentWatch, watchParent } from '../../host/service/parent.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const test = suite('parent')

const PARENT = 4711
const PIDFD = 7

/** A system with a parent that a test ends. */
class Scene {
  parent = PARENT
  isAlive = true
  readonly clock = new VirtualClock()
  readonly open = new Set<number>()
  ends = 0
  readonly watch: ParentWatch
  #onReadable: (() => void) | undefined

  /** @param pidfd what pidfd_open returns; undefined: there are no system calls */
  constructor(pidfd: number | undefined, before: (scene: Scene) => void = () => {}) {
    const calls: Partial<Libc> = {
      pidfd_open: (pid, flags) => {
        assert.equal([pid, flags], [PARENT, 0])
        if (pidfd !== undefined && pidfd >= 0) this.open.add(pidfd)
        return pidfd ?? -1
      },
      close: (fd) => (this.open.delete(fd) ? 0 : -1),
      address: () => 0,
      errno: () => 38,
      errorName: () => 'ENOSYS',
    }
    const os: Pick<OperatingSystem, 'parentPid' | 'isAlive' | 'libc' | 'watch'> = {
      parentPid: () => this.parent,
      isAlive: () => this.isAlive,
      libc: () => {
        if (pidfd === undefined) throw new NotAvailable('not available: native is false')
        return calls as Libc
      },
      watch: (fd, onReadable) => {
        assert.is(fd, PIDFD)
        this.#onReadable = onReadable
        return { close: () => (this.#onReadable = undefined) }
      },
    }
    before(this)
    this.watch = watchParent(os, this.clock, PARENT, () => this.ends++)
  }

  report(): void {
    this.#onReadable?.()
  }
}

test('the descriptor of the parent reports its end once, without a timer', () => {
  const scene = new Scene(PIDFD)
  assert.is(scene.watch.polled, undefined)
  assert.is(scene.clock.armed, 0, 'nothing wakes an idle process up')
  scene.report()
  scene.report()
  assert.is(scene.ends, 1)
  assert.is(scene.open.size, 0)
})

test('a parent that ended before it is watched is noticed', async () => {
  const scene = new Scene(PIDFD, (before) => {
    before.parent = 1
  })
  assert.is(scene.ends, 0, 'not inside the call')
  await scene.clock.settle()
  assert.is(scene.ends, 1)
  assert.is(scene.open.size, 0)
})

for (const [name, pidfd, reason] of [
  ['without system calls', undefined, 'native is false'],
  ['where pidfd_open is refused', -1, 'pidfd_open ENOSYS'],
] as const) {
  for (const [how, end] of [
    ['another process took this one over', (scene: Scene) => (scene.parent = 1)],
    ['no process took this one over (Windows)', (scene: Scene) => (scene.isAlive = false)],
  ] as const) {
    test(`${name} the parent is looked at: ${how}`, async () => {
      const scene = new Scene(pidfd)
      assert.match(scene.watch.polled ?? '', reason)
      await scene.clock.advance(60_000)
      assert.is(scene.ends, 0)
      assert.is(scene.clock.armed, 1)
      end(scene)
      await scene.clock.advance(2000)
      assert.is(scene.ends, 1)
      await scene.clock.advance(60_000)
      assert.is(scene.ends, 1)
      assert.is(scene.clock.armed, 0)
    })
  }
}

test('a closed watch reports nothing and leaves nothing', async () => {
  const watched = new Scene(PIDFD)
  watched.watch.close()
  watched.report()
  assert.is(watched.open.size, 0)
  const polled = new Scene(undefined)
  polled.watch.close()
  polled.parent = 1
  await polled.clock.advance(10_000)
  assert.is(watched.ends + polled.ends, 0)
  assert.is(polled.clock.armed, 0)
})

test.run()
