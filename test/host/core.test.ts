/** The built engine, loaded as hosts load it. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ABI_VERSION, Core, type CoreConfig, instantiate, NEVER_RECEIVED, Tx, UNSET } from '../../host/engine/core.ts'

const test = suite('core')

const CLIENT: CoreConfig = {
  mode: 2,
  tagBytes: 0,
  nonceBytes: 0,
  nonceStrategy: 0,
  kcpMtu: 1372,
  sndwnd: UNSET,
  rcvwnd: UNSET,
  nodelay: UNSET,
  interval: UNSET,
  resend: UNSET,
  nc: UNSET,
  flush: UNSET,
  timeout: 600,
  linger: 30,
  keepalive: 25,
  timeWait: 120,
  memoryCeiling: 64 << 20,
  maxSessions: 100,
  replayCapacity: 0,
  maxHalfOpen: 0,
  confirm: 0,
  sendOnce: 0,
  searchMtu: 0,
}

test('the embedded module starts and has the ABI version of this package', () => {
  assert.is(instantiate().abi_version(), ABI_VERSION)
})

test('two instances share no memory', () => {
  assert.is.not(instantiate().memory.buffer, instantiate().memory.buffer)
})

test('a module that is not the engine is rejected with the names of the missing exports', () => {
  const empty = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0])
  assert.throws(() => instantiate(empty), /missing exports: .*configure.*poll_transmit/)
})

test('a config field out of range is named', () => {
  const core = new Core(instantiate())
  core.fillEntropy()
  assert.throws(() => core.configure({ ...CLIENT, maxSessions: 0 }, 1), /^engine: maxSessions = 0 is out of range$/)
})

test('a client refuses connections without a peer, and pings the peer once it is set', () => {
  const core = new Core(instantiate())
  core.fillEntropy()
  core.configure(CLIENT, 1)
  core.calls.refresh_gauges(1)
  assert.is(core.counter('last_received_age'), NEVER_RECEIVED)
  assert.is(core.calls.stream_open(1), -3)
  core.u32.set([4 | (5000 << 16), 0, 0x0100007f, 0, 0, 0], core.calls.peer_ptr() >>> 2)
  core.calls.set_peer(1)
  // a PING is sent at the start (protocol.md 7.3)
  while (core.calls.next_timeout(1) === 0) core.calls.handle_timeout(1)
  assert.is(core.calls.poll_transmit(8, 1), 1)
  core.refresh()
  const at = core.txWord + Tx.source
  const source = core.u32[at] ?? 0
  assert.equal([...core.u8.subarray(source, source + 6)], [0, 0, 0, 0, 0, 0])
  assert.is(core.counter('pings_sent'), 1n)
})

test.run()
