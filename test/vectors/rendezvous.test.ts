/**
 * Recorded rendezvous of three kcptun-libev endpoints: the messages decode as recorded, and the engine sends the same
 * introductions.
 */
import { type Address, address4, address6, addressKey } from '../../testkit/sim/address.ts'
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Solo } from '../../testkit/sim/solo.ts'
import { fromHex } from '../../testkit/sim/wire.ts'
import { type Decoded, decode } from '../../testkit/decode.ts'

interface Packet {
  readonly src: string
  readonly dst: string
  readonly t_ms: number
  readonly plain: string
  readonly decoded: Decoded
}

interface File {
  readonly hosts: Readonly<Record<string, string>>
  readonly packets: readonly Packet[]
}

function isFile(value: unknown): value is File {
  return typeof value === 'object' && value !== null && 'hosts' in value && 'packets' in value
}

/** `10.77.0.3:42281` or `[fd77::3]:42281`; only the first and last group of an IPv6 address are used. */
function record(text: string): Address {
  const colon = text.lastIndexOf(':')
  const port = Number(text.slice(colon + 1))
  const host = text.slice(0, colon).replace(/[[\]]/g, '')
  if (!host.includes(':')) {
    const address = address4(0, port)
    address.set(host.split('.').map(Number), 8)
    return address
  }
  const address = address6(Number.parseInt(host.split(':').at(-1) ?? '0', 16), port)
  const head = Number.parseInt(host.split(':')[0] ?? '0', 16)
  address.set([head >> 8, head & 255], 8)
  return address
}

const test = suite('vectors/rendezvous')

for (const name of ['rendezvous_ipv4', 'rendezvous_ipv6']) {
  const file: unknown = JSON.parse(readFileSync(`test/vectors/${name}.json`, 'utf8'))
  if (!isFile(file)) throw new Error(`${name}: not a capture`)
  const { packets } = file

  test(`MUST 53: ${name}: every plaintext parses to what was recorded`, () => {
    for (const { plain, decoded } of packets) assert.equal(decode(fromHex(plain)), decoded)
  })

  test(`MUST 55: ${name}: a rendezvous server sends the recorded introductions`, () => {
    const punches = packets.filter(({ decoded }) => 'session0' in decoded && decoded.session0 === 'PUNCH')
    const rendezvous = punches[0]?.src
    assert.ok(rendezvous)
    const solo = new Solo({ role: 'neither' })
    for (const { src, dst, plain } of packets) if (dst === rendezvous) solo.feedFrom(record(src), fromHex(plain))
    const shape = (peer: Address, decoded: Decoded): string => {
      assert.ok('session0' in decoded)
      return `${decoded.session0} ${JSON.stringify(decoded.addrs)} to ${addressKey(peer)}`
    }
    assert.equal(
      [...new Set(solo.take().map(({ peer, decoded }) => shape(peer, decoded)))].sort(),
      [...new Set(punches.map(({ dst, decoded }) => shape(record(dst), decoded)))].sort(),
    )
  })
}

test.run()
