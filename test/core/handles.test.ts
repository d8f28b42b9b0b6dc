/** Handles of sessions (docs/abi.md): an old one names nothing, and comes again as late as possible. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode } from '../../host/engine/core.ts'
import { Solo } from '../../testkit/sim/solo.ts'

const test = suite('core/handles')

test('a slot counts its uses in its handles; of the free slots the one that waits longest is used', () => {
  const solo = new Solo({ role: 'client' })
  const { endpoint } = solo
  const uses = new Map<number, number>()
  const used: number[] = []
  let old: readonly number[] = []
  for (let round = 0; round < 40; round++) {
    const handles = Array.from({ length: 3 + (round % 4) }, () => solo.open())
    for (const handle of handles) {
      const slot = handle & 0xffff
      assert.is(handle >>> 16, (uses.get(slot) ?? 0) + 1, `round ${round}, slot ${slot}`)
      uses.set(slot, handle >>> 16)
      used.push(slot)
    }
    for (const handle of old) assert.is(endpoint.core.calls.stream_peek(handle), ErrorCode.HANDLE)
    for (const handle of handles) {
      endpoint.reset(handle)
      endpoint.drain()
    }
    old = handles
  }
  assert.is(uses.size, 6, 'no more slots than sessions at a time')
  for (let i = 60; i + 6 <= used.length; i++)
    assert.is(new Set(used.slice(i, i + 6)).size, 6, `${used.slice(i, i + 6)}`)
})

test.run()
