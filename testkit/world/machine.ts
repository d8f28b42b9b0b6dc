/** A machine of a simulated world and its processes: addresses, clocks, suspension. */
import type { Clock, Timer } from '../../host/runtime.ts'
import type { EventLoop, WorldEvent } from './event-loop.ts'

/** Wall clock at the start of a world, ms since 1970. */
const EPOCH = 1_790_000_000_000

export class Machine {
  readonly name: string
  readonly loop: EventLoop
  /** The IPv4 address; empty: the interface is down. */
  address: string
  /** Monotonic clock at the start of the world, ms. */
  readonly monotonicStart: number
  /** Total steps of the wall clock, ms. */
  wallJump = 0
  /** The machine is suspended until this time. */
  frozenUntil = 0

  constructor(loop: EventLoop, name: string, address: string, monotonicStart: number) {
    this.loop = loop
    this.name = name
    this.address = address
    this.monotonicStart = monotonicStart
  }
}

/** Reports a violated invariant or an uncaught exception. */
export type Violation = (text: string) => void

/** One run of a program. Callbacks do not run after its end. */
export class Process {
  readonly machine: Machine
  readonly name: string
  isOver = false
  readonly clock: Clock
  readonly #report: Violation
  readonly #onEnd: (() => void)[] = []

  constructor(machine: Machine, name: string, report: Violation) {
    this.machine = machine
    this.name = name
    this.#report = report
    const { loop } = machine
    const later = (ms: number, run: () => void): Timer => this.at(loop.now + ms, run)
    const cancel = (timer: Timer | undefined): void => loop.cancel(timer as WorldEvent | undefined)
    this.clock = {
      monotonic: () => machine.monotonicStart + loop.now,
      wall: () => EPOCH + loop.now + machine.wallJump,
      setTimer: (callback, ms) => later(Math.max(1, ms), callback),
      clearTimer: cancel,
      defer: (callback) => later(0, callback),
      clearDeferred: cancel,
    }
  }

  /** Schedules a callback of this process. */
  at(due: number, run: () => void): WorldEvent {
    const { loop } = this.machine
    const event: WorldEvent = loop.at(due, () => this.#attempt(event, run))
    return event
  }

  #attempt(event: WorldEvent, run: () => void): void {
    const { loop, frozenUntil } = this.machine
    if (this.isOver || event.isCancelled) return
    if (frozenUntil > loop.now) loop.at(frozenUntil, () => this.#attempt(event, run))
    else this.call(run)
  }

  /** Calls into the program and reports exceptions as violations. */
  call(run: () => void): void {
    if (this.isOver) return
    try {
      run()
    } catch (error) {
      // `exit` throws so as not to return
      if (this.isOver) return
      this.#report(`${this.name} threw: ${error instanceof Error ? error.stack : error}`)
    }
  }

  onEnd(run: () => void): void {
    this.#onEnd.push(run)
  }

  /** Ends the process as SIGKILL does. */
  end(): void {
    if (this.isOver) return
    this.isOver = true
    for (const run of this.#onEnd.splice(0)) run()
  }
}
