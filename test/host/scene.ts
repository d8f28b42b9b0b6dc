import { Hono } from 'hono'
import * as assert from 'uvu/assert'
import type { Hello, Sample } from '../../host/dashboard/sample.ts'
import { NO_HOST_COUNTERS } from '../../host/driver/diagnostics.ts'
import { createHttpApp, type HttpApp } from '../../host/monitoring/app.ts'
import { SAMPLE_MS } from '../../host/monitoring/live.ts'
import type { HttpSource } from '../../host/monitoring/source.ts'
import { NO_COUNTERS, type SessionStats, type Snapshot } from '../../host/monitoring/stats.ts'
import { clock } from '../../runtime-shared/clock.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { NO_LIVE } from './live-source.ts'

export const TOKEN = 'correct-horse-battery'

/** Virtual time limit of a condition, ms. */
const LIMIT_MS = 120_000

/** An endpoint in virtual time whose counters are set by the test. */
export class Scene {
  readonly clock = new VirtualClock()
  snapshots = 0
  pings = 0
  cuts = 0
  holds = 0
  counters: Snapshot['counters'] = { ...NO_COUNTERS, last_received_age: Number.POSITIVE_INFINITY }
  sessions: SessionStats[] = []
  warnings: { at: number; level: number; text: string }[] = []
  token: string | undefined
  remote = '127.0.0.1'
  readonly app: HttpApp

  constructor(changes: Partial<HttpSource> = {}, live: Partial<HttpSource['live']> = {}) {
    const snapshot = (): Snapshot => {
      this.snapshots++
      const { at } = this
      return { at, uptime: at, cpu: 1, date: new Date(), counters: this.counters }
    }
    this.app = createHttpApp(
      {
        program: {
          name: 'NAME',
          version: '1.2.3',
          note: 'NOTE',
          runtime: 'node',
          runtimeVersion: '20',
          mode: 'client',
        },
        snapshot,
        sessions: () => [this.sessions],
        start: snapshot(),
        health: () => ({ client: true, pending: false, lastReceived: 0, silence: 79 }),
        hostCounters: () => NO_HOST_COUNTERS,
        listen: 'monitor.lan:8081',
        token: () => this.token,
        live: {
          ...NO_LIVE,
          clock: {
            monotonic: () => this.at,
            wall: () => this.clock.wall(),
            setTimer: (callback, ms) => this.clock.setTimer(callback, ms),
            clearTimer: (timer) => this.clock.clearTimer(timer),
            // requests yield to the event loop, not to virtual time
            defer: clock.defer,
            clearDeferred: clock.clearDeferred,
          },
          ping: () => this.pings++,
          warnings: () => ({ recent: this.warnings, remembered: this.warnings.length }),
          ...live,
        },
        ...changes,
      },
      Hono,
    )
    this.snapshots = 0
  }

  /** Monotonic time, ms. */
  get at(): number {
    return this.clock.monotonic()
  }

  /** Advances the time. Viewers read between samples. */
  async run(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= SAMPLE_MS) {
      await this.clock.advance(Math.min(left, SAMPLE_MS))
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  /** Advances the time until a condition holds. */
  async until(what: string, condition: () => boolean): Promise<void> {
    const limit = this.at + LIMIT_MS
    while (!condition()) {
      assert.ok(this.at < limit, `timeout: ${what}`)
      await this.run(SAMPLE_MS)
    }
  }

  async ask(target: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> {
    const request = new Request(`http://127.0.0.1:8081${target}`, { method, headers })
    const connection = { remote: this.remote, hold: () => this.holds++, cut: () => this.cuts++ }
    return this.app.fetch(request, { target, connection })
  }

  async watch(headers: Record<string, string> = {}): Promise<Watcher> {
    const response = await this.ask('/events', headers)
    assert.is(response.status, 200)
    return new Watcher(response)
  }
}

/** Reads a stream of events. */
export class Watcher {
  readonly response: Response
  ended = false
  hello: Hello | undefined
  samples: Sample[] = []
  crowded = false
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>

  constructor(response: Response) {
    this.response = response
    assert.ok(response.body)
    this.#reader = response.body.getReader()
  }

  /** Reads to the end, in the background. */
  read(): this {
    const decoder = new TextDecoder()
    let text = ''
    const loop = async (): Promise<void> => {
      for (;;) {
        const { value, done } = await this.#reader.read()
        if (done) break
        text += decoder.decode(value, { stream: true })
        const events = text.split('\n\n')
        text = events.pop() ?? ''
        for (const event of events) this.#take(event)
      }
    }
    loop()
      .catch(() => {})
      .finally(() => {
        this.ended = true
      })
    return this
  }

  #take(event: string): void {
    const [, name, data = ''] = /^event: (\w+)\ndata: (.*)$/.exec(event) ?? []
    if (name === 'hello') this.hello = JSON.parse(data)
    else if (name === 'sample') this.samples.push(JSON.parse(data))
    else if (name === 'crowded') this.crowded = true
    else throw new Error(event)
  }

  get last(): Sample | undefined {
    return this.samples.at(-1)
  }

  leave(): Promise<void> {
    return this.#reader.cancel()
  }
}
