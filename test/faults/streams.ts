/**
 * Connections through a tunnel that carry a pattern of their own in each direction at once, and what must hold of each
 * however it ends: every byte that arrived is the next one of its pattern, and a clean end comes after all of them.
 */
import { createHash } from 'node:crypto'
import * as assert from 'uvu/assert'
import { type Ending, listen, Pattern, type Target, type TcpEnd } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'

/** The first bytes of an upload name its stream to the target. */
const NAME_BYTES = 4

/** How the two receivers of a stream ended. `far` is undefined if the target was never dialled. */
export interface Outcome {
  readonly near: Ending
  readonly far: Ending | undefined
  readonly isComplete: boolean
}

export interface Stream {
  readonly id: number
  readonly app: TcpEnd
  /** Bytes received so far at both ends. */
  received(): number
  /** Waits for the end at both sides and checks it. */
  outcome(limitMs: number): Promise<Outcome>
}

/** SHA-256 of the first `bytes` of what a stream sends in a direction. */
function expected(id: number, direction: 'up' | 'down', bytes: number): string {
  const hash = createHash('sha256')
  const pattern = new Pattern(2 * id + (direction === 'up' ? 0 : 1))
  let left = bytes
  if (direction === 'up') {
    hash.update(nameOf(id).subarray(0, Math.min(left, NAME_BYTES)))
    left -= Math.min(left, NAME_BYTES)
  }
  while (left > 0) {
    const part = pattern.next(left)
    hash.update(part)
    left -= part.length
  }
  return hash.digest('hex')
}

function nameOf(id: number): Buffer {
  const name = Buffer.alloc(NAME_BYTES)
  name.writeUInt32BE(id)
  return name
}

/** All streams of one tunnel, and their target. */
export class Streams {
  readonly target: Target
  readonly #far: Map<number, TcpEnd>
  readonly #sizes: Map<number, number>
  readonly #openEnded: Set<number>
  #last = 0

  private constructor(target: Target, far: Map<number, TcpEnd>, sizes: Map<number, number>, openEnded: Set<number>) {
    this.target = target
    this.#far = far
    this.#sizes = sizes
    this.#openEnded = openEnded
  }

  static async open(): Promise<Streams> {
    const far = new Map<number, TcpEnd>()
    const sizes = new Map<number, number>()
    const openEnded = new Set<number>()
    const target = await listen((end) => {
      const begin = (): void => {
        if (end.received < NAME_BYTES) return
        end.socket.off('data', begin)
        const id = end.bytes().readUInt32BE()
        const size = sizes.get(id) ?? 0
        // a server that was killed before its first ACK arrived leaves a client that knows of no dial: it asks again
        const earlier = far.get(id)
        assert.ok(earlier === undefined || earlier.ended, `stream ${id} was dialled twice`)
        far.set(id, end)
        void end.pour(size, 2 * id + 1).then((sent) => sent === size && !openEnded.has(id) && end.finish())
      }
      end.socket.on('data', begin)
    })
    return new Streams(target, far, sizes, openEnded)
  }

  /** Opens a stream of `size` bytes in each direction, each with a FIN behind them unless `isOpenEnded`. */
  async start(tunnel: { dial(): Promise<TcpEnd> }, size: number, isOpenEnded = false): Promise<Stream> {
    const id = ++this.#last
    this.#sizes.set(id, size)
    if (isOpenEnded) this.#openEnded.add(id)
    const app = await tunnel.dial()
    void app
      .send(nameOf(id))
      .then(() => app.pour(size, 2 * id))
      .then((sent) => sent === size && !isOpenEnded && app.finish())
      .catch(() => undefined)
    return {
      id,
      app,
      received: () => app.received + (this.#far.get(id)?.received ?? 0),
      outcome: (limitMs) => this.#outcome(id, app, size, limitMs),
    }
  }

  async #outcome(id: number, app: TcpEnd, size: number, limitMs: number): Promise<Outcome> {
    const near = await within(`stream ${id}: the end at the application`, limitMs, app.ending)
    const far = await within(
      `stream ${id}: the end at the target`,
      limitMs,
      this.#far.get(id)?.ending ?? Promise.resolve(undefined),
    )
    assert.is(near.sha256, expected(id, 'down', near.bytes), `stream ${id}: ${near.bytes} bytes at the application`)
    if (far !== undefined) {
      assert.is(far.sha256, expected(id, 'up', far.bytes), `stream ${id}: ${far.bytes} bytes at the target`)
    }
    const isNearWhole = near.kind === 'fin' && near.bytes === size
    const isFarWhole = far?.kind === 'fin' && far.bytes === size + NAME_BYTES
    return { near, far, isComplete: isNearWhole && isFarWhole }
  }

  /** A clean end that came before all bytes, as text; undefined if there is none. */
  static cleanCut({ near, far }: Outcome, size: number): string | undefined {
    if (near.kind === 'fin' && near.bytes !== size) return `FIN at the application after ${near.bytes} of ${size} bytes`
    const whole = size + NAME_BYTES
    if (far?.kind === 'fin' && far.bytes !== whole) return `FIN at the target after ${far.bytes} of ${whole} bytes`
    return undefined
  }

  /** A new stream arrives whole in both directions. Its end is ours, since kcptun-libev has no half-close. */
  async assertExchange(tunnel: { dial(): Promise<TcpEnd> }, size: number, limitMs: number): Promise<void> {
    const stream = await this.start(tunnel, size, true)
    const whole = 2 * size + NAME_BYTES
    await waitFor(
      `an exchange of ${size} bytes`,
      () => stream.received() >= whole || stream.app.ended,
      limitMs,
      () => `${stream.received()} of ${whole} bytes`,
    )
    stream.app.destroy()
    this.#far.get(stream.id)?.destroy()
    const outcome = await stream.outcome(limitMs)
    assert.equal([outcome.near.bytes, outcome.far?.bytes], [size, size + NAME_BYTES])
  }

  /** A new stream arrives whole and ends cleanly on both sides. */
  async assertCarries(tunnel: { dial(): Promise<TcpEnd> }, size: number, limitMs: number): Promise<void> {
    const stream = await this.start(tunnel, size)
    const outcome = await stream.outcome(limitMs)
    assert.ok(outcome.isComplete, `a new stream of ${size} bytes: ${JSON.stringify(outcome)}`)
  }
}
