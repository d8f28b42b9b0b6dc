/** Rate limits of clients and servers of the library. */
import { createClient, type DuplexStream } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { errorOf, pause, psk, soon, until, withPair } from './pair.ts'

const test = suite('library/rate')

const MEASURE_MS = 4000
const CHUNK = new Uint8Array(16_384)

function pour(stream: DuplexStream): void {
  const fill = (): void => {
    while (!stream.destroyed && stream.write(CHUNK));
  }
  stream.on('error', () => {})
  stream.on('drain', fill)
  fill()
}

/** Mbit/s that arrive. */
async function rateOf(received: () => number): Promise<number> {
  const [before, began] = [received(), performance.now()]
  await pause(MEASURE_MS)
  return ((received() - before) * 8) / 1000 / (performance.now() - began)
}

/** A loaded machine may be late, and never early. */
function assertRate(actual: number, wanted: number, text: string): void {
  assert.ok(actual < wanted * 1.03 && actual > wanted * 0.85, `${text}: ${actual.toFixed(3)} Mbit/s of ${wanted}`)
}

test('streams of a client keep to its limits in both directions, and those of a server to its own', () => {
  let arrived = 0
  return withPair(
    (stream) => {
      stream.on('data', (part) => {
        arrived += part.length
      })
      pour(stream)
    },
    async (client) => {
      const streams = [await client.connect(soon()), await client.connect(soon())]
      const received = [0, 0]
      for (const [i, stream] of streams.entries()) {
        stream.on('data', (part) => {
          received[i] = (received[i] ?? 0) + part.length
        })
        pour(stream)
      }
      await until('both directions pass', () => arrived > 0 && received.every((bytes) => bytes > 0))
      await pause(1000)
      const [up = 0, ...down] = await Promise.all([
        rateOf(() => arrived),
        ...received.map((_, i) => rateOf(() => received[i] ?? 0)),
      ])
      assertRate(up, 6, 'up')
      for (const rate of down) assertRate(rate, 2, 'down, of each')
      for (const stream of streams) stream.destroy()
    },
    { client: { rate: { up: 6 } }, server: { rate: { session_up: 2 } } },
  )
})

test('a bad limit is an error that names option, value and reason', async () => {
  const create = (rate: object): Promise<Error> => errorOf(createClient({ server: '127.0.0.1:1', psk, rate }))
  assert.match((await create({ up: -1 })).message, /rate\.up.*-1.*must be a number from 0 to 100000/)
  assert.match((await create({ session_down: 0.001 })).message, /rate\.session_down.*0\.001.*at least 0\.008 Mbit\/s/)
  assert.match((await create({ upp: 1 })).message, /rate\.upp.*unknown option/)
})

test.run()
