/** The event loop of a simulated world: events in order of time, each followed by the microtasks it queued. */
import { promiseHooks } from 'node:v8'
import { type Due, DueHeap } from '../due-heap.ts'

/** A pending event. */
export class WorldEvent implements Due {
  readonly due: number
  readonly order: number
  run: () => void
  isCancelled = false

  constructor(due: number, order: number, run: () => void) {
    this.due = due
    this.order = order
    this.run = run
  }
}

/** One turn of the real event loop: runs all microtasks. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Notices whatever may leave a microtask behind: promises created or settled, `queueMicrotask` and `process.nextTick`. */
class MicrotaskWatch {
  isPending = true
  readonly #queue = globalThis.queueMicrotask
  readonly #nextTick = process.nextTick
  readonly #unhook: readonly ReturnType<typeof promiseHooks.onInit>[]

  constructor() {
    const note = (): void => {
      this.isPending = true
    }
    this.#unhook = [promiseHooks.onInit(note), promiseHooks.onSettled(note)]
    globalThis.queueMicrotask = (task) => {
      note()
      this.#queue(task)
    }
    // streams of node:stream
    process.nextTick = (...words) => {
      note()
      this.#nextTick.apply(process, words)
    }
  }

  stop(): void {
    globalThis.queueMicrotask = this.#queue
    process.nextTick = this.#nextTick
    for (const unhook of this.#unhook) unhook()
  }
}

export class EventLoop {
  /** ms since the start of the world. */
  now = 0
  /** Number of events so far. */
  count = 0
  readonly #heap = new DueHeap<WorldEvent>()
  #order = 0

  /** Schedules a callback at a time, in ms, at the earliest after the current event. */
  at(due: number, run: () => void): WorldEvent {
    const event = new WorldEvent(Math.max(due, this.now), this.#order++, run)
    this.#heap.push(event)
    return event
  }

  in(ms: number, run: () => void): WorldEvent {
    return this.at(this.now + ms, run)
  }

  cancel(event: WorldEvent | undefined): void {
    if (event !== undefined) event.isCancelled = true
  }

  /**
   * Runs events up to a time, or until `isDone`. A turn of the real event loop costs a system call; most events leave nothing
   * that needs one.
   * @param after called after each event
   */
  async runUntil(end: number, isDone: () => boolean, after: () => void): Promise<void> {
    const watch = new MicrotaskWatch()
    try {
      for (;;) {
        const event = this.#heap.first()
        if (event === undefined || event.due > end) break
        this.#heap.pop()
        if (event.isCancelled) continue
        this.now = event.due
        this.count++
        event.run()
        if (watch.isPending) {
          await turn()
          watch.isPending = false
        }
        after()
        if (isDone()) return
      }
      this.now = Math.max(this.now, end)
    } finally {
      watch.stop()
    }
  }
}
