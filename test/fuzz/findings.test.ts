/**
 * Defects found by the fuzzer, each reproduced by a minimal sequence of inputs.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode } from '../../host/engine/core.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { Cmd, concat, DIAL, message, push, segment, utf8 } from '../../testkit/sim/wire.ts'

const test = suite('fuzz/findings')

/** A server with one confirmed session of conv 7, and its handle. */
function serve(): { solo: Solo; handle: number } {
  const solo = new Solo({ role: 'server', sealing: 'random' })
  solo.feed(push(7, 0, concat(DIAL, message(1, utf8('hello'))), { ts: 1000 }))
  solo.confirm(7)
  return { solo, handle: solo.only.handle }
}

test('a segment that is longer than its datagram ends the search for the clock of the peer', () => {
  const { solo, handle } = serve()
  solo.write(handle, utf8('answer'))
  solo.endpoint.drain()
  for (const len of [1, 24, 0x7fffffff, 0xffffffff]) {
    // not a PUSH, so the search continues after it
    solo.feed(segment({ conv: 7, cmd: Cmd.ACK, len, una: 9, data: new Uint8Array(10) }))
    solo.feed(segment({ conv: 7, cmd: Cmd.WASK, len, data: new Uint8Array(10) }))
  }
  solo.run(1000)
  assert.is(solo.endpoint.sessions, 1)
})

test('a commit of nearly 2^32 bytes is refused', () => {
  const { solo, handle } = serve()
  const { calls } = solo.endpoint.core
  for (const length of [0xffffffff, 0xfffffffd, 0xfffffffb, 0x80000000]) {
    assert.ok(calls.stream_reserve(handle, 100) > 0)
    assert.is(calls.stream_commit(handle, length, solo.endpoint.now), ErrorCode.ARGUMENT, `${length}`)
  }
  assert.is(solo.endpoint.counter('tcp_read_bytes'), 0)
})

test('lowered timeouts apply to existing sessions', () => {
  const { solo } = serve()
  solo.run(1000)
  solo.endpoint.reconfigure({ timeout: 5 })
  solo.run(10_000)
  assert.is(solo.only.ending, 'aborted')
  assert.is(solo.endpoint.counter('sessions_time_wait'), 1)
  solo.endpoint.reconfigure({ timeWait: 1 })
  solo.run(2000)
  assert.is(solo.endpoint.sessions, 0)
})

test.run()
