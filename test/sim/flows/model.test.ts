/** The simulated network itself: rate, queue, delay, loss, changes during a run, reproducibility. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import { Bottleneck, type Shape } from '../../../testkit/sim/flows/bottleneck.ts'
import { NONE, Packets } from '../../../testkit/sim/flows/packets.ts'
import { bound, jain, rampTime, simulate, WIRE_SHARE } from '../../../testkit/sim/flows/scenario.ts'
import { Random } from '../../../testkit/sim/random.ts'

const PACKET = 1400
const MBIT = 1e6

const test = suite('sim/flows/model')

/** Sends packets of 1400 bytes at the given ms. @returns arrival times in ms and packet numbers */
function pass(
  shape: Shape,
  times: readonly number[],
  changes: readonly { at: number; shape: Shape }[] = [],
): { arrivals: { at: number; sn: number }[]; path: Bottleneck; packets: Packets } {
  const packets = new Packets()
  const path = new Bottleneck(packets, new Random(1), shape)
  const arrivals: { at: number; sn: number }[] = []
  const work = [
    ...times.map((at, sn) => ({ at, run: (now: number) => enter(sn, now) })),
    ...changes.map(({ at, shape: change }) => ({ at, run: (now: number) => path.reshape(change, now) })),
  ].sort((a, b) => a.at - b.at)
  const enter = (sn: number, now: number): void => {
    const slot = packets.take()
    packets.first[slot] = sn
    packets.weight[slot] = PACKET
    path.send(slot, now)
  }
  const until = (limit: number): void => {
    for (let next = 0; ; ) {
      next = Math.min(packets.next(), path.next())
      if (next > limit || next === Infinity) return
      path.serve(next)
      packets.advance(next)
      for (let slot = packets.arrival(); slot !== NONE; slot = packets.arrival()) {
        arrivals.push({ at: next / TICKS_PER_MS, sn: packets.first[slot] ?? NONE })
        packets.drop(slot)
      }
    }
  }
  for (const { at, run } of work) {
    until(at * TICKS_PER_MS)
    packets.advance(at * TICKS_PER_MS)
    run(at * TICKS_PER_MS)
  }
  until(Infinity)
  return { arrivals, path, packets }
}

test('a bottleneck spaces packets by its rate and adds the delay', () => {
  // 1.4 bytes per microsecond: a packet per millisecond
  const { arrivals, packets } = pass({ rate: 11.2 * MBIT, delay: 10, queueBytes: 1e6 }, [0, 0, 0, 0])
  assert.equal(
    arrivals.map(({ at }) => at),
    [11, 12, 13, 14],
  )
  assert.is(packets.inUse, 0)
})

test('serialisation is not rounded to ticks', () => {
  const { arrivals } = pass({ rate: 1000 * MBIT, delay: 1, queueBytes: 1e9 }, new Array(10000).fill(0))
  assert.ok(Math.abs((arrivals.at(-1)?.at ?? 0) - 113) <= 1 / TICKS_PER_MS)
})

test('a full queue drops new packets, limited by bytes or by packets', () => {
  const burst = new Array(20).fill(0)
  const rate = 1 * MBIT
  // one packet is on the wire, the others are queued
  assert.is(pass({ rate, queueBytes: 5 * PACKET }, burst).arrivals.length, 6)
  assert.is(pass({ rate, queueBytes: 5 * PACKET - 1 }, burst).arrivals.length, 5)
  const { arrivals, path } = pass({ rate, queuePackets: 7 }, burst)
  assert.equal(
    arrivals.map(({ sn }) => sn),
    [0, 1, 2, 3, 4, 5, 6, 7],
  )
  assert.is(path.counters.dropped, 12)
  assert.ok(Math.abs(path.maxWait / TICKS_PER_MS - 7 * 11.2) < 1e-6)
})

test('a change of rate takes effect in the middle of a packet', () => {
  // 10 ms per packet, after 5 ms 1 ms per packet
  const change = { at: 5, shape: { rate: 11.2 * MBIT } }
  const { arrivals } = pass({ rate: 1.12 * MBIT, delay: 1, queueBytes: 1e6 }, [0, 0, 0], [change])
  assert.equal(
    arrivals.map(({ at }) => at),
    [6.5, 7.5, 8.5],
  )
})

test('after a decrease of the delay, later packets overtake earlier ones', () => {
  const { arrivals } = pass({ delay: 100 }, [0, 10], [{ at: 5, shape: { delay: 10 } }])
  assert.equal(arrivals, [
    { at: 20, sn: 1 },
    { at: 100, sn: 0 },
  ])
})

test('loss, duplication and reordering occur with their probability', () => {
  const times = Array.from({ length: 20000 }, (_, i) => i)
  const lossy = pass({ delay: 1, loss: 0.1 }, times)
  assert.ok(Math.abs(lossy.path.counters.lost / 20000 - 0.1) < 0.01, `${lossy.path.counters.lost}`)
  assert.is(lossy.arrivals.length, 20000 - lossy.path.counters.lost)
  const twice = pass({ delay: 1, duplicate: 0.05 }, times).arrivals.length - 20000
  assert.ok(Math.abs(twice / 20000 - 0.05) < 0.01, `${twice}`)
  const { arrivals } = pass({ delay: 1, reorder: 0.05, reorderDelay: 5 }, times)
  const late = arrivals.filter(({ sn }, i) => i > 0 && sn < (arrivals[i - 1]?.sn ?? 0)).length
  assert.ok(Math.abs(late / 20000 - 0.05) < 0.01, `${late}`)
  const ordered = pass({ delay: 1, jitter: 5, inOrder: true }, times).arrivals
  assert.ok(ordered.every(({ sn }, i) => sn === i))
})

test('loss bursts depend on time: a sender that pauses outlasts one', () => {
  const shape = { delay: 1, burst: 10, burstEvery: 90 }
  for (const step of [1, 7, 40]) {
    const times = Array.from({ length: 20000 }, (_, i) => i * step)
    const { path } = pass(shape, times)
    assert.ok(Math.abs(path.counters.lost / 20000 - 0.1) < 0.03, `${path.counters.lost} at ${step} ms`)
  }
})

test('an engine fills a link with a sufficient window, and half of it with half the window', () => {
  const shape = { rate: 20 * MBIT, delay: 25, queueBytes: 250_000 }
  const run = (window: number): number =>
    simulate({ seed: 1, shape, seconds: 6, pairs: [{ tuning: { sndwnd: window, rcvwnd: 1024, nc: 1 } }] }).goodput
  assert.ok(run(150) > 0.97 * bound(shape), `${run(150)}`)
  const half = run(45)
  assert.ok(half > 0.4 * bound(shape) && half < 0.6 * bound(shape), `${half}`)
})

test('CUBIC fills a link, shares it with another CUBIC flow, and loses throughput under loss as TCP does', () => {
  const shape = { rate: 50 * MBIT, delay: 25, queueBytes: 312_500 }
  const tcp = { client: 'tcp', server: 'tcp' } as const
  const alone = simulate({ seed: 1, shape, seconds: 20, pairs: [tcp] })
  assert.ok(alone.goodput > 0.97 * 50 * WIRE_SHARE, `${alone.goodput}`)
  const two = simulate({ seed: 1, shape, seconds: 80, settled: 40, pairs: [tcp, { ...tcp, flows: [{ startAt: 3 }] }] })
  assert.ok(two.jain > 0.85, `${two.jain}`)
  const { goodput } = simulate({ seed: 1, shape: { ...shape, loss: 0.01 }, seconds: 60, pairs: [tcp] })
  // 1.22 mss / (RTT sqrt(p)) = 2.6 Mbit/s
  assert.ok(goodput > 1.3 && goodput < 5.2, `${goodput}`)
})

test('BBR gets what that of Linux gets: nearly all of the link beside CUBIC, about half beside itself', () => {
  const shape: Shape = { rate: 20 * MBIT, delay: 25, queueBytes: 64_000 }
  const shareBeside = (other: 'cubic' | 'bbr'): number => {
    const pairs = (['bbr', other] as const).map((control, i) => ({
      client: 'tcp' as const,
      server: 'tcp' as const,
      control,
      flows: [{ startAt: 4 * i }],
    }))
    const { flows, goodput } = simulate({ seed: 1, shape, settled: 20, seconds: 60, pairs })
    assert.ok(goodput > 0.9 * bound(shape), `${goodput}`)
    return (flows[0]?.goodput ?? 0) / goodput
  }
  // kernel BBR on such a link: 0.90, and 0.56
  const [cubic, bbr] = [shareBeside('cubic'), shareBeside('bbr')]
  assert.ok(cubic > 0.8 && cubic < 0.97, `${cubic}`)
  assert.ok(Math.abs(bbr - 0.5) < 0.25, `${bbr}`)
})

test('an echo without loss takes the round trip', () => {
  const shape = { delay: 25, rate: 100 * MBIT, queueBytes: 1e6 }
  const [echo] = simulate({ seed: 1, shape, seconds: 5, pairs: [{ flows: [{ kind: 'echo' }] }] }).flows
  assert.ok(echo && echo.p50 >= 50 && echo.p50 < 52, `${echo?.p50}`)
})

test('the same seed gives the same run, another seed a different one', () => {
  const shape = { rate: 20 * MBIT, delay: 25, queueBytes: 62_500, loss: 0.02, jitter: 5 }
  const run = (seed: number): string =>
    JSON.stringify(simulate({ seed, shape, seconds: 4, pairs: [{ flows: [{}, { kind: 'echo' }] }, {}] }))
  const first = run(1)
  assert.is(run(1), first)
  assert.is.not(run(2), first)
})

test('fairness and ramp time are computed correctly', () => {
  assert.is(jain([1, 1, 1, 1]), 1)
  assert.is(jain([1, 0, 0, 0]), 0.25)
  // bins of 20 ms: nothing for 100 ms, then 1 Mbit/s
  const bins = [0, 0, 0, 0, 0, ...new Array(20).fill(2500)]
  assert.ok(Math.abs(rampTime(bins, 0, 1, 0.1) - 0.2) < 1e-9)
  assert.is(rampTime(bins, 0, 1.1, 0.1), Infinity)
})

test.run()
