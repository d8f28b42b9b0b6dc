// time limit: 180 s
/**
 * A short run of `npm run fuzz`: structured inputs cause no trap and no corruption, and all memory is released.
 * The checks themselves are tested with engines that violate a rule.
 */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { COUNTERS, type CoreExports, instantiate, Span, Tx } from '../../host/engine/core.ts'
import { runEpisode } from './episode.ts'
import { countersOf, fuzz, maker, seedOf } from './fuzz.ts'
import { Fault } from './pattern.ts'

const SEED = Number(process.env['FUZZ_SEED'] ?? 1)
const INPUTS = 1_500_000
const SECONDS = 12
const OTHER_SECONDS = { debug: 3, checked: 8 }

const test = suite('fuzz/engine')

for (const build of ['release', 'debug', 'checked'] as const) {
  test(`structured inputs: no trap, no corruption, all memory released (${build} build)`, () => {
    console.log(`${build} build, seed ${SEED} (FUZZ_SEED)`)
    const result = fuzz({
      seed: SEED,
      inputs: INPUTS,
      ...(build === 'release'
        ? { seconds: SECONDS }
        : {
            seconds: OTHER_SECONDS[build],
            make: maker(readFileSync(`dist/core.${build}.wasm`)),
            words: ` --${build}`,
          }),
    })
    const rate = Math.round(result.inputs / result.seconds)
    console.log(`${result.inputs} inputs in ${result.episodes} episodes, ${rate} a second`)
    if (result.failure !== undefined) assert.unreachable(result.failure)
    // the inputs are not all rejected early
    const reached = ['segments_received', 'acks_received', 'tcp_written_bytes', 'segments_retransmitted'] as const
    for (const name of reached) assert.ok((result.counters.get(name) ?? 0) > 0, name)
  })
}

test('an episode is deterministic', () => {
  const run = (): [string, number][] => [...countersOf(runEpisode(seedOf(SEED, 3), instantiate()))]
  assert.equal(run(), run())
})

/** An engine that runs `after` after each call of the export `name`. */
function broken(name: keyof CoreExports, after: (calls: CoreExports, result: number) => void): () => CoreExports {
  return () => {
    const calls = instantiate()
    const call = calls[name] as (...args: number[]) => number
    return {
      ...calls,
      [name]: (...args: number[]): number => {
        const result = call(...args)
        after(calls, result)
        return result
      },
    }
  }
}

const words = (calls: CoreExports): Uint32Array => new Uint32Array(calls.memory.buffer)
const counter = (calls: CoreExports, name: (typeof COUNTERS)[number]): number =>
  (calls.stats_ptr() >>> 2) + 2 * COUNTERS.indexOf(name)

const BREAKS: readonly (readonly [string, RegExp, () => CoreExports])[] = [
  [
    'a payload byte changed on the way to the peer',
    /wrong payload|other bytes|a message|PUSH of length/,
    broken('poll_transmit', (calls, count) => {
      for (let i = 0; i < count; i++) {
        const at = (calls.tx_ptr() >>> 2) + i * Tx.WORDS
        const source = words(calls)[at + Tx.source] ?? 0
        const bytes = new Uint8Array(calls.memory.buffer, source, words(calls)[at + Tx.length])
        if (bytes.length > 60 && bytes[4] === 81) bytes[50] = (bytes[50] ?? 0) ^ 1
      }
    }),
  ],
  [
    'a payload byte changed on the way to TCP',
    /wrong payload/,
    broken('stream_peek', (calls, count) => {
      if (count <= 0) return
      const at = words(calls)[(calls.spans_ptr() >>> 2) + Span.ptr] ?? 0
      const bytes = new Uint8Array(calls.memory.buffer)
      bytes[at] = (bytes[at] ?? 0) ^ 1
    }),
  ],
  [
    'a datagram beyond kcpMtu',
    /kcpMtu is|control message of/,
    broken('poll_transmit', (calls, count) => {
      if (count > 0) words(calls)[(calls.tx_ptr() >>> 2) + Tx.length] = 1600
    }),
  ],
  [
    'a span among the descriptors',
    /a span of/,
    broken('stream_peek', (calls, count) => {
      if (count > 0) words(calls)[(calls.spans_ptr() >>> 2) + Span.ptr] = calls.rx_ptr()
    }),
  ],
  [
    'a gauge that differs from the list',
    /sessions/,
    broken('session_slots', (calls) => {
      const at = counter(calls, 'sessions_established')
      words(calls)[at] = (words(calls)[at] ?? 0) + 1
    }),
  ],
  [
    'memory that is not released',
    /memory_used is/,
    () => {
      let leaked = 0
      const calls = instantiate()
      return {
        ...calls,
        stream_abort: (handle, now) => {
          leaked += 64
          return calls.stream_abort(handle, now)
        },
        refresh_gauges: (now) => {
          const result = calls.refresh_gauges(now)
          const at = counter(calls, 'memory_used')
          words(calls)[at] = (words(calls)[at] ?? 0) + leaked
          return result
        },
      }
    },
  ],
  [
    'capacity that is lost',
    /room for/,
    () => {
      let polls = 0
      const calls = instantiate()
      return {
        ...calls,
        handle_datagrams: (count, now) => {
          const accepted = calls.handle_datagrams(count, now)
          const at = counter(calls, 'drop_memory')
          if (++polls > 900) words(calls)[at] = (words(calls)[at] ?? 0) + 1
          return accepted
        },
      }
    },
  ],
  ['a timer that is always due', /busy loop|for ever/, () => ({ ...instantiate(), next_timeout: () => 0 })],
  ['output without end', /goes on for ever/, () => ({ ...instantiate(), poll_events: () => 1 })],
]

for (const [name, expected, make] of BREAKS) {
  test(`detected: ${name}`, () => {
    const found: string[] = []
    for (let episode = 0; episode < 20 && found.length === 0; episode++) {
      try {
        runEpisode(seedOf(SEED, episode), make())
      } catch (error) {
        if (!(error instanceof Fault)) throw error
        found.push(error.message)
      }
    }
    assert.ok(expected.test(found[0] ?? ''), `${found[0]}`)
  })
}

test.run()
