/** The driver replaces an engine that trapped with a fresh one, and draws new randomness after a clock jump. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { coreConfig } from '../../host/engine/config-block.ts'
import { ConfigField, EventType, NonceStrategy } from '../../host/engine/core.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { bench, PEER, Recorder } from './driver-bench.ts'
import { loopback, until } from './memory-runtime.ts'
import { stubCore } from './stub-core.ts'

const test = suite('driver: traps')

const TRAP = (): never => {
  throw new WebAssembly.RuntimeError('unreachable')
}

test('a trap of the engine resets every connection once, and the next engine takes over socket and listener', async () => {
  const stub = stubCore({ stream_consume: TRAP })
  const fresh = stubCore()
  const { driver, handlers, udp, fatal, network, sent } = await bench(stub, {}, [fresh])
  const connection = new Recorder()
  const tcp = driver.accept(connection)
  const other = new Recorder()
  driver.accept(other)
  assert.ok(tcp)
  stub.readable.set(1, new Uint8Array([1]))
  stub.events.push([EventType.READABLE, 1, 0], [EventType.READABLE, 2, 0])
  driver.pump()
  assert.is(connection.actions.at(-1), 'reset')
  assert.is(other.actions.at(-1), 'reset')
  assert.match(network.printed.join(''), 'the engine trapped: unreachable; 2 streams lost')
  // no call reaches the broken engine any more
  const calls = stub.calls.length
  handlers.onDatagram(new Uint8Array(10), PEER)
  handlers.onBatchEnd()
  handlers.onWritable()
  tcp.onData(new Uint8Array(10))
  tcp.onClose(new Error('x'))
  driver.pump()
  driver.setPeer(PEER)
  assert.is(driver.accept(new Recorder()), null)
  await until(() => !driver.dead, 'the next engine')
  assert.is(stub.calls.length, calls)
  assert.is(driver.diagnostics.counters.engine_traps, 1)
  assert.is(fatal.length, 0)
  assert.is(udp.closed, false)
  // handle numbers restart, and events of old connections are ignored
  const next = new Recorder()
  assert.ok(driver.accept(next))
  tcp.onData(new Uint8Array(10))
  tcp.onClose(new Error('x'))
  fresh.outgoing.push(7)
  fresh.events.push([EventType.EOF, 1, 0])
  handlers.onDatagram(new Uint8Array(60).fill(3), PEER)
  handlers.onBatchEnd()
  assert.equal(next.actions, ['resume', 'end'])
  assert.equal(fresh.seen, [{ length: 60, opened: true, port: 7000, first: 3 }])
  assert.equal(sent, [7, 100])
  driver.close()
  assert.ok(udp.closed)
})

test('the next engine receives the state of the previous one and the changes made while none was running', async () => {
  const stub = stubCore({ ping_peer: TRAP })
  const fresh = stubCore()
  const { driver } = await bench(stub, {}, [fresh])
  const config = coreConfig(parseConfig(new TextEncoder().encode('{"listen":":1","kcp_connect":":2"}')), undefined, 4)
  driver.start(config)
  driver.setPeer(loopback(7001))
  const [server, local, others] = [loopback(7002), loopback(7003), [loopback(7005)]]
  driver.setRendezvous({ server, others, local, service: new Uint8Array([9, 8]) })
  driver.pingPeer()
  assert.ok(driver.dead)
  driver.reconfigure({ ...config, keepalive: 77 })
  driver.setPeer(loopback(7004))
  await until(() => !driver.dead, 'the next engine')
  const order = ['entropy_filled', 'configure', 'set_peer', 'set_rendezvous', 'add_rendezvous']
  assert.equal(
    fresh.calls.filter((call) => order.includes(call)),
    order,
  )
  const { calls, u8, u32 } = fresh.core
  assert.is(u32[(calls.config_ptr() >>> 2) + ConfigField.keepalive], 77)
  const port = (ptr: number): number => (u32[ptr >>> 2] ?? 0) >>> 16
  // the last of the rendezvous server's addresses
  assert.equal([calls.peer_ptr(), calls.rendezvous_ptr(), calls.local_ptr()].map(port), [7004, 7005, 7003])
  assert.equal([...u8.subarray(calls.service_ptr(), calls.service_ptr() + 2)], [9, 8])
  driver.close()
})

test('datagrams not yet passed to the broken engine are not passed to the next one', async () => {
  const stub = stubCore({ stream_open: TRAP })
  const fresh = stubCore()
  const { driver, handlers } = await bench(stub, {}, [fresh])
  handlers.onDatagram(new Uint8Array(50), PEER)
  assert.is(driver.accept(new Recorder()), null)
  await until(() => !driver.dead, 'the next engine')
  handlers.onBatchEnd()
  assert.equal(fresh.seen, [])
  driver.close()
})

test('deadlines of the next engine are handled, those of the broken one are not', async () => {
  const stub = stubCore({ stream_open: TRAP })
  const fresh = stubCore()
  const { driver } = await bench(stub, {}, [fresh])
  stub.timeout = 80
  driver.pump()
  fresh.timeout = 40
  driver.accept(new Recorder())
  const calls = stub.calls.length
  await until(() => driver.counts.timerWakes > 0, 'a timer')
  assert.is(stub.calls.length, calls)
  fresh.timeout = 0
  driver.pump()
  assert.ok(fresh.calls.includes('handle_timeout'))
  driver.close()
})

test('send buffers that ran out before a trap are requested again after it', async () => {
  const stub = stubCore({ stream_open: TRAP })
  const fresh = stubCore()
  const { driver, udp, sent } = await bench(stub, {}, [fresh])
  udp.buffers = 0
  stub.outgoing.push(...new Array(20).fill(1))
  driver.pump()
  const before = sent.length
  driver.accept(new Recorder())
  udp.buffers = 100
  fresh.outgoing.push(5)
  await until(() => sent.length > before, 'the next engine sends')
  assert.equal(sent.slice(before), [5, 100])
  driver.close()
})

test('the third trap within a minute closes the sockets and is reported to the owner once', async () => {
  const broken = () => stubCore({ stream_open: TRAP })
  const clock = new VirtualClock()
  const { driver, udp, fatal } = await bench(broken(), {}, [broken(), broken(), broken()], clock)
  for (const n of [1, 2, 3]) {
    assert.is(fatal.length, 0)
    driver.accept(new Recorder())
    assert.is(udp.closed, n === 3)
    for (let turn = 0; n < 3 && driver.dead && turn < 100; turn++) await clock.settle()
    assert.is(driver.dead, n === 3)
  }
  assert.is(fatal.length, 1)
  await clock.advance(120_000)
  assert.ok(driver.dead)
  assert.is(fatal.length, 1)
})

test('after a wall-clock jump all randomness is redrawn once, before anything is sent', async () => {
  const stub = stubCore()
  const { driver, network, sent } = await bench(stub)
  const config = coreConfig(parseConfig(new TextEncoder().encode('{"listen":":1","kcp_connect":":2"}')), undefined, 4)
  driver.start({ ...config, nonceStrategy: NonceStrategy.COUNTER })
  const later = (jumps: number): string[] => {
    stub.calls.length = 0
    network.clockAhead += 1500
    // the wall clock advances equally
    network.wallAhead += 1500
    stub.outgoing.push(1)
    driver.pump()
    assert.is(network.printed.filter((line) => line.includes('the clock jumped')).length, jumps)
    return stub.calls.filter((call) => /entropy|nonce|transmit/.test(call))
  }
  assert.equal(later(0), ['poll_transmit 1'])
  network.wallAhead += 3_600_000
  assert.equal(later(1), ['entropy_filled', 'renew_nonce', 'poll_transmit 1'])
  assert.equal(later(1), ['poll_transmit 1'])
  assert.is(sent.length, 6)
  driver.close()
})

test.run()
