// time limit: 240 s, waits
/** A process that runs out of file descriptors keeps running, releases them all, and recovers. */
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { sessionCounts } from '../../testkit/process.ts'
import { echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT = 64
const DIALS = 500
const TIMEOUT_MS = 60_000

const test = suite('file descriptors')

function prlimit(...args: string[]): boolean {
  try {
    execFileSync('prlimit', args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

const available = process.platform === 'linux' && prlimit('--version')

for (const pair of MIXED_PAIRS) {
  for (const limited of ['server', 'client'] as const) {
    const name = `a ${limited} with ${LIMIT} file descriptors survives ${DIALS} dials: ${nameOf(pair)}`
    if (!available) {
      skip(test, name, 'needs /proc and prlimit')
      continue
    }
    test(name, async () => {
      const target = await echoTarget()
      // half-open sessions at a server without descriptors end soon
      const config = { timeout: 60, linger: 10 }
      await withTunnel({ ...pair, config, target: target.address }, async (tunnel) => {
        const { pid } = tunnel[limited]
        const other = limited === 'server' ? 'client' : 'server'
        // one connection first, so that lazily opened descriptors are open
        const first = await tunnel.dial()
        await echoes(first)
        first.finish()
        await first.ending
        await settled()
        const base = descriptors(pid)
        assert.ok(base < LIMIT, `${base} file descriptors at the start`)
        assert.ok(prlimit('--pid', String(pid), `--nofile=${LIMIT}:${LIMIT}`))

        const dials = await Promise.all(Array.from({ length: DIALS }, () => tunnel.dial().catch(() => undefined)))
        const apps = dials.filter((app) => app !== undefined)
        for (const app of apps) {
          app.socket.on('error', () => {})
          app.socket.write('x')
        }
        const working = (): number => apps.filter((app) => !app.ended && app.received === 1).length
        const ended = (): number => apps.filter((app) => app.ended).length
        const summary = (): string => `${apps.length} accepted, ${working()} working, ${ended()} ended`
        // A listener without descriptors closes new connections, or leaves them to the kernel until some are free.
        const waits = limited === 'client' && pair.client === 'bun'
        await waitFor(
          'every connection works, has ended or waits for a descriptor',
          () => working() > 0 && (waits ? working() > LIMIT / 2 : working() + ended() === apps.length),
          TIMEOUT_MS,
          summary,
        )
        assert.ok(working() < LIMIT, summary())
        for (const app of apps) app.socket.destroy()

        await waitFor(
          'every descriptor is closed',
          () => descriptors(pid) <= base,
          TIMEOUT_MS,
          () => `${descriptors(pid)}`,
        )
        await settled()
        const again = await tunnel.dial()
        await echoes(again)
        again.finish()
        assert.is((await again.ending).kind, 'fin')
        assert.is(tunnel[limited].status, undefined)
        assert.is(tunnel[other].status, undefined)

        async function settled(): Promise<void> {
          for (const end of ['server', 'client'] as const) {
            await waitFor(
              `no session is open at the ${end}`,
              async () => {
                // a monitoring server without descriptors refuses as well
                const text = await tunnel[end].stats().catch(() => undefined)
                if (text === undefined) return false
                const { halfOpen, connected, linger } = sessionCounts(text)
                return halfOpen + connected + linger === 0
              },
              TIMEOUT_MS,
              () => tunnel[end].stats('sessions=all').catch((error) => String(error)),
            )
          }
        }
        async function echoes(app: TcpEnd): Promise<void> {
          app.socket.write('x')
          await waitFor('an echo', () => app.received === 1, TIMEOUT_MS)
        }
      }).finally(() => target.close())
    })
  }
}

test.run()
