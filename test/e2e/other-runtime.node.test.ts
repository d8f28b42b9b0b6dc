/** The build for Node, started by another runtime, runs without its calls by FFI, which would end the process there. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { commandOf, projectRoot } from '../../testkit/process.ts'
import { download, scriptedTarget, upload } from '../../testkit/traffic.ts'
import { withTunnel } from '../../testkit/tunnel.ts'

const BYTES = 50_000

const test = suite('build for Node under other runtimes')

test('Bun and Deno carry data with it, and log why its fast path is not used', async () => {
  const script = join(projectRoot, 'dist/node/cli.js')
  const commands = {
    server: [commandOf('bun')[0], script],
    client: [commandOf('deno')[0], 'run', '-A', script],
  }
  const target = await scriptedTarget()
  await withTunnel({ server: 'bun', client: 'deno', commands, target: target.address }, async (tunnel) => {
    await upload(tunnel, target, BYTES, 1)
    await download(tunnel, target, BYTES, 2)
    const reason = (name: string): string =>
      `portable (fast: not available: this is the build for Node, started by ${name})`
    assert.match(tunnel.server.log(), reason('bun'))
    assert.match(tunnel.client.log(), reason('deno'))
  }).finally(() => target.close())
})

test.run()
