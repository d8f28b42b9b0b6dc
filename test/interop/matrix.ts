/**
 * Live interoperation with kcptun-libev, for each pair, method and link. The transfers are those of testkit/traffic.ts.
 * Half-close is tested where kcptun-libev supports it (protocol.md 6.5): not when it is the endpoint that receives EOF
 * first.
 */
import { suite } from 'uvu'
import type { Program } from '../../testkit/process.ts'
import { libevPath } from '../../testkit/process.ts'
import { answerAfterEnd, download, echo, scriptedTarget, upload, uploadAfterEnd } from '../../testkit/traffic.ts'
import { METHODS, nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { skip } from '../skip.ts'

const UPLOAD_BYTES = 300_000
const DOWNLOAD_BYTES = 700_000
const ECHO_BYTES = 100_000
const HALF_CLOSE_BYTES = 60_000

const LINKS = {
  'a good link': { delay: 2 },
  'a lossy link': { delay: 10, jitter: 3, loss: 0.03, duplicate: 0.01, reorder: 0.02 },
}

/** Registers and runs the tests of the given pairs, or one skipped test when kcptun-libev is not available. */
export function testPairs(title: string, pairs: readonly { server: Program; client: Program }[]): void {
  const test = suite(`interop: ${title}`)
  if (libevPath === undefined) {
    skip(test, title, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
    test.run()
    return
  }
  let seed = 1000
  for (const { server, client } of pairs) {
    for (const method of METHODS) {
      for (const [linkName, shape] of Object.entries(LINKS)) {
        const linkSeed = seed++
        test(`transfers succeed over ${linkName}: ${nameOf({ server, client, method })}`, async () => {
          const target = await scriptedTarget()
          const link = { ...shape, seed: linkSeed }
          const options = { server, client, method, link, target: target.address }
          await withTunnel(options, async (tunnel) => {
            await upload(tunnel, target, UPLOAD_BYTES, linkSeed)
            await download(tunnel, target, DOWNLOAD_BYTES, linkSeed)
            await echo(tunnel, target, ECHO_BYTES, linkSeed)
            if (server !== 'libev') await answerAfterEnd(tunnel, target, HALF_CLOSE_BYTES, linkSeed)
            if (client !== 'libev') await uploadAfterEnd(tunnel, target, HALF_CLOSE_BYTES, linkSeed)
          }).finally(() => target.close())
        })
      }
    }
  }
  test.run()
}
