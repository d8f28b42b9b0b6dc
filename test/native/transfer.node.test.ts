// time limit: 300 s
/** The native host transfers TCP as client and as server with every method; its peer is itself, Node or kcptun-libev. */
import { suite } from 'uvu'
import { buildNative } from '../../testkit/native.ts'
import { libevPath, type Program } from '../../testkit/process.ts'
import { answerAfterEnd, download, echo, scriptedTarget, upload, uploadAfterEnd } from '../../testkit/traffic.ts'
import { METHODS, nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { skip } from '../skip.ts'

const BYTES = 200_000
const LOSSY = { delay: 5, jitter: 3, loss: 0.03, duplicate: 0.01, reorder: 0.02, seed: 7 }

const test = suite('native: transfer')
const built = buildNative()
const PAIRS: readonly { readonly server: Program; readonly client: Program }[] = [
  { server: 'native', client: 'native' },
  { server: 'node', client: 'native' },
  { server: 'native', client: 'node' },
  { server: 'libev', client: 'native' },
  { server: 'native', client: 'libev' },
]

for (const [at, pair] of PAIRS.entries()) {
  const hasLibev = pair.server === 'libev' || pair.client === 'libev'
  for (const [index, method] of METHODS.entries()) {
    // the ciphers are those of Node's peer
    if (hasLibev && index % 3 !== 1) continue
    // each peer over a good and a lossy link, and over IPv6 once
    const isLossy = (index + at) % 2 === 1
    const family = index === 1 ? 6 : 4
    const title = `${nameOf({ ...pair, method, family })}, ${isLossy ? 'a lossy link' : 'a good link'}`
    if ('reason' in built || (hasLibev && libevPath === undefined)) {
      const reason = 'reason' in built ? built.reason : 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program'
      skip(test, title, reason)
      continue
    }
    test(title, async () => {
      const target = await scriptedTarget()
      try {
        const link = isLossy ? LOSSY : {}
        await withTunnel({ ...pair, method, family, target: target.address, link }, async (tunnel) => {
          await upload(tunnel, target, BYTES, 1)
          await download(tunnel, target, BYTES, 2)
          await echo(tunnel, target, BYTES, 3)
          // kcptun-libev ends a session at the first EOF
          if (hasLibev) return
          await answerAfterEnd(tunnel, target, BYTES, 4)
          await uploadAfterEnd(tunnel, target, BYTES, 5)
        })
      } finally {
        await target.close()
      }
    })
  }
}

test.run()
