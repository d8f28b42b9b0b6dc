/** The cache of addresses: every address round-trips, whatever their number. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { SocketAddress } from '../../host/net/address.ts'
import { AddressCache } from '../../host/net/address-cache.ts'

const test = suite('address cache')

const record = (address: SocketAddress, cache = new AddressCache()): Uint8Array => {
  const words = new Uint32Array(8)
  cache.write(address, words, 1)
  return new Uint8Array(words.buffer, 4, 24)
}

test('a record has the layout of docs/abi.md', () => {
  const v4 = record({ family: 4, address: '10.1.2.3', port: 0x1234, scope: 0 })
  assert.equal([...v4], [4, 0, 0x34, 0x12, 0, 0, 0, 0, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  const v6 = record({ family: 6, address: 'fe80::1:2', port: 80, scope: 7 })
  assert.equal([...v6], [6, 0, 80, 0, 7, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2])
})

test('five thousand peers that share cache slots keep their addresses', () => {
  const cache = new AddressCache()
  const words = new Uint32Array(6)
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 5000; i++) {
      const address: SocketAddress =
        i % 2 === 0
          ? { family: 4, address: `10.0.${i >> 8}.${i & 255}`, port: 1000 + (i % 7), scope: 0 }
          : { family: 6, address: `2001:db8::${(i + 1).toString(16)}`, port: 1000 + (i % 7), scope: i % 3 }
      cache.write(address, words, 0)
      assert.equal(cache.read(words, 0), address)
    }
  }
})

test('one host with many ports yields many addresses', () => {
  const cache = new AddressCache()
  const words = new Uint32Array(6)
  for (let port = 1; port < 3000; port++) {
    const address: SocketAddress = { family: 4, address: '10.0.0.1', port, scope: 0 }
    cache.write(address, words, 0)
    assert.equal(cache.read(words, 0), address)
  }
})

test('the address of a peer is the same object for every datagram', () => {
  const cache = new AddressCache()
  const words = new Uint32Array(6)
  cache.write({ family: 4, address: '10.0.0.1', port: 5, scope: 0 }, words, 0)
  const first = cache.read(words, 0)
  cache.write({ family: 4, address: '10.0.0.1', port: 5, scope: 0 }, words, 0)
  assert.ok(first === cache.read(words, 0))
})

test('an invalid address is rejected', () => {
  assert.throws(() => record({ family: 4, address: '10.0.0', port: 1, scope: 0 }), /not an IPv4 address/)
  assert.throws(() => new AddressCache().read(new Uint32Array(6), 0), /without a family/)
})

test.run()
