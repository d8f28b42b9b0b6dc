// time limit: 180 s, waits
/** CPU time of idle sessions: both endpoints over ten seconds, as counted by the kernel. */

import { existsSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { sessionCounts } from '../../testkit/process.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const SESSIONS = 100
const WINDOW_MS = 10_000
/** Ticks of 10 ms that a runtime's own work (garbage collection, a keepalive) may take. */
const ALLOWED_TICKS = 4
/** A garbage collection or compilation may fall into one window, but not into every one. */
const WINDOWS = 4
/** The sessions are idle when no datagram arrived for this time. */
const QUIET_MS = 2000
const TIMEOUT_MS = 30_000

const test = suite('idle')

/** utime + stime of a process in ticks (proc(5), fields 14 and 15). */
function processorTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
  return Number(fields[11]) + Number(fields[12])
}

for (const pair of MIXED_PAIRS) {
  const name = `${SESSIONS} idle sessions use no CPU time: ${nameOf(pair)}`
  if (!existsSync('/proc/self/stat')) {
    skip(test, name, 'processor time is read from /proc, which only Linux has')
    continue
  }
  test(name, async () => {
    const target = await echoTarget()
    await withTunnel({ ...pair, link: { delay: 1 }, target: target.address }, async (tunnel) => {
      const apps = await Promise.all(Array.from({ length: SESSIONS }, () => tunnel.dial()))
      await Promise.all(apps.map((app) => app.send('hello')))
      await waitFor('all are echoed', () => apps.every((app) => app.received === 5), TIMEOUT_MS)
      const { up, down } = tunnel.link.counters
      let packets = 0
      let since = performance.now()
      await waitFor(
        'the last acknowledgement has been sent',
        () => {
          if (up.packets + down.packets !== packets) since = performance.now()
          packets = up.packets + down.packets
          return performance.now() - since > QUIET_MS
        },
        TIMEOUT_MS,
      )
      const seen: string[] = []
      for (let window = 0; window < WINDOWS; window++) {
        const { server, client } = tunnel
        const before = [processorTicks(server.pid), processorTicks(client.pid)]
        await sleep(WINDOW_MS)
        const [serverTicks = 0, clientTicks = 0] = [server.pid, client.pid].map(
          (pid, i) => processorTicks(pid) - (before[i] ?? 0),
        )
        seen.push(`server ${serverTicks}, client ${clientTicks}`)
        if (Math.max(serverTicks, clientTicks) <= ALLOWED_TICKS) {
          assert.is(sessionCounts(await server.stats()).connected, SESSIONS, 'they are all still there')
          return
        }
      }
      assert.unreachable(`ticks in ${WINDOW_MS / 1000} s: ${seen.join('; ')}`)
    }).finally(() => target.close())
  })
}

test.run()
