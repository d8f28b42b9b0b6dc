// time limit: 300 s
/**
 * Every pair of runtimes with every method transfers data and half-closes in both orders over a lossy link, over IPv4
 * and IPv6.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ALL_PAIRS } from '../../testkit/pairs.ts'
import { answerAfterEnd, download, echo, scriptedTarget, upload, uploadAfterEnd } from '../../testkit/traffic.ts'
import type { Method, TunnelOptions } from '../../testkit/tunnel.ts'
import { METHODS, nameOf, withTunnel } from '../../testkit/tunnel.ts'

const UPLOAD_BYTES = 150_000
const DOWNLOAD_BYTES = 300_000
const ECHO_BYTES = 50_000
const HALF_CLOSE_BYTES = 40_000
const LINK = { delay: 5, jitter: 2, loss: 0.02, duplicate: 0.01, reorder: 0.02 }
/** Largest UDP payload without kcp.mtu: packets of 1500 bytes (protocol.md 4.1). */
const LARGEST = { 4: 1472, 6: 1452 }

const test = suite('transfers over a lossy link')
let seed = 1

function add(options: Pick<TunnelOptions, 'server' | 'client'> & { method: Method; family: 4 | 6 }): void {
  const linkSeed = seed++
  const must = options.method === 'none' ? 'MUST 11, 15, 35, 36, 74' : 'MUST 11, 35, 36, 74'
  test(`${must}: all transfers succeed: ${nameOf(options)}`, async () => {
    const target = await scriptedTarget({ host: options.family === 6 ? '::1' : '127.0.0.1' })
    let largest = 0
    const tap = (_: unknown, datagram: Buffer): boolean => {
      largest = Math.max(largest, datagram.length)
      return true
    }
    const link = { ...LINK, seed: linkSeed, tap }
    await withTunnel({ ...options, link, target: target.address }, async (tunnel) => {
      await upload(tunnel, target, UPLOAD_BYTES, linkSeed)
      await download(tunnel, target, DOWNLOAD_BYTES, linkSeed)
      await echo(tunnel, target, ECHO_BYTES, linkSeed)
      await answerAfterEnd(tunnel, target, HALF_CLOSE_BYTES, linkSeed)
      await uploadAfterEnd(tunnel, target, HALF_CLOSE_BYTES, linkSeed)
      assert.ok(largest <= LARGEST[options.family], `a datagram of ${largest} bytes was sent`)
      assert.ok(tunnel.link.counters.down.lost > 0, 'the link lost something')
    }).finally(() => target.close())
  })
}

for (const pair of ALL_PAIRS) for (const method of METHODS) add({ ...pair, method, family: 4 })
for (const [i, pair] of ALL_PAIRS.entries()) add({ ...pair, method: METHODS[i + 1] ?? 'none', family: 6 })
add({ server: 'node', client: 'bun', method: 'none', family: 6 })

test.run()
