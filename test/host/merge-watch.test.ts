/** Loss of merged datagrams is noticed, and a slow or bursty path is not taken for it; in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MergeWatch } from '../../host/linux/merge-watch.ts'

const test = suite('merge watch')

/** A path, and the kernel before the socket. */
class Scene {
  now = 0
  isMerging = true
  /** A burst that arrived before merging was switched on again waits in the socket. */
  isLeft = false
  lost = 0
  /** Times at which merging was switched off. */
  readonly trials: number[] = []
  readonly watch = new MergeWatch({
    now: () => this.now,
    setMerging: (isOn) => {
      this.isMerging = isOn
      this.isLeft = isOn
      if (!isOn) this.trials.push(this.now)
    },
    onLost: () => this.lost++,
  })

  /** One receive call: so many datagrams of one peer, or a merged message. */
  receive(datagrams: number, isMerged = false): void {
    if (isMerged) this.watch.message(this, 1200 * datagrams)
    else for (let i = 0; i < datagrams; i++) this.watch.message(this, 1200)
    this.watch.endCall()
  }

  /** For `ms`, `burst` datagrams at once every `everyMs`; merged ones are lost if `drops`. */
  run(ms: number, everyMs: number, burst: number, drops: boolean): void {
    for (const end = this.now + ms; this.now < end; this.now += everyMs) {
      if (this.isLeft) {
        this.isLeft = false
        this.receive(2 * burst)
      }
      if (burst === 1) this.receive(1)
      else if (!this.isMerging) this.receive(burst)
      else if (!drops) this.receive(burst, true)
      // one sent after a timeout
      else if (this.now % 200 === 0) this.receive(1)
    }
  }
}

test('merged datagrams that are lost are noticed within seconds, and merging stays off for an hour', () => {
  const scene = new Scene()
  scene.run(5000, 10, 8, true)
  assert.is(scene.lost, 1)
  assert.is(scene.isMerging, false)
  scene.run(3_590_000, 1000, 8, true)
  assert.is(scene.isMerging, false)
  scene.run(20_000, 1000, 8, false)
  assert.is(scene.isMerging, true, 'it is tried again')
  assert.is(scene.lost, 1)
})

test('a path without bursts is tried more and more rarely, and never given up', () => {
  const scene = new Scene()
  scene.run(3_600_000, 20, 1, false)
  assert.is(scene.lost, 0)
  assert.is(scene.isMerging, true)
  assert.ok(scene.trials.length >= 3 && scene.trials.length < 20, `${scene.trials.length} trials`)
})

test('merged datagrams that arrive prevent any trial', () => {
  const scene = new Scene()
  scene.run(600_000, 10, 8, false)
  assert.equal(scene.trials, [])
})

test('several datagrams at once without merging prevent any trial', () => {
  const scene = new Scene()
  for (; scene.now < 600_000; scene.now += 10) scene.receive(4)
  assert.equal(scene.trials, [])
})

test('single datagrams between merged ones prevent a trial, or end the suspicion of an earlier one', () => {
  const scene = new Scene()
  for (let i = 0; i < 600; i++) {
    scene.run(200, 50, 1, false)
    scene.run(200, 10, 8, false)
  }
  assert.equal(scene.trials, [])
  for (let i = 0; i < 20; i++) {
    scene.run(600, 100, 1, false)
    scene.run(3000, 10, 8, false)
  }
  assert.ok(scene.trials.length > 0)
  assert.is(scene.lost, 0)
})

test('a path that becomes fast during the trial is not given up', () => {
  const scene = new Scene()
  scene.run(700, 100, 1, false)
  assert.is(scene.isMerging, false, 'a trial runs')
  scene.run(5000, 10, 8, false)
  assert.is(scene.lost, 0)
  assert.is(scene.isMerging, true)
})

test.run()
