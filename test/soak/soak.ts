/**
 * A soak: a client and a server process of one runtime carry short and long connections over a bad link, with reloads and
 * outages, and must have nothing left of it afterwards.
 */
import { randomNumbers } from '../../testkit/link.ts'
import { type Config, freePort, type Program, type Running } from '../../testkit/process.ts'
import { type Tunnel, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { type Application, applications, held, longStream, type Outcome } from './application.ts'
import { differences, type Figures, growth, isLevel, measure, thirds } from './figures.ts'
import { openTarget } from './target.ts'

const LINK = { delay: 5, jitter: 3, loss: 0.015 }
const CONFIG: Config = { loglevel: 4, timeout: 120, time_wait: 5, keepalive: 5 }
/** Changes of every second reload of both ends; the one between takes them back. `udp` opens another socket. */
const CHANGE: Config = {
  loglevel: 5,
  timeout: 100,
  keepalive: 4,
  kcp: { mtu: 1200 },
  udp: { sndbuf: 262144 },
}
const LONG_STREAMS = 4
const OUTAGE_MS = 2000
/** The share of the time that outages take at most. */
const OUTAGE_SHARE = 1 / 8
/** With as many connections open as come in this time, no more are opened: a busy machine carries less, nothing piles up. */
const PILE_SECONDS = 4
/** Outages of the warm-up are longer: memory of the engine, which never shrinks, gets its final size. */
const WARM_UP_FACTOR = 2
/** For so long the server dials a port where nothing listens. */
const REFUSED_MS = 1000
/** A connection dials its target at most so late after it was opened. */
const LATE_DIAL_MS = 15_000
const DRAIN_MS = 120_000
const WARM_UP_SECONDS = 70
/** The warm-up opens as many connections at once as the load does in this time, some at a time. */
const BURST_SECONDS = 30
const BURST_STEP = 20
const BURST_STEP_MS = 20
const RELOAD_MS = 30_000
/** Characters by which the end of a log is found again. */
const LOG_TAIL = 300
/** Lines of each log shown with a connection that failed; those of sessions that opened and closed are left out. */
const LOG_LINES = 12
const ORDINARY = /session (opened|closed)$/
/** Figures that do not change for so long are final: a closed TCP connection is kept for 5 s. */
const SETTLED_MS = 7000

export interface SoakOptions {
  readonly runtime: Program
  readonly seed: number
  readonly seconds: number
  /** New connections per second. */
  readonly rate: number
  readonly sampleMs: number
  /** Time between reloads; outages come between them. */
  readonly reloadSeconds: number
  /** Of both ends: every session stays for so long after its end. */
  readonly lingerSeconds: number
  /** Longest pause of an idle connection, and longest duration of a long stream. */
  readonly idleSeconds: number
  readonly longSeconds: number
  report?(line: string): void
  /** Called with the process ids once both serve. */
  started?(pids: Readonly<Record<End, number>>): void
}

const ENDS = ['client', 'server'] as const
export type End = (typeof ENDS)[number]

/** What became of one end. */
export interface EndResult {
  readonly base: Figures
  readonly drained: Figures
  readonly samples: readonly Figures[]
  /** Median RSS of each third, KiB. */
  readonly thirds: readonly [number, number, number]
  /** From the middle third to the last one, as a share. */
  readonly growth: number
}

export interface SoakResult {
  readonly connections: Readonly<{ opened: number; complete: number; refused: number }>
  readonly reloads: number
  readonly ends: Readonly<Record<End, EndResult>>
  /** What is not as it must be; about RSS apart. */
  readonly problems: readonly string[]
  readonly rssProblems: readonly string[]
}

const telling = (log: string): string[] =>
  log
    .trimEnd()
    .split('\n')
    .filter((line) => !ORDINARY.test(line))

const ageOf = (since: number): string => ((performance.now() - since) / 1000).toFixed(1)

/** The load on one tunnel. */
class Load {
  readonly counts = { opened: 0, complete: 0, refused: 0 }
  readonly problems: string[] = []
  reloads = 0
  outageMs: number
  #running = 0
  #refusedFrom = Number.POSITIVE_INFINITY
  #refusedTo = Number.NEGATIVE_INFINITY
  #isChanged = false
  readonly #tunnel: Tunnel
  readonly #options: SoakOptions
  readonly #draw: () => number
  readonly #deadPort: number

  constructor(tunnel: Tunnel, options: SoakOptions, deadPort: number) {
    this.#tunnel = tunnel
    this.#options = options
    this.outageMs = Math.min(OUTAGE_MS, options.reloadSeconds * 1000 * OUTAGE_SHARE)
    this.#draw = randomNumbers(options.seed)
    this.#deadPort = deadPort
  }

  /** Runs the whole mixture for so many seconds, and then waits until all connections are over. */
  async run(seconds: number): Promise<void> {
    const { rate, idleSeconds, longSeconds, reloadSeconds } = this.#options
    const kinds = applications(idleSeconds)
    const long = longStream(longSeconds)
    const start = performance.now()
    const passed = (): number => (performance.now() - start) / 1000
    let opened = 0
    let disturbances = 0
    let disturbance: Promise<void> = Promise.resolve()
    const longRunning = { count: 0 }
    while (passed() < seconds) {
      for (; opened < passed() * rate; opened++) {
        const [name, application] = this.#choose(kinds)
        if (this.#running < rate * PILE_SECONDS) void this.#open(name, application)
      }
      while (longRunning.count < LONG_STREAMS) {
        longRunning.count++
        void this.#open('long stream', long).finally(() => longRunning.count--)
      }
      if (passed() > ((disturbances + 1) * reloadSeconds) / 2) {
        const turn = disturbances++
        disturbance = disturbance.then(() => (turn % 2 === 0 ? this.#outage(turn) : this.#reload()))
      }
      await sleep(20)
    }
    await disturbance
    if (this.#isChanged) await this.#reload()
    await waitFor(
      'all connections are over',
      () => this.#running === 0,
      DRAIN_MS + 1000 * (idleSeconds + longSeconds),
      () => `${this.#running} are not`,
    )
  }

  #choose(kinds: ReturnType<typeof applications>): readonly [string, Application] {
    let left = this.#draw()
    for (const [name, share, application] of kinds) {
      left -= share
      if (left < 0) return [name, application]
    }
    throw new Error('the shares of the applications are less than 1')
  }

  /** Far more connections at once than the load has: the tables of the engine, which never shrink, get their final size. */
  async burst(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      void this.#open('burst', held)
      if (i % BURST_STEP === 0) await sleep(BURST_STEP_MS)
    }
    await waitFor('the burst is over', () => this.#running === 0, DRAIN_MS)
  }

  async #open(name: string, application: Application): Promise<void> {
    this.#running++
    const seed = ++this.counts['opened']
    const openedAt = performance.now()
    const outcome: Outcome = await application(this.#tunnel.port, seed, this.#draw)
    this.#running--
    const mayBeRefused = openedAt > this.#refusedFrom - LATE_DIAL_MS && openedAt < this.#refusedTo
    if (outcome === 'complete') this.counts['complete']++
    else if (outcome === 'broken' && mayBeRefused) this.counts['refused']++
    else this.problems.push(`connection ${seed} (${name}), open for ${ageOf(openedAt)} s: ${outcome}\n${this.#logs()}`)
  }

  #logs(): string {
    return ENDS.map((end) => `  ${end}: ${telling(this.#tunnel[end].log()).slice(-LOG_LINES).join('\n    ')}`).join(
      '\n',
    )
  }

  async #outage(turn: number): Promise<void> {
    const { link } = this.#tunnel
    if (turn % 8 === 0) link.rebind()
    link.blackhole()
    await sleep(this.outageMs)
    link.heal()
  }

  /** Reloads both ends: first with a target that refuses, then with the right one. */
  async #reload(): Promise<void> {
    this.#isChanged = !this.#isChanged
    const linger = Math.round((5 / 6) * this.#options.lingerSeconds)
    const change = this.#isChanged ? { ...CHANGE, linger } : {}
    const { server, client } = this.#tunnel
    this.#refusedFrom = performance.now()
    this.#refusedTo = Number.POSITIVE_INFINITY
    await this.#reloadOne(server, { ...change, connect: `127.0.0.1:${this.#deadPort}` })
    await sleep(REFUSED_MS)
    await this.#reloadOne(server, change)
    this.#refusedTo = performance.now()
    await this.#reloadOne(client, change)
    this.reloads++
  }

  async #reloadOne(end: Running, change: Config): Promise<void> {
    // the log keeps its end only, so lines cannot be counted
    const tail = end.log().slice(-LOG_TAIL)
    const since = (): string => end.log().slice(end.log().lastIndexOf(tail) + tail.length)
    end.reload(change)
    await waitFor('a reload is done', () => since().includes('config successfully reloaded'), RELOAD_MS, since)
  }
}

/** Figures of an end once nothing is left of the load: unchanged for a while, or like `base`, or after the time for that. */
async function drained(end: Running, since: number, base?: Figures): Promise<Figures> {
  const begin = performance.now()
  let figures = await measure(end, since)
  let changedAt = begin
  const isOver = (): boolean =>
    base === undefined
      ? figures.sessions === 0 && performance.now() - changedAt > SETTLED_MS
      : differences(base, figures).length === 0
  while (!isOver() && performance.now() - begin < DRAIN_MS) {
    await sleep(500)
    const before = figures
    figures = await measure(end, since)
    if (differences(before, figures).length > 0) changedAt = performance.now()
  }
  return figures
}

function both<T>(of: (end: End) => Promise<T>): Promise<Record<End, T>> {
  return Promise.all(ENDS.map(of)).then(([client, server]) => ({ client, server }) as Record<End, T>)
}

/** Samples both ends until `stop`. */
async function sample(tunnel: Tunnel, options: SoakOptions, since: number, stop: AbortSignal, load: Load) {
  const samples: Record<End, Figures[]> = { client: [], server: [] }
  let reported = 0
  while (!stop.aborted) {
    const next = sleep(options.sampleMs)
    for (const end of ENDS) {
      // an end may be too busy to answer in time
      const figures = await measure(tunnel[end], since).catch(() => undefined)
      if (figures !== undefined) samples[end].push(figures)
    }
    const seconds = (performance.now() - since) / 1000
    if (seconds - reported >= 60) {
      reported = seconds
      const text = ENDS.map((end) => `${end} ${describe(samples[end].at(-1))}`)
      options.report?.(
        `${options.runtime} ${Math.round(seconds)} s, ${load.counts['opened']} connections; ${text.join('; ')}`,
      )
    }
    await next
  }
  return samples
}

const describe = (figures: Figures | undefined): string =>
  figures === undefined
    ? '?'
    : `RSS ${mebi(figures.rssKiB)} MiB, ${figures.descriptors} descriptors, engine ${Math.round(figures.memory / 1024)} KiB, ${figures.sessions} sessions, CPU ${(figures.cpuMs / 1000).toFixed(0)} s`

const mebi = (kibi: number): string => (kibi / 1024).toFixed(1)

/** Runs a soak. Rejects if an endpoint ended by itself or the load did not come to its end. */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const target = await openTarget()
  const deadPort = await freePort()
  const { runtime, seed, seconds, rate, idleSeconds, lingerSeconds } = options
  const pair = { server: runtime, client: runtime }
  const config = { ...CONFIG, linger: lingerSeconds }
  let result: SoakResult | undefined
  try {
    await withTunnel({ ...pair, target: target.address, link: { ...LINK, seed }, config }, async (tunnel) => {
      options.started?.({ client: tunnel.client.pid, server: tunnel.server.pid })
      const shorter = { longSeconds: Math.min(options.longSeconds, 20), idleSeconds: Math.min(idleSeconds, 10) }
      const warmUp = new Load(tunnel, { ...options, ...shorter }, deadPort)
      await warmUp.burst(rate * BURST_SECONDS)
      warmUp.outageMs *= WARM_UP_FACTOR
      await warmUp.run(Math.min(2 * options.reloadSeconds + 1, seconds, WARM_UP_SECONDS))
      const base = await both((end) => drained(tunnel[end], performance.now()))
      options.report?.(`${runtime} base: ${ENDS.map((end) => `${end} ${describe(base[end])}`).join('; ')}`)

      const load = new Load(tunnel, options, deadPort)
      const since = performance.now()
      const stop = new AbortController()
      const sampling = sample(tunnel, options, since, stop.signal, load)
      try {
        await load.run(seconds)
      } finally {
        stop.abort()
      }
      const samples = await sampling
      const after = await both((end) => drained(tunnel[end], since, base[end]))
      options.report?.(`${runtime} drained: ${ENDS.map((end) => `${end} ${describe(after[end])}`).join('; ')}`)
      const ends = {} as Record<End, EndResult>
      const problems = [...warmUp.problems, ...load.problems]
      const rssProblems: string[] = []
      for (const end of ENDS) {
        const share = growth(samples[end], seconds)
        ends[end] = {
          base: base[end],
          drained: after[end],
          samples: samples[end],
          thirds: thirds(samples[end], seconds),
          growth: share,
        }
        const name = `${runtime} ${end}`
        problems.push(...differences(base[end], after[end]).map((text) => `${name}: ${text}`))
        if (!isLevel(share)) rssProblems.push(`${name}: RSS changed by ${(100 * share).toFixed(1)} % in the last third`)
      }
      if (target.open > 0) problems.push(`${target.open} connections of the target are open`)
      result = { connections: load.counts, reloads: load.reloads, ends, problems, rssProblems }
    })
  } finally {
    await target.close()
  }
  if (result === undefined) throw new Error('the soak has no result')
  return result
}
