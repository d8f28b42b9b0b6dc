/** Every packet recorded from kcptun-libev opens to its plaintext and is sealed again to the same bytes. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { methods } from '../../host/crypto/methods.ts'
import { openAead } from '../../host/crypto/open.ts'
import { missing, variants } from '../../testkit/crypto-variants.ts'
import { skip } from '../skip.ts'
import { fromHex, sealedCaptures, toHex } from '../vectors/captures.ts'

const test = suite('recorded packets')
const captures = sealedCaptures()

/** Offset of the datagrams in the test memory, like that of an engine block. */
const BLOCK_AT = 3968
const memory = new Uint8Array(16384)

test('the captures cover all four methods', () => {
  assert.equal([...new Set([...captures.values()].map((file) => file.method))].sort(), [...methods].sort())
})

const cases = [...captures].flatMap(([file, capture]) =>
  variants.filter(({ method }) => method === capture.method).map((variant) => ({ file, capture, variant })),
)
for (const { file, capture, variant } of cases) {
  const { method, derivedKeyHex, tagBytes, nonceBytes, packets } = capture
  test(`MUST 1, 2, 3: ${file}: ${variant.name}: every packet opens to the recorded plaintext and is sealed to the same bytes`, async () => {
    const aead = await openAead(method, fromHex(derivedKeyHex ?? ''), variant.crypto)
    assert.is(aead.tagBytes, tagBytes)
    assert.is(aead.nonceBytes, nonceBytes)
    for (const [index, { sealed, plain, note }] of packets.entries()) {
      const where = `packet ${index} (${note ?? ''})`
      const datagram = fromHex(sealed)
      const inPlace = datagram.slice()
      memory.fill(0xee)
      const length = aead.openInto(datagram, datagram.length, memory, BLOCK_AT)
      assert.is(toHex(datagram), sealed, `${where}: the received datagram was changed`)
      assert.is(aead.open(inPlace, 0, inPlace.length), length, where)
      if (typeof plain !== 'string' || plain.length === 0) {
        assert.is(length, -1, `${where}: opened`)
        assert.ok(
          memory.every((byte) => byte === 0xee),
          `${where}: memory was touched`,
        )
        assert.is(toHex(inPlace), sealed, `${where}: changed though not authentic`)
        continue
      }
      assert.is(toHex(memory.subarray(BLOCK_AT, BLOCK_AT + length)), plain, where)
      assert.is(toHex(inPlace.subarray(0, length)), plain, where)
      const nonceHex = sealed.slice(-2 * nonceBytes)
      const nonceAt = BLOCK_AT + datagram.length - nonceBytes
      assert.is(toHex(memory.subarray(nonceAt, nonceAt + nonceBytes)), nonceHex, `${where}: nonce`)
      assert.is(toHex(inPlace.subarray(-nonceBytes)), nonceHex, `${where}: nonce in place`)
      assert.is(memory[BLOCK_AT - 1], 0xee, `${where}: byte before the block`)
      assert.is(memory[BLOCK_AT + datagram.length], 0xee, `${where}: byte behind the datagram`)
      // seal it again in place, with the nonce at the engine's offset
      assert.is(aead.seal(memory, BLOCK_AT, length, memory, nonceAt, memory, BLOCK_AT), datagram.length, where)
      assert.is(toHex(memory.subarray(BLOCK_AT, BLOCK_AT + datagram.length)), sealed, `${where}: sealed again`)
    }
    aead.wipe()
  })
}

for (const why of missing) skip(test, 'the packets on every library', why)

test.run()
