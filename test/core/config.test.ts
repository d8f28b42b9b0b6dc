/**
 * The config block, entropy, clocks, and the module itself (docs/abi.md).
 */

import fc from 'fast-check'
import base64 from 'kcptun-core-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  ConfigField,
  type ConfigFieldName,
  Core,
  type CoreConfig,
  ErrorCode,
  instantiate,
  UNSET,
} from '../../host/engine/core.ts'
import { defaultConfig, MS, SECOND } from '../../testkit/sim/endpoint.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { sealingConfig } from '../../testkit/sim/sealing.ts'
import { Solo, TESTER } from '../../testkit/sim/solo.ts'
import { Cmd, control, DIAL, message, push, segment, What } from '../../testkit/sim/wire.ts'

/** `configure` on a fresh engine. */
function configure(config: CoreConfig, entropy = 4096): number {
  const calls = instantiate()
  const core = new Core(calls)
  if (entropy > 0) calls.entropy_filled(entropy)
  const word = calls.config_ptr() >>> 2
  const names = Object.keys(ConfigField) as ConfigFieldName[]
  for (const name of names) core.u32[word + ConfigField[name]] = config[name] ?? UNSET
  return calls.configure(0)
}

const BAD: Readonly<Partial<Record<ConfigFieldName, readonly number[]>>> = {
  mode: [3, 8, 0xffffffff],
  tagBytes: [1, 15, 17],
  nonceBytes: [1, 16, 25],
  nonceStrategy: [3, 100],
  kcpMtu: [0, 24, 1501, 0xffffffff],
  sndwnd: [0, 65537],
  rcvwnd: [0, 65537],
  nodelay: [3],
  interval: [0, 5001],
  resend: [101],
  nc: [2],
  flush: [3],
  timeout: [0, 86401],
  linger: [0],
  keepalive: [86401],
  timeWait: [0],
  memoryCeiling: [0, 1000],
  maxSessions: [0, 65536],
  replayCapacity: [(1 << 20) + 1],
  maxHalfOpen: [65536],
  confirm: [2],
}

const GOOD: Partial<Record<ConfigFieldName, readonly number[]>> = {
  mode: [0, 1, 2, 4, 5, 6],
  sndwnd: [16, 65536, UNSET],
  rcvwnd: [16, 65536, UNSET],
  nodelay: [0, 1, 2, UNSET],
  interval: [10, 500, UNSET],
  resend: [0, 100, UNSET],
  nc: [0, 1, UNSET],
  flush: [0, 1, 2, UNSET],
  timeout: [60, 86400],
  linger: [5, 600],
  keepalive: [0, 600],
  timeWait: [5, 3600],
  maxSessions: [1, 65535],
  // kcp.mtu 300 over IPv6 with a 40-byte method; 1500 over IPv4 without
  kcpMtu: [212, 1472],
}

const test = suite('core/config')

test('the module imports nothing', () => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
  assert.equal(WebAssembly.Module.imports(new WebAssembly.Module(bytes)), [])
})

for (const [name, values] of Object.entries(BAD) as [ConfigFieldName, readonly number[]][]) {
  test(`an invalid ${name} is rejected with the index of the field`, () => {
    for (const value of values) {
      const result = configure({ ...defaultConfig('server'), [name]: value })
      assert.is(result, ErrorCode.CONFIG - ConfigField[name], `${name} = ${value}`)
    }
  })
}

test('the documented ranges are accepted', () => {
  for (const [name, values] of Object.entries(GOOD) as [ConfigFieldName, readonly number[]][]) {
    for (const value of values) {
      assert.is(configure({ ...defaultConfig('server'), [name]: value }), 0, `${name} = ${value}`)
    }
  }
  for (const sealing of ['random', 'counter'] as const) {
    assert.is(configure({ ...defaultConfig('client'), ...sealingConfig(sealing) }), 0)
  }
})

test('an invalid field in a later configure leaves the endpoint unchanged', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 0, DIAL))
  assert.throws(() => solo.endpoint.reconfigure({ timeout: 0 }), /timeout/)
  solo.feed(push(5, 1, message(1, new Uint8Array([1]))))
  assert.equal(solo.only.data, new Uint8Array([1]))
})

test('configure fails without entropy', () => {
  assert.is(configure(defaultConfig('client'), 0), ErrorCode.ENTROPY)
  assert.is(configure(defaultConfig('client'), 64), 0)
})

test('changed timeouts apply at once, kcp fields to new sessions', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 0, DIAL))
  solo.endpoint.reconfigure({ timeout: 60, rcvwnd: 512, timeWait: 5 })
  solo.feed(push(6, 0, DIAL))
  for (const conv of [5, 6]) solo.feed(segment({ conv, cmd: Cmd.WASK }))
  solo.run(50)
  const windows = new Map<number, number>()
  for (const { conv, segments } of solo.take()) {
    for (const { cmd, wnd } of segments) if (cmd === 'WINS') windows.set(conv, wnd)
  }
  assert.is(windows.get(5), 256)
  assert.is(windows.get(6), 512)
  solo.run(75_000)
  assert.is(solo.endpoint.sessions - solo.endpoint.counter('sessions_time_wait'), 0)
})

test('transfers complete with small entropy refills, and no nonce repeats', () => {
  for (const sealing of ['random', 'counter'] as const) {
    const pair = new Pair({ seed: 3, sealing, entropyChunk: 64 })
    const connection = pair.connect({
      client: { bytes: 200_000, stream: 1 },
      server: { bytes: 200_000, stream: 2 },
    })
    assert.ok(pair.finish(60))
    assert.ok(connection.clean, connection.describe())
    if (sealing === 'random') assert.ok(pair.client.refills > 10, `${pair.client.refills} refills`)
  }
})

test('E_ENTROPY loses no datagram: pending ones are sent after the refill', () => {
  const solo = new Solo({ role: 'server', sealing: 'random', entropyChunk: 64 })
  const before = solo.endpoint.refills
  solo.feed(...Array.from({ length: 20 }, (_, i) => control(What.PING, i)))
  assert.is(solo.take().length, 20)
  assert.ok(solo.endpoint.refills > before)
})

test('renew_nonce without entropy returns E_ENTROPY and keeps the old base', () => {
  const solo = new Solo({ role: 'server', sealing: 'counter', entropyChunk: 64 })
  const { calls } = solo.endpoint.core
  let results = 0
  for (let i = 0; i < 20; i++) if (calls.renew_nonce() === ErrorCode.ENTROPY) results++
  assert.ok(results > 0)
  solo.feed(control(What.PING, 1))
  assert.is(solo.take().length, 1)
})

test('a transfer survives a clock wrap at any time', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4000 }), fc.integer({ min: 1, max: 4000 }), (client, server) => {
      const pair = new Pair({
        seed: client,
        clientClock: 0x1_0000_0000 - client,
        serverClock: 0x1_0000_0000 - server,
        up: { delay: 30, loss: 0.05 },
        down: { delay: 30, loss: 0.05 },
      })
      const connection = pair.connect({
        client: { bytes: 150_000, stream: 1 },
        server: { bytes: 150_000, stream: 2 },
      })
      assert.ok(pair.finish(60), connection.describe())
      assert.ok(connection.clean, connection.describe())
    }),
    { numRuns: 40 },
  )
})

test('an idle session survives two clock wraps (14 days)', () => {
  const pair = new Pair({ seed: 1, clientClock: 0xfffff000, serverClock: 0x7ffff000 })
  const connection = pair.connect({
    client: { bytes: 10, stream: 1, fin: 'last' },
    server: { bytes: 10, stream: 2, finPause: 14 * 24 * 3600 * 1000 },
  })
  assert.ok(pair.finish(15 * 24 * 3600))
  assert.ok(connection.clean, connection.describe())
})

test('after days of suspension open sessions are aborted and new ones can be opened', () => {
  for (const days of [1, 3, 4, 6, 7]) {
    const solo = new Solo({ role: 'client', config: { timeout: 600 } })
    const handle = solo.open()
    solo.feed(segment({ conv: solo.endpoint.convOf(handle), cmd: Cmd.ACK, una: 1 }))
    solo.endpoint.time += days * 24 * 3600 * SECOND
    solo.endpoint.expire()
    solo.endpoint.drain()
    solo.run(700_000)
    assert.is(solo.stream(handle).ending, 'aborted', `${days} days`)
    assert.ok(solo.open() > 0)
  }
})

test('next_timeout is exact: a lone ACK is sent at the deadline, neither earlier nor later', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 0, DIAL))
  solo.take()
  const wait = solo.endpoint.deadline - solo.endpoint.time
  assert.ok(wait > 0 && wait <= 20 * MS, `${wait} ticks`)
  solo.run((wait - 1) / MS)
  assert.is(solo.take().length, 0)
  solo.run(1 / MS)
  assert.is(solo.take().length, 1)
})

test('batches may be larger than one drain can send', () => {
  const solo = new Solo({ role: 'server' })
  for (let round = 0; round < 4; round++) {
    const flights = Array.from({ length: 128 }, (_, i) => push(1 + i + 128 * round, 0, DIAL))
    solo.feedRaw(TESTER, ...flights)
  }
  solo.run(50)
  assert.is(solo.streams.size, 512)
  assert.is(new Set(solo.take().map(({ conv }) => conv)).size, 512)
})

test.run()
