/**
 * The checked build detects accesses beyond a block, to freed blocks and to unallocated memory, and invalid frees.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreExports, Mode, Rx } from '../../host/engine/core.ts'
import { checkRange, edgeCounters, faultText, instantiateChecked } from '../../testkit/checked-core.ts'
import { Random } from '../../testkit/sim/random.ts'
import { makePlan } from './plan.ts'
import { Subject } from './subject.ts'

const test = suite('fuzz/checked')

/** The allocator's own functions. */
interface Guard {
  take(cls: number): number
  free(block: number, cls: number): void
  checkAccess(base: number, offset: number, bytes: number): number
  checkedCopy(to: number, from: number, bytes: number): void
  checkedFill(to: number, value: number, bytes: number): void
  heap_ptr(): number
}

const CLASS = 8
const BYTES = 256

type Bad = (guard: Guard, block: number, calls: CoreExports) => void
const VIOLATIONS: readonly (readonly [name: string, text: RegExp, bad: Bad])[] = [
  ['a load just beyond a block', /beyond a block/, (guard, block) => guard.checkAccess(block, BYTES, 1)],
  ['a load that begins in a block', /across the edge/, (guard, block) => guard.checkAccess(block, BYTES - 2, 4)],
  ['a load before a block', /beyond a block|never/, (guard, block) => guard.checkAccess(block - 8, 0, 8)],
  ['a field of a null pointer', /null page/, (guard) => guard.checkAccess(0, 12, 4)],
  ['a pointer that wraps', /null page/, (guard) => guard.checkAccess(-4, 8, 4)],
  ['unallocated memory', /never allocated/, (guard) => guard.checkAccess(0x7000_0000, 0, 4)],
  ['a copy beyond a block', /across the edge/, (guard, block) => guard.checkedCopy(block, block, BYTES + 1)],
  ['a fill beyond a block', /across the edge/, (guard, block) => guard.checkedFill(block + 8, 0, BYTES)],
  ['a write of the host beyond a block', /across the edge/, (_, block, calls) => checkRange(calls, block, BYTES + 1)],
  ['a second free', /not an allocated block/, (guard, block) => twice(() => guard.free(block, CLASS))],
  ['a free of another class', /not an allocated block/, (guard, block) => guard.free(block, CLASS - 1)],
  ['a free inside of a block', /not an allocated block/, (guard, block) => guard.free(block + 64, 6)],
  [
    'a load after the free',
    /freed block/,
    (guard, block) => {
      guard.free(block, CLASS)
      guard.checkAccess(block, 16, 4)
    },
  ],
  [
    'a write after the free, without checks',
    /freed block/,
    (guard, block, calls) => {
      guard.free(block, CLASS)
      new Uint8Array(calls.memory.buffer)[block + 100] = 0
      for (let i = 0; i < 5000; i++) guard.free(guard.take(6), 6)
    },
  ],
]

function twice(call: () => void): void {
  call()
  call()
}

for (const [name, text, bad] of VIOLATIONS) {
  test(`detected: ${name}`, () => {
    const calls = instantiateChecked()
    const guard = calls as unknown as Guard
    const block = guard.take(CLASS)
    guard.checkAccess(block, BYTES - 4, 4)
    guard.checkedFill(block, 1, BYTES)
    assert.is(faultText(calls), undefined)
    assert.throws(() => bad(guard, block, calls), /unreachable/i)
    assert.match(faultText(calls) ?? '', text)
  })
}

test('detected: wild pointers that the engine dereferences', () => {
  const { config } = makePlan(1)
  const client = { ...config, mode: Mode.CLIENT, obfs: 0 }
  const guard = instantiateChecked() as CoreExports & Guard
  const { core, calls, now } = new Subject(guard, new Random(1), client, 1000)
  core.refresh()
  core.u8.set([4, 0, 1, 0, 127, 0, 0, 1], calls.peer_ptr() >>> 0)
  calls.set_peer(now)
  const before = edgeCounters(calls).slice()
  const handle = calls.stream_open(now)
  assert.ok(handle > 0)
  assert.ok(
    edgeCounters(calls).some((count, edge) => count > (before[edge] ?? 0)),
    'edges are counted',
  )
  core.refresh()
  const mayTouch = (at: number): boolean => {
    try {
      checkRange(calls, at, 4)
      return true
    } catch {
      return false
    }
  }
  let wild = 0
  const heap = guard.heap_ptr()
  for (let at = heap; at < core.u8.length; at += 64) {
    if (!mayTouch(at)) continue
    for (let word = at >>> 2; word < (at + 64) >>> 2; word++) {
      const value = core.u32[word] ?? 0
      if (value < heap || value >= core.u8.length || value % 64 !== 0) continue
      core.u32[word] = 0x7000_0000
      wild++
    }
  }
  assert.ok(wild > 0)
  assert.throws(() => {
    calls.stream_reserve(handle, 100)
    calls.stream_commit(handle, 100, now)
    calls.poll_transmit(64, now)
  }, /unreachable/i)
  assert.match(faultText(calls) ?? '', /never allocated/)
})

test('a datagram longer than any accepted one is dropped before its nonce is read', () => {
  const { config } = makePlan(1)
  const sealed = { ...config, mode: Mode.SERVER, tagBytes: 16, nonceBytes: 24, nonceStrategy: 1, kcpMtu: 1280 }
  const { core, calls, now } = new Subject(instantiateChecked(), new Random(1), sealed, 1000)
  core.refresh()
  core.u32[core.rxWord + Rx.length] = 2500
  core.u32[core.rxWord + Rx.flags] = Rx.OPENED
  core.u32[core.rxWord + Rx.address] = 4
  assert.is(calls.handle_datagrams(1, now), 0)
  assert.is(faultText(calls), undefined)
  assert.is(core.counter('drop_oversize'), 1n)
})

test.run()
