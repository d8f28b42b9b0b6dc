// time limit: 120 s
/** A trap of the engine as seen from outside: the service continues with a fresh engine in the same process. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ConfigField, type CoreExports } from '../../host/engine/core.ts'
import { loopback, MemoryNetwork, settle, until } from './memory-runtime.ts'
import { configOf, dial, get, METHODS, Party, PSK, start, TARGET, type Tunnel, tunnel } from './trap-tunnel.ts'
import { type Call, trapAt, trapNow, wrapEngines } from './traps.ts'

const test = suite('trap')

/** Traps within this time of the network's clock count together, ms. */
const TRAP_WINDOW_MS = 60_000

/** Waits for one turn of the event loop. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

for (const method of METHODS) {
  for (const end of ['client', 'server'] as const) {
    test(`a trap of the ${end} during a transfer resets its connections, and new ones work at once (${method})`, async () => {
      const all = await tunnel({ method, psk: PSK })
      const { network, printed, connect, close } = all
      const sockets = [...network.udp.values()]
      const first = await connect()
      const before = all[end].driver.core
      const trap = trapAt(before, 'handle_datagrams')
      first.send(50_000)
      const near = end === 'client' ? first : all.targets[0]
      await until(() => near?.over === 'reset', 'the connection at that end is reset')
      assert.ok(trap.sprung)
      await connect()
      assert.equal([...network.udp.values()], sockets, 'the UDP sockets are the same')
      assert.is(all[end].driver.core === before, false)
      assert.equal(trap.later, [], 'the broken engine was not called')
      assert.is(printed('the engine trapped: '), 1, 'it is logged once')
      assert.match(network.printed.join(''), /the engine trapped: \S.*kcptun-wasm \d/)
      assert.ok(
        network.printed.some((line) => /^E .* at .*trap/m.test(line)),
        'the stack is logged',
      )
      close()
    })
  }
}

/** Actions that make the client's engine call a given export. */
const ENTRIES: readonly (readonly [what: string, call: Call, provoke: (all: Tunnel, app: Party) => void])[] = [
  ['a datagram batch', 'handle_datagrams', (_, app) => app.send(10)],
  ['a TCP chunk', 'stream_reserve', (_, app) => app.send(10)],
  ['a TCP EOF', 'stream_shutdown', (_, app) => app.socket.end()],
  ['a broken TCP connection', 'stream_abort', (_, app) => app.socket.reset()],
  ['data for TCP', 'stream_consume', (_, app) => app.send(10)],
  ['an accept', 'stream_open', ({ network, client }) => void dial(network, client.tcp)],
  ['a timer', 'handle_timeout', (_, app) => app.send(10)],
  ['a transmission', 'poll_transmit', (_, app) => app.send(10)],
  ['a poll of events', 'poll_events', (_, app) => app.send(10)],
  ['a deadline query', 'next_timeout', (_, app) => app.send(10)],
  ['a reload', 'configure', ({ client, config }) => void client.reload(configOf(config))],
  ['a change of the peer', 'set_peer', ({ client }) => client.driver.setPeer(undefined)],
  ['a ping for a viewer', 'ping_peer', ({ client }) => client.monitor.ping()],
  ['a read of the sessions', 'session_info', ({ client }) => void [...client.monitor.sessions()]],
  ['a read of the counters', 'refresh_gauges', ({ client }) => void client.monitor.snapshot()],
  ['a health query', 'refresh_gauges', ({ client }) => void client.monitor.health()],
]

for (const [what, call, provoke] of ENTRIES) {
  test(`the service survives a trap in ${what}`, async () => {
    const all = await tunnel({ keepalive: 1 })
    const { client, connect, close, printed } = all
    const application = await connect()
    const trap = trapAt(client.driver.core, call)
    provoke(all, application)
    await until(() => trap.sprung, 'the trap')
    await until(() => printed('a fresh engine') === 1, 'a fresh engine')
    if (call === 'set_peer') client.driver.setPeer(loopback(5000))
    await connect()
    assert.equal(trap.later, [])
    assert.is(printed('the engine trapped'), 1)
    close()
  })
}

test('a stack overflow in the engine is handled like any other trap', async () => {
  const { client, connect, close, printed } = await tunnel()
  await connect()
  const trap = trapAt(client.driver.core, 'poll_events', () => true, 'overflow')
  client.driver.pump()
  assert.ok(trap.sprung)
  await connect()
  assert.is(printed('the engine trapped: Maximum call stack'), 1)
  close()
})

test('a connection made right after a trap is served', async () => {
  const all = await tunnel()
  const { network, client, close } = all
  for (const call of ['poll_events', 'handle_datagrams'] as const) {
    const { core } = client.driver
    const idle = await all.connect()
    const trap = trapAt(core, call)
    idle.send(1)
    while (!trap.sprung) await turn()
    await Promise.resolve()
    const next = dial(network, client.tcp)
    next.send(100)
    await until(() => next.received === 100 || next.over !== undefined, 'the echo')
    assert.is(next.over, undefined)
  }
  close()
})

test('counters never decrease, and traps are counted', async () => {
  const all = await tunnel()
  const { network, client, connect, close } = all
  await connect()
  interface Stats {
    readonly counters: Record<string, number>
    readonly gauges: Record<string, number>
    readonly host: Record<string, number>
    readonly sessions: readonly object[]
  }
  const stats = async (): Promise<Stats> => JSON.parse(await get(network, client, '/stats.json'))
  const before = await stats()
  assert.is(before.host['engine_traps'], 0)
  assert.is(before.sessions.length, 1)
  const grown = (now: Stats): void => {
    for (const [name, value] of Object.entries(before.counters)) assert.ok((now.counters[name] ?? 0) >= value, name)
    for (const [name, value] of Object.entries(before.host)) assert.ok((now.host[name] ?? 0) >= value, name)
  }
  trapAt(client.driver.core, 'poll_events')
  client.driver.pump()
  // there is no fresh engine yet
  assert.ok(client.driver.dead)
  assert.is(client.monitor.snapshot().counters.tcp_read_bytes, before.counters['tcp_read_bytes'])
  assert.equal([...client.monitor.sessions()], [])
  grown(await stats())
  await connect()
  const after = await stats()
  grown(after)
  assert.is(after.counters['tcp_read_bytes'], 2000, 'the sum of both engines')
  assert.is(after.host['engine_traps'], 1)
  assert.is(after.sessions.length, 1, 'sessions are those of the fresh engine')
  assert.is(after.gauges['sessions_established'], 1)
  assert.match(await get(network, client, '/metrics'), /^kcptun_engine_traps_total 1$/m)
  assert.match(await get(network, client, '/stats'), /\[total\] tcp: 2000B, 2000B;/)
  // a trap while a long list is read ends the list, not the service
  const steps = client.monitor.sessions()[Symbol.iterator]()
  trapAt(client.driver.core, 'session_info')
  assert.is(steps.next().done, true)
  await connect()
  close()
})

test('changes made by a reload are in force in the fresh engine', async () => {
  const all = await tunnel()
  const { client, config, connect, close } = all
  await connect()
  const first = client.driver.core
  const limit = { ...config, max_sessions: 2 }
  await client.reload(configOf(limit))
  trapAt(first, 'poll_events')
  client.driver.pump()
  await until(() => client.driver.core !== first && !client.driver.dead, 'the fresh engine')
  await connect()
  await connect()
  const third = dial(all.network, client.tcp)
  await until(() => third.over !== undefined, 'the third is refused')
  close()
})

test('rate limits, and the parts of them that an engine has, are in force in the fresh engine', async () => {
  const shared: number[][] = []
  const engines = wrapEngines((exports) => ({
    ...exports,
    share_rate(up, down, now) {
      shared.push([up, down])
      return exports.share_rate(up, down, now)
    },
  }))
  try {
    const { client, connect, close } = await tunnel({}, { rate: { up: 4, session_down: 2 } })
    await connect()
    client.driver.shareRate({ up: 32_768, down: 65_536 })
    const first = client.driver.core
    trapAt(first, 'poll_events')
    client.driver.pump()
    await until(() => client.driver.core !== first && !client.driver.dead, 'the fresh engine')
    const { core } = client.driver
    const field = (name: 'rateUp' | 'sessionRateDown') => core.u32[(core.calls.config_ptr() >>> 2) + ConfigField[name]]
    assert.equal([field('rateUp'), field('sessionRateDown')], [4000, 2000])
    assert.equal(shared, [
      [32_768, 65_536],
      [32_768, 65_536],
    ])
    const app = await connect()
    const before = client.driver.rateUse().up.bytes
    app.send(60_000)
    await until(() => client.driver.rateUse().up.heldMs > 0, 'it is held back')
    assert.ok(client.driver.rateUse().up.bytes - before < 60_000)
    close()
  } finally {
    engines.restore()
  }
})

test('a trap during a reload leaves the new configuration in force', async () => {
  const all = await tunnel()
  const { client, config, connect, close } = all
  const first = client.driver.core
  trapAt(first, 'configure')
  await client.reload(configOf({ ...config, max_sessions: 1 }))
  await until(() => client.driver.core !== first && !client.driver.dead, 'the fresh engine')
  await connect()
  const second = dial(all.network, client.tcp)
  await until(() => second.over !== undefined, 'the second is refused')
  close()
})

test('the third trap within a minute ends the endpoint and closes everything', async () => {
  const { client, server, connect, close, network, printed } = await tunnel()
  let failure: Error | undefined
  void client.failed.then((error) => {
    failure = error
  })
  for (const n of [1, 2, 3]) {
    const { core } = client.driver
    await connect()
    trapAt(core, 'poll_events')
    client.driver.pump()
    await until(() => client.driver.core !== core || failure !== undefined, `trap ${n}`)
    assert.is(failure !== undefined, n === 3, `after trap ${n}`)
  }
  assert.is(printed('the engine trapped: '), 3)
  assert.match(failure?.message ?? '', /3 times/)
  assert.equal([...network.udp.keys()], ['127.0.0.1:5000'])
  assert.is(network.listeners.size, 1, 'the target is left')
  assert.is(network.http.size, 0)
  assert.is(server.driver.dead, false)
  close()
})

test('any number of traps is survived if they are far apart', async () => {
  const { client, connect, close, network } = await tunnel()
  for (let n = 0; n < 8; n++) {
    const { core } = client.driver
    trapAt(core, 'poll_events')
    client.driver.pump()
    await until(() => client.driver.core !== core && !client.driver.dead, `trap ${n}`)
    await connect()
    network.clockAhead += TRAP_WINDOW_MS / 2
  }
  close()
})

/** Wraps exports so that the first `times` calls of `configure`, over all engines, trap. */
function trapStarts(times: number): (exports: CoreExports) => CoreExports {
  let left = times
  return (exports) => ({
    ...exports,
    configure(now) {
      if (left-- > 0) trapNow()
      return exports.configure(now)
    },
  })
}

test('a trap during the start is survived', async () => {
  const wrapped = wrapEngines(trapStarts(2))
  try {
    const { connect, close, printed } = await tunnel({}, { keepalive: 5 })
    await connect()
    assert.is(printed('the engine trapped'), 2)
    close()
  } finally {
    wrapped.restore()
  }
})

test('a start that traps three times fails and leaves nothing open', async () => {
  const network = new MemoryNetwork()
  const wrapped = wrapEngines(trapStarts(3))
  try {
    const failure = await start(network, {
      listen: '127.0.0.1:0',
      kcp_connect: '127.0.0.1:5000',
      http_listen: '127.0.0.1:0',
    }).then(
      ({ failed }) => failed,
      (error: Error) => error,
    )
    assert.match(failure.message, /3 times/)
    assert.is(network.udp.size + network.listeners.size + network.http.size, 0)
  } finally {
    wrapped.restore()
  }
})

test('a trap during the restart counts as well', async () => {
  const all = await tunnel()
  const { client, connect, close } = all
  await connect()
  const first = client.driver.core
  const wrapped = wrapEngines(trapStarts(1))
  try {
    trapAt(first, 'poll_events')
    client.driver.pump()
    await until(() => client.driver.core !== first && !client.driver.dead, 'the third engine')
    assert.is(client.monitor.hostCounters().engine_traps, 2)
    await connect()
    trapAt(client.driver.core, 'poll_events')
    client.driver.pump()
    assert.match((await client.failed).message, /3 times/)
  } finally {
    wrapped.restore()
  }
  close()
})

test('a restart that traps repeatedly ends the endpoint', async () => {
  const all = await tunnel()
  const wrapped = wrapEngines(trapStarts(100))
  try {
    trapAt(all.client.driver.core, 'poll_events')
    all.client.driver.pump()
    assert.match((await all.client.failed).message, /3 times/)
  } finally {
    wrapped.restore()
  }
  all.close()
})

test('an endpoint that is closed between trap and restart stays closed', async () => {
  const { client, network, close, printed } = await tunnel()
  trapAt(client.driver.core, 'poll_events')
  client.driver.pump()
  close()
  await settle()
  assert.is(network.udp.size, 0)
  assert.is(printed('a fresh engine'), 0)
})

test('after traps a rendezvous client and server find each other again, even while the rendezvous server is unreachable', async () => {
  const network = new MemoryNetwork()
  const targets: Party[] = []
  network.listen(TARGET, (socket) => {
    const party = new Party(socket, true)
    targets.push(party)
    setImmediate(() => socket.resume())
    return party
  })
  // a host never pings its own address
  network.here = '10.0.0.1'
  const meeting = { rendezvous_server: '10.0.0.1:4000', service_id: 'x', method: METHODS[0], psk: PSK }
  const relay = await start(network, { kcp_bind: '10.0.0.1:4000', method: METHODS[0], psk: PSK })
  const server = await start(network, { ...meeting, connect: '127.0.0.1:9000' })
  const client = await start(network, { ...meeting, listen: '127.0.0.1:0' })
  await until(() => client.monitor.path().peerFound, 'the peers found each other')
  const echo = async (): Promise<void> => {
    const application = dial(network, client.tcp)
    application.send(10)
    await until(() => application.received === 10 || application.over !== undefined, 'the echo')
    assert.is(application.over, undefined)
  }
  await echo()
  // the client still has its peer's address and does not need the rendezvous server
  const rendezvous = network.udp.get('10.0.0.1:4000')
  assert.ok(rendezvous)
  rendezvous.dead = 'silently'
  const first = client.driver.core
  trapAt(first, 'poll_events')
  client.driver.pump()
  await until(() => client.driver.core !== first && !client.driver.dead, 'the fresh engine')
  await echo()
  rendezvous.dead = false
  // the server registers again, also after a trap of the rendezvous server
  for (const end of [server, relay]) {
    const core = end.driver.core
    trapAt(core, 'poll_events')
    end.driver.pump()
    await until(() => end.driver.core !== core && !end.driver.dead, 'the fresh engine')
  }
  await echo()
  for (const end of [client, server, relay]) end.close()
})

test.run()
