// time limit: 200 s, waits
/** What a regular hop costs on a path with a round trip of 100 ms, beside a client that does not hop. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Link, openLink } from '../../testkit/link.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { freePort, type Running, start } from '../../testkit/process.ts'
import { dial, listen } from '../../testkit/tcp.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'

const ONE_WAY_MS = 50
const PORTS = 4
const HOPS = 5
/** An echo every so often; what a hop may delay arrives in the time after it. */
const EVERY_MS = 10
const AFTER_MS = 6 * ONE_WAY_MS

const test = suite('port hopping')

/** Echoes through a client, one every few milliseconds, and when they arrived. */
class Echoes {
  readonly times: number[] = []
  readonly #timer: NodeJS.Timeout
  readonly #end: Awaited<ReturnType<typeof dial>>

  private constructor(end: Awaited<ReturnType<typeof dial>>) {
    this.#end = end
    end.socket.setNoDelay(true)
    end.socket.on('data', () => this.times.push(performance.now()))
    this.#timer = setInterval(() => end.socket.write('x'), EVERY_MS)
  }

  static async begin(port: number): Promise<Echoes> {
    return new Echoes(await dial('127.0.0.1', port))
  }

  /** The longest time without an echo within a period. */
  longest(from: number, to: number): number {
    const within = this.times.filter((time) => time > from && time < to)
    return Math.max(...[...within, to].map((time, i) => time - (within[i - 1] ?? from)))
  }

  stop(): void {
    clearInterval(this.#timer)
    assert.not.ok(this.#end.ended, 'the connection goes on')
    this.#end.destroy()
  }
}

const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0

/** Ports in a row that are free on a host. */
async function freeRange(host: string, count: number): Promise<number> {
  for (;;) {
    const first = await freePort(host)
    const links: Link[] = []
    try {
      for (let i = 0; i < count; i++)
        links.push(await openLink({ host, port: first + i, target: { host: '127.0.0.1', port: first } }))
      return first
    } catch {
      // one is taken
    } finally {
      for (const link of links) await link.close()
    }
  }
}

for (const { server, client } of MIXED_PAIRS) {
  test(`a hop delays what arrives by less than a round trip: ${server} server, ${client} client`, async () => {
    const target = await listen(({ socket }) => socket.pipe(socket))
    const first = await freeRange('127.0.0.2', PORTS)
    const links: Link[] = []
    const started: Running[] = []
    try {
      const secret = { method: 'xchacha20poly1305_ietf', psk: Buffer.alloc(32, 7).toString('base64') }
      const bind = `127.0.0.1:${first}-${first + PORTS - 1}`
      started.push(await start(server, { ...secret, kcp_bind: bind, connect: target.address }))
      for (let i = 0; i < PORTS; i++) {
        const options = { host: '127.0.0.2', port: first + i, target: { host: '127.0.0.1', port: first + i } }
        links.push(await openLink({ ...options, delay: ONE_WAY_MS }))
      }
      const echoes: Echoes[] = []
      for (const kcpConnect of [`127.0.0.2:${first}-${first + PORTS - 1}`, `127.0.0.2:${first}`]) {
        const port = await freePort()
        const config = { ...secret, listen: `127.0.0.1:${port}`, kcp_connect: kcpConnect, hop_interval: 5, loglevel: 6 }
        started.push(await start(client, config))
        echoes.push(await Echoes.begin(port))
      }
      const [hopping, still] = echoes as [Echoes, Echoes]
      await waitFor('echoes', () => echoes.every(({ times }) => times.length > 100))
      const hops: number[] = []
      const seen = (): number => started[1]?.log().match(/udp hop: to port/g)?.length ?? 0
      const before = seen()
      while (hops.length < HOPS) {
        if (seen() > before + hops.length) hops.push(performance.now())
        await sleep(5)
      }
      await sleep(2 * AFTER_MS)
      for (const each of echoes) each.stop()
      const around = (each: Echoes): number[] => hops.map((at) => each.longest(at - ONE_WAY_MS, at + AFTER_MS))
      const [with_, without] = [around(hopping), around(still)]
      const shown = (gaps: number[]): string => gaps.map((ms) => ms.toFixed(0)).join(' ')
      console.log(
        `${server}, ${client}: longest pause around hops ${shown(with_)} ms, without hops ${shown(without)} ms`,
      )
      assert.ok(median(with_) < median(without) + 2 * ONE_WAY_MS, `${shown(with_)} and ${shown(without)}`)
      assert.not.match(started[1]?.log() ?? '', /no answer at port|back to port/)
    } finally {
      for (const each of started) await each.stop()
      for (const link of links) await link.close()
      await target.close()
    }
  })
}

test.run()
