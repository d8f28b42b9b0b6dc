/** The applications of a soak: what one connection through the tunnel does, and what has to come of it. */
import { connect, type Socket } from 'node:net'
import { sleep } from '../../testkit/wait.ts'
import { Content } from './content.ts'
import { header, pour, Service, type ServiceKind } from './target.ts'

/** Silence of a connection after which it counts as stuck: longer than every pause of an application and every outage. */
const STUCK_MS = 120_000
const LONG_STREAM_BYTES_PER_SECOND = 40_000
/** Of a download that is not read to its end. */
const ABORTED_BYTES = 1 << 18
const SLOW_READER_BYTES_PER_SECOND = 30_000
const HELD_MS = 3000
/** A paced stream sends this often. */
const PACE_MS = 100

/** How a connection ended: everything arrived, it broke off, or it has wrong bytes or stopped. */
export type Outcome = 'complete' | 'broken' | 'wrong' | 'stuck'

/** One connection to the client, of which `size` bytes of the content of `seed` are expected. */
class Connection {
  readonly socket: Socket
  readonly #content: Content
  readonly #size: number
  readonly #over: Promise<Outcome>
  readonly #progress: (() => void)[] = []

  constructor(port: number, seed: number, size: number, rate = 0) {
    const content = new Content(seed)
    this.#content = content
    this.#size = size
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    this.socket = socket
    this.#over = new Promise((resolve) => {
      const end = (outcome: Outcome): void => {
        resolve(outcome)
        for (const wake of this.#progress.splice(0)) wake()
      }
      socket.setTimeout(STUCK_MS, () => {
        end('stuck')
        socket.destroy()
      })
      socket.on('error', () => end('broken'))
      socket.on('close', () => end('broken'))
      socket.on('end', () => end(content.length === size ? 'complete' : 'broken'))
      socket.on('data', (chunk: Buffer) => {
        if (content.length + chunk.length > size || !content.continues(chunk)) end('wrong')
        for (const wake of this.#progress.splice(0)) wake()
        if (rate === 0) return
        socket.pause()
        setTimeout(() => socket.resume(), (1000 * chunk.length) / rate)
      })
    })
  }

  ask(service: ServiceKind, seed: number): void {
    this.socket.write(header(service, seed, this.#size))
  }

  /** Waits until so many bytes arrived, or none will any more. */
  async received(bytes: number): Promise<boolean> {
    while (this.#content.length < bytes && !this.socket.destroyed && !this.socket.readableEnded)
      await new Promise<void>((wake) => this.#progress.push(wake))
    return this.#content.length >= bytes
  }

  /** Ends the own direction and waits for the end of the other. */
  async finish(): Promise<Outcome> {
    this.socket.end()
    const outcome = await this.#over
    this.socket.destroy()
    return outcome
  }

  /** Resets; what came of it does not count, but wrong bytes do. */
  async abort(): Promise<Outcome> {
    this.socket.resetAndDestroy()
    const outcome = await this.#over
    return outcome === 'broken' ? 'complete' : outcome
  }
}

/** What an application does. @param draw uniform in [0, 1) */
export type Application = (port: number, seed: number, draw: () => number) => Promise<Outcome>

const between = (draw: () => number, least: number, most: number): number => Math.floor(least + draw() * (most - least))

const exchange: Application = async (port, seed, draw) => {
  const size = between(draw, 100, 6000)
  const app = new Connection(port, seed, size)
  app.ask(Service.ECHO, seed)
  pour(app.socket, seed, size, () => {})
  await app.received(size)
  return app.finish()
}

const halfClose: Application = (port, seed, draw) => {
  const app = new Connection(port, seed, between(draw, 1000, 150_000))
  app.ask(Service.ANSWER, seed)
  return app.finish()
}

const abortedByApplication: Application = async (port, seed) => {
  const app = new Connection(port, seed, ABORTED_BYTES)
  app.ask(Service.SOURCE, seed)
  await app.received(1)
  return app.abort()
}

const abortedByTarget: Application = async (port, seed) => {
  const app = new Connection(port, seed, ABORTED_BYTES)
  app.ask(Service.RESET, seed)
  await app.received(ABORTED_BYTES)
  return app.abort()
}

const silent: Application = (port, seed) => new Connection(port, seed, 0).finish()

const slowReader: Application = (port, seed) => {
  const app = new Connection(port, seed, 300_000, SLOW_READER_BYTES_PER_SECOND)
  app.ask(Service.SOURCE, seed)
  return app.finish()
}

/** Echoes parts with pauses between them. */
const paced =
  (partBytes: number, parts: (draw: () => number) => number, pause: (draw: () => number) => number): Application =>
  async (port, seed, draw) => {
    const count = parts(draw)
    const app = new Connection(port, seed, partBytes * count)
    const content = new Content(seed)
    app.ask(Service.ECHO, seed)
    for (let part = 1; part <= count && !app.socket.destroyed; part++) {
      while (content.length < part * partBytes) app.socket.write(content.next(part * partBytes - content.length))
      await sleep(pause(draw))
      if (!(await app.received(part * partBytes))) break
    }
    return app.finish()
  }

/** Idle for a while between two bytes. @param most longest pause, in s */
const idle = (most: number): Application =>
  paced(
    1,
    () => 2,
    (draw) => between(draw, 1000, most * 1000),
  )

/** Stays open for several seconds. */
export const held: Application = paced(
  1,
  () => 2,
  () => HELD_MS,
)

/** Carries data both ways for a long time. @param most longest duration, in s */
export const longStream = (most: number): Application =>
  paced(
    (LONG_STREAM_BYTES_PER_SECOND * PACE_MS) / 1000,
    (draw) => between(draw, (most * 250) / PACE_MS, (most * 1000) / PACE_MS),
    () => PACE_MS,
  )

/** Applications and the share of each among the connections. @param most longest pause of an idle one, in s */
export const applications = (most: number): readonly (readonly [name: string, share: number, Application])[] => [
  ['exchange', 0.6, exchange],
  ['half-close', 0.15, halfClose],
  ['aborted by the application', 0.08, abortedByApplication],
  ['aborted by the target', 0.07, abortedByTarget],
  ['silent', 0.03, silent],
  ['idle', 0.05, idle(most)],
  ['slow reader', 0.02, slowReader],
]
