/**
 * `bench datagrams`: a stream of small datagrams over an emulated link, bare and through a tunnel that forwards UDP: one-way
 * delay, and what does not arrive.
 */
import { parseArgs } from 'node:util'
import { openUdp, type UdpEnd } from '../testkit/datagrams.ts'
import { type LinkOptions, openLink } from '../testkit/link.ts'
import type { Config, Program } from '../testkit/process.ts'
import { openTunnel } from '../testkit/tunnel.ts'
import { sleep } from '../testkit/wait.ts'

const WARM_UP = 20

interface Flow {
  /** Datagrams a second, and bytes of each: the first 12 are a number and a time. */
  readonly rate: number
  readonly bytes: number
  readonly count: number
}

interface Result {
  readonly sent: number
  readonly lost: number
  readonly delays: readonly number[]
}

/** Sends a flow, and notes when it arrives. */
async function measure(app: UdpEnd, target: UdpEnd, port: number, { rate, bytes, count }: Flow): Promise<Result> {
  const delays = new Map<number, number>()
  let seen = 0
  const look = (): void => {
    for (; seen < target.received.length; seen++) {
      const data = target.received[seen]
      const at = target.times[seen] ?? 0
      if (data !== undefined) delays.set(data.readUInt32BE(0), at - data.readDoubleBE(4))
    }
  }
  const data = Buffer.alloc(bytes)
  const start = performance.now()
  for (let number = 0; number < count + WARM_UP; ) {
    const due = Math.floor(((performance.now() - start) * rate) / 1000)
    for (; number <= due && number < count + WARM_UP; number++) {
      data.writeUInt32BE(number, 0)
      data.writeDoubleBE(performance.now(), 4)
      app.send(Buffer.from(data), port)
    }
    await sleep(1)
  }
  await sleep(3000)
  look()
  const found = [...delays].filter(([number]) => number >= WARM_UP).map(([, delay]) => delay)
  return { sent: count, lost: count - found.length, delays: found.sort((a, b) => a - b) }
}

function show(name: string, { sent, lost, delays }: Result): void {
  const at = (part: number): string => (delays[Math.floor(part * (delays.length - 1))] ?? Number.NaN).toFixed(1)
  const late = delays.filter((delay) => delay > (delays[0] ?? 0) + 20).length
  const parts = [0.5, 0.9, 0.99, 0.999, 1].map((part) => at(part).padStart(8)).join('')
  console.log(
    `${name.padEnd(28)}${((100 * lost) / sent).toFixed(2).padStart(7)} %${parts}${((100 * late) / sent).toFixed(2).padStart(8)} %`,
  )
}

/** `bench datagrams [--loss 0.02] [--rtt 50] [--bandwidth bit/s] [--rate 50] [--bytes 100] [--seconds 60]`. */
export async function benchDatagrams(argv: readonly string[]): Promise<void> {
  const text = (value: string): { type: 'string'; default: string } => ({ type: 'string', default: value })
  const { values } = parseArgs({
    args: [...argv],
    options: {
      loss: text('0.02'),
      rtt: text('50'),
      bandwidth: text('0'),
      rate: text('50'),
      bytes: text('100'),
      seconds: text('60'),
      runtimes: text('node,bun'),
    },
  })
  const [loss, rtt, bandwidth, rate, bytes] = [
    values.loss,
    values.rtt,
    values.bandwidth,
    values.rate,
    values.bytes,
  ].map(Number) as [number, number, number, number, number]
  const flow = { rate, bytes, count: rate * Number(values.seconds) }
  const shape = { delay: rtt / 2, loss, ...(bandwidth > 0 && { rate: bandwidth }), seed: 3 }
  console.log(`${'one-way delay, ms'.padEnd(28)}     lost     p50     p90     p99   p99.9     max  > 20 ms late`)
  const target = await openUdp()
  const bare = async (): Promise<void> => {
    const link = await openLink({ ...shape, target: { host: target.host, port: target.port } } satisfies LinkOptions)
    const app = await openUdp()
    show('UDP', await measure(app, target, link.port, flow))
    app.close()
    await link.close()
  }
  const through = async (name: string, runtime: Program, config: Config): Promise<void> => {
    target.received.length = target.times.length = target.senders.length = 0
    const options = {
      server: runtime,
      client: runtime,
      datagrams: true,
      link: shape,
      target: `127.0.0.1:${target.port}`,
    }
    const tunnel = await openTunnel({ ...options, config: { loglevel: 4, ...config } })
    const app = await openUdp()
    show(name, await measure(app, target, tunnel.port, flow))
    app.close()
    await tunnel.close()
  }
  await bare()
  for (const runtime of values.runtimes.split(',') as Program[]) {
    await through(`${runtime}`, runtime, {})
    await through(`${runtime}, kcp.redundancy false`, runtime, { kcp: { redundancy: false } })
  }
  target.close()
}
