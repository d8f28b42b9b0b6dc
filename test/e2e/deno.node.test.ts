// time limit: 120 s
/** The program on Deno: transfers with Node at the other end and with Deno at both, ends of connections, reload. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Pair } from '../../testkit/pairs.ts'
import { commandOf, projectRoot } from '../../testkit/process.ts'
import { answerAfterEnd, download, echo, scriptedTarget, upload, uploadAfterEnd } from '../../testkit/traffic.ts'
import type { Method } from '../../testkit/tunnel.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const BYTES = 200_000
const POURED_BYTES = 50 << 20
const TIMEOUT_MS = 30_000
const LINK = { delay: 5, jitter: 2, loss: 0.02, duplicate: 0.01, reorder: 0.02, seed: 5 }

const PAIRS: readonly (Pair & { method: Method })[] = [
  { server: 'deno', client: 'node', method: 'xchacha20poly1305_ietf' },
  { server: 'node', client: 'deno', method: 'aes256gcm' },
  { server: 'deno', client: 'deno', method: 'chacha20poly1305_ietf' },
]

const test = suite('deno')

for (const pair of PAIRS) {
  test(`transfers, half-close in both orders, and resets over a lossy link: ${nameOf(pair)}`, async () => {
    const target = await scriptedTarget()
    await withTunnel({ ...pair, link: LINK, target: target.address }, async (tunnel) => {
      await upload(tunnel, target, BYTES, 1)
      await download(tunnel, target, BYTES, 2)
      await echo(tunnel, target, BYTES, 3)
      await answerAfterEnd(tunnel, target, BYTES, 4)
      await uploadAfterEnd(tunnel, target, BYTES, 5)

      let accepted = target.serve((end) => void end.pour(POURED_BYTES, 6))
      const app = await tunnel.dial()
      await waitFor('the download is in progress', () => app.received > BYTES, TIMEOUT_MS)
      app.reset()
      assert.is((await within('the end at the target', TIMEOUT_MS, (await accepted).ending)).bytes, 0)

      accepted = target.serve(() => undefined)
      const other = await tunnel.dial()
      void other.pour(POURED_BYTES, 7)
      const end = await within('the dial', TIMEOUT_MS, accepted)
      await waitFor('the upload is in progress', () => end.received > BYTES, TIMEOUT_MS)
      end.reset()
      assert.is((await within('the end at the application', TIMEOUT_MS, other.ending)).bytes, 0)
    }).finally(() => target.close())
  })
}

test('SIGHUP applies a change, and the monitoring server answers', async () => {
  const target = await scriptedTarget()
  await withTunnel({ server: 'deno', client: 'deno', target: target.address }, async (tunnel) => {
    await upload(tunnel, target, BYTES, 1)
    tunnel.client.reload({ loglevel: 6 })
    await waitFor('the reload', () => tunnel.client.log().includes('config successfully reloaded'))
    await upload(tunnel, target, BYTES, 2)
    await waitFor('lines at debug level', () => tunnel.client.log().includes('session closed'))
    for (const end of [tunnel.server, tunnel.client]) {
      const answer = await fetch(`http://${end.config['http_listen']}/healthy`)
      assert.is(answer.status, 200)
      assert.match(end.log(), 'fast (recvmmsg')
      assert.match(await end.stats(), 'sessions')
    }
  }).finally(() => target.close())
})

test('without --allow-ffi it uses its own UDP sockets and says why', async () => {
  const [deno] = commandOf('deno')
  const flags = ['net', 'read', 'env', 'sys'].map((name) => `--allow-${name}`)
  const command = [deno, 'run', '--no-prompt', ...flags, join(projectRoot, 'dist/deno/cli.js')]
  const target = await scriptedTarget()
  const commands = { server: command, client: command }
  await withTunnel({ server: 'deno', client: 'deno', commands, target: target.address }, async (tunnel) => {
    await upload(tunnel, target, BYTES, 1)
    await download(tunnel, target, BYTES, 2)
    for (const { log } of [tunnel.server, tunnel.client]) {
      assert.match(log(), 'portable (fast: not available: Deno was started without --allow-ffi)')
    }
  }).finally(() => target.close())
})

test.run()
