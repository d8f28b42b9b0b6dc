// time limit: 240 s
/** Termination of connections in every order, with and without data in flight, on a good and on a lossy link. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { sessionCounts } from '../../testkit/process.ts'
import type { TcpEnd } from '../../testkit/tcp.ts'
import { patternDigest } from '../../testkit/tcp.ts'
import type { ScriptedTarget } from '../../testkit/traffic.ts'
import { answerAfterEnd, scriptedTarget, uploadAfterEnd } from '../../testkit/traffic.ts'
import type { Tunnel } from '../../testkit/tunnel.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const BYTES = 200_000
const TIMEOUT_MS = 30_000
const LINKS = {
  'no loss': { delay: 5 },
  '10 % loss': { delay: 5, loss: 0.1, seed: 77 },
}

type Scenario = (tunnel: Tunnel, target: ScriptedTarget) => Promise<void>

async function assertEnding(what: string, end: TcpEnd, size: number, seed: number): Promise<void> {
  const ending = await within(what, TIMEOUT_MS, end.ending)
  assert.is(ending.kind, 'fin', `${what}: ${ending.code}`)
  assert.is(ending.bytes, size, what)
  assert.is(ending.sha256, patternDigest(size, seed), what)
}

/** Asserts that neither endpoint keeps an open session. */
async function assertNoSession(tunnel: Tunnel): Promise<void> {
  for (const end of ['server', 'client'] as const) {
    await waitFor(
      `the ${end} has no open session`,
      async () => {
        const { halfOpen, connected } = sessionCounts(await tunnel[end].stats('sessions=all'))
        return halfOpen + connected === 0
      },
      TIMEOUT_MS,
      () => tunnel[end].stats('sessions=all'),
    )
  }
}

const scenarios: Record<string, Scenario> = {
  'the application ends first, the response follows': (tunnel, target) => answerAfterEnd(tunnel, target, BYTES, 1),

  'the target ends first, the upload follows': (tunnel, target) => uploadAfterEnd(tunnel, target, BYTES, 2),

  'both end at once with data in flight': async (tunnel, target) => {
    const accepted = target.serve((end) => void end.pour(BYTES, 3).then(() => end.finish()))
    const app = await tunnel.dial()
    await app.pour(BYTES, 4)
    app.finish()
    const end = await accepted
    await Promise.all([assertEnding('at the application', app, BYTES, 3), assertEnding('at the target', end, BYTES, 4)])
  },

  'the application ends without sending': async (tunnel, target) => {
    const accepted = target.serve((end) => end.socket.once('end', () => void end.send('bye').then(() => end.finish())))
    const app = await tunnel.dial()
    app.finish()
    const end = await within('the target to be dialled', TIMEOUT_MS, accepted)
    await assertEnding('at the target', end, 0, 0)
    const ending = await within('the answer', TIMEOUT_MS, app.ending)
    assert.is(app.text(), 'bye')
    assert.is(ending.kind, 'fin')
  },

  'the target ends without sending': async (tunnel, target) => {
    const accepted = target.serve((end) => end.finish())
    const app = await tunnel.dial()
    await assertEnding('at the application', app, 0, 0)
    await app.send('late')
    app.finish()
    const end = await accepted
    assert.is((await within('the late bytes', TIMEOUT_MS, end.ending)).kind, 'fin')
    assert.is(end.text(), 'late')
  },

  'the application resets in the middle of a download': async (tunnel, target) => {
    const accepted = target.serve((end) => void end.pour(50 << 20, 5).then(() => end.finish()))
    const app = await tunnel.dial()
    await waitFor('the download is in progress', () => app.received > BYTES, TIMEOUT_MS)
    app.reset()
    const end = await accepted
    const ending = await within('the end at the target', TIMEOUT_MS, end.ending)
    assert.is(ending.bytes, 0)
    end.destroy()
  },

  'the target resets in the middle of an upload': async (tunnel, target) => {
    const accepted = target.serve(() => undefined)
    const app = await tunnel.dial()
    const poured = app.pour(50 << 20, 6)
    const end = await within('the target to be dialled', TIMEOUT_MS, accepted)
    await waitFor('the upload is in progress', () => end.received > BYTES, TIMEOUT_MS)
    end.reset()
    const ending = await within('the end at the application', TIMEOUT_MS, app.ending)
    assert.is(ending.bytes, 0)
    app.destroy()
    await poured
  },
}

const test = suite('termination of connections')

for (const pair of MIXED_PAIRS) {
  for (const [linkName, link] of Object.entries(LINKS)) {
    test(`MUST 34, 35, 36: every order of termination with ${linkName}: ${nameOf(pair)}`, async () => {
      const target = await scriptedTarget()
      await withTunnel({ ...pair, link, target: target.address }, async (tunnel) => {
        for (const [name, scenario] of Object.entries(scenarios)) {
          await scenario(tunnel, target).catch((error: Error) => {
            throw new Error(`${name}: ${error.message}`, { cause: error })
          })
        }
        await assertNoSession(tunnel)
      }).finally(() => target.close())
    })
  }
}

test.run()
