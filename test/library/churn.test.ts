// time limit: 150 s, long 600 s, waits
/** Streams, clients and servers that come and go leave no handle, timer or memory behind. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createClient, createServer, type DuplexStream, type Stats } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, pause, psk, soon, until, withPair } from './pair.ts'

const test = suite('library/churn')

const isLong = process.env['TEST_LONG'] === '1'
const STREAMS = isLong ? 10_000 : 500
const ENDPOINTS = isLong ? 500 : 20
/** Streams at a time. */
const PARALLEL = 20
/** Bytes of garbage and of caches that JavaScript may hold. */
const HEAP_SLACK = 8 << 20
/** The same between two moments in which nothing is new. */
const STEADY_SLACK = 2 << 20

/** Bytes by which the tables of the engine grow for a session; a session itself takes more than 4096. */
const TABLE_BYTES = 64

/** Bytes of live JavaScript objects and buffers. */
async function heap(): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < 8; i++) {
    await pause(20)
    if ('Bun' in globalThis) (globalThis as unknown as { Bun: { gc(isSync: boolean): void } }).Bun.gc(true)
    else {
      setFlagsFromString('--expose-gc')
      runInNewContext('gc()')
    }
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    least = Math.min(least, heapUsed + arrayBuffers)
  }
  return least
}

/** Active handles and timers by type. Bun does not report them. */
function resources(): string[] {
  return typeof process.getActiveResourcesInfo === 'function' ? process.getActiveResourcesInfo().sort() : []
}

const engineMemory = ({ gauges }: Stats): number => gauges['memory_used'] ?? Number.NaN

test(`${STREAMS} streams, a third each ended, destroyed and given up while they open`, () => {
  const time_wait = 5
  let served = 0
  const handler = (stream: DuplexStream): void => {
    served++
    stream.on('error', () => {})
    stream.pipe(stream)
  }
  return withPair(
    handler,
    async (client, server) => {
      const one = async (i: number): Promise<void> => {
        if (i % 3 === 2) {
          const controller = new AbortController()
          const opening = client.connect({ signal: controller.signal })
          if (i % 2 === 0) await pause(0)
          controller.abort()
          const stream = await opening.catch(() => undefined)
          stream?.destroy()
          return
        }
        const stream = await client.connect(soon())
        stream.on('error', () => {})
        stream.write('x'.repeat(100 + i))
        if (i % 3 === 1) {
          stream.destroy()
          return
        }
        stream.end()
        await bytesOf(stream)
      }
      const round = async (count: number): Promise<void> => {
        for (let i = 0; i < count; i += PARALLEL)
          await Promise.all(Array.from({ length: PARALLEL }, (_, k) => one(i + k)))
      }
      const isIdle = (): boolean => [client, server].every((end) => end.stats().sessions.length === 0)
      const settle = async (count: number): Promise<void> => {
        await round(count)
        // past TIME_WAIT
        await until('all sessions are over', isIdle, 60)
      }
      // windows and caches have grown to their sizes then
      await settle(STREAMS / 2)
      const before = { client: engineMemory(client.stats()), server: engineMemory(server.stats()), heap: await heap() }
      const handles = resources()
      await settle(STREAMS / 4)
      const between = await heap()
      await settle(STREAMS / 4)
      const engines = [engineMemory(client.stats()) - before.client, engineMemory(server.stats()) - before.server]
      for (const grown of engines) assert.ok(grown <= STREAMS * TABLE_BYTES, `${grown} bytes more in an engine`)
      assert.equal(resources(), handles)
      // the heap of Bun grows in a few large steps; a leak grows each time
      const steps = [between - before.heap, (await heap()) - between]
      assert.ok(Math.min(...steps) < STEADY_SLACK, `${steps.join(' and ')} bytes more`)
      assert.ok(served > STREAMS / 2)
    },
    { client: { time_wait, linger: 5 }, server: { time_wait, linger: 5 } },
  )
})

test(`${ENDPOINTS} clients and servers`, async () => {
  const round = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const udp = { path: i % 2 === 0 ? 'fast' : 'portable' } as const
      await using server = await createServer({ bind: '127.0.0.1:0', psk, udp }, (stream) => stream.pipe(stream))
      await using client = await createClient({ server: server.address ?? '', psk, udp })
      const stream = await client.connect(soon())
      stream.end('x')
      await bytesOf(stream)
    }
  }
  await round(5)
  const before = await heap()
  const handles = resources()
  await round(ENDPOINTS)
  await until('handles are closed', () => resources().length <= handles.length)
  // the memory of an engine alone is more than 1 MiB
  const grown = (await heap()) - before
  assert.ok(grown < HEAP_SLACK, `${grown} bytes more`)
})

test.run()
