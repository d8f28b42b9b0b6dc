/**
 * The UDP socket and name resolution during network and resolver failures, on an in-memory network in virtual time.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Log } from '../../host/log/log.ts'
import type { Libc, OperatingSystem, Runtime } from '../../host/runtime.ts'
import { decode } from '../../testkit/decode.ts'
import { type MemoryNetwork, NO_CIPHERS } from './memory-runtime.ts'
import { Application, configOf, printed, SERVER, start, tunnel, VirtualNetwork } from './virtual-network.ts'

const test = suite('udp transport')

/** Descriptors of the watches of interfaces and of the clock. */
const [NETLINK, TIMER] = [3, 4]

for (const effect of ['with send errors', 'silently']) {
  test(`a client whose address is removed (${effect}) reopens its socket with the same port, and connections survive`, async () => {
    const network = new VirtualNetwork()
    const { client, close } = await tunnel(network)
    const { port } = client.udp
    const application = new Application(network, client)
    await application.echo('before')
    network.here = '127.0.0.9'
    const from = network.udp.get(`127.0.0.1:${port}`)
    assert.ok(from)
    from.dead = effect === 'silently' ? 'silently' : true
    await network.until(() => network.udp.has(`127.0.0.9:${port}`), 'the socket has the new address and the old port')
    assert.not.ok(network.udp.has(`127.0.0.1:${port}`))
    await application.echo('after')
    assert.is(printed(network, `peer moved from 127.0.0.1:${port} to 127.0.0.9:${port}`), 1, 'the server logs it')
    application.close()
    close()
  })
}

for (const keepalive of [5, 0]) {
  test(`a client whose port is not answered, but a new one is, moves there with its connections (keepalive ${keepalive})`, async () => {
    const network = new VirtualNetwork()
    const { client, close } = await tunnel(network, { keepalive })
    const { port } = client.udp
    const application = new Application(network, client)
    await application.echo('before')
    const from = network.udp.get(`127.0.0.1:${port}`)
    assert.ok(from)
    from.dead = 'silently'
    const opening = new Application(network, client)
    await application.echo('after')
    assert.is(printed(network, `not at port ${port}`), 1)
    assert.not.ok(network.udp.has(`127.0.0.1:${port}`), 'the old socket is closed')
    await network.until(() => opening.over, 'a connection that was opening is reset')
    await new Application(network, client).echo('a new connection')
    application.close()
    close()
  })
}

test('an answer in another order, at a lookup or a reload, moves nothing', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.1 127.0.0.2')
  const { client, config, close } = await tunnel(network, { kcp_connect: 'server.test:5000' })
  const socket = network.udp.get(`127.0.0.1:${client.udp.port}`)
  const application = new Application(network, client)
  await application.echo('before')
  network.hosts.set('server.test', '127.0.0.2 127.0.0.1')
  await client.reload(configOf({ ...config, timeout: 100 }))
  await application.echo('after the reload')
  assert.is(network.udp.get(`127.0.0.1:${client.udp.port}`), socket, 'the same socket')
  assert.is(printed(network, 'udp connect: 127.0.0.1:5000'), 1)
  assert.is(printed(network, 'udp connect: 127.0.0.2:5000'), 0)
  application.close()
  close()
})

test('when the address in use does not answer, another one of its name is used, and is kept', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.1 127.0.0.2 127.0.0.3')
  const { client, server, config, close } = await tunnel(network, { kcp_connect: 'server.test:5000' })
  const { port } = client.udp
  const application = new Application(network, client)
  await application.echo('before')
  server.close()
  application.send()
  const opening = new Application(network, client)
  const second = await start(network, { ...SERVER, kcp_bind: '127.0.0.3:5000' })
  await network.until(() => printed(network, 'udp connect: 127.0.0.3:5000') === 1, 'the client uses another address')
  await network.until(() => application.over && opening.over, 'the old connections end')
  assert.is(application.ending, 'RST', 'another server does not know them')
  assert.is(opening.ending, 'RST')
  await new Application(network, client).echo('a new connection')
  assert.ok(network.udp.has(`127.0.0.1:${port}`), 'the local port is kept')
  await client.reload(configOf(config))
  assert.is(printed(network, 'udp connect: 127.0.0.1:5000'), 1, 'the first address is not used again')
  assert.is(printed(network, 'udp connect: 127.0.0.3:5000'), 1)
  second.close()
  close()
})

test('an address without a route is passed over at the start, and when its route is lost', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.9 127.0.0.1 127.0.0.2')
  network.unreachable.add('127.0.0.9')
  const { client, server, close } = await tunnel(network, { kcp_connect: 'server.test:5000' })
  await new Application(network, client).echo('at the second address')
  server.close()
  network.unreachable.add('127.0.0.1')
  const second = await start(network, { ...SERVER, kcp_bind: '127.0.0.2:5000' })
  await network.until(() => printed(network, 'udp connect: 127.0.0.2:5000') === 1, 'the third address')
  await new Application(network, client).echo('at the third address')
  second.close()
  close()
})

test('another address of the name is used with a port that kcp_bind sets', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.1 127.0.0.2')
  const { client, server, close } = await tunnel(network, {
    kcp_connect: 'server.test:5000',
    kcp_bind: '0.0.0.0:6001',
  })
  await new Application(network, client).echo('before')
  server.close()
  const second = await start(network, { ...SERVER, kcp_bind: '127.0.0.2:5000' })
  await network.until(() => printed(network, 'udp connect: 127.0.0.2:5000') === 1, 'the client uses another address')
  await new Application(network, client).echo('a new connection')
  assert.ok(network.udp.has('127.0.0.1:6001'))
  second.close()
  close()
})

test('errors of the socket do not end the search for another port before its end', async () => {
  const network = new VirtualNetwork()
  const { client, close } = await tunnel(network)
  const application = new Application(network, client)
  await application.echo('before')
  const { port } = client.udp
  network.blocked = port
  await application.echo('after')
  assert.ok(printed(network, `not at port ${port}`) === 1)
  application.close()
  close()
})

test('a port that kcp_bind sets is kept although a new one is answered, and that is logged once', async () => {
  const network = new VirtualNetwork()
  const { close } = await tunnel(network, { kcp_bind: '0.0.0.0:6001' })
  const from = network.udp.get('127.0.0.1:6001')
  assert.ok(from)
  from.dead = 'silently'
  await network.until(() => printed(network, 'kcp_bind sets the port') > 0, 'the warning')
  await network.pass(200_000)
  assert.is(printed(network, 'kcp_bind sets the port'), 1)
  assert.is(network.udp.get('127.0.0.1:6001'), from)
  close()
})

test('a client that could open no socket for its new address opens one when the port is free again', async () => {
  const network = new VirtualNetwork()
  const { client, close } = await tunnel(network, { kcp_bind: '0.0.0.0:6001' })
  const application = new Application(network, client)
  await application.echo('before')
  const from = network.udp.get('127.0.0.1:6001')
  assert.ok(from)
  // the port is in use there
  network.udp.set('127.0.0.9:6001', from)
  network.here = '127.0.0.9'
  from.dead = 'silently'
  await network.until(() => printed(network, 'cannot reopen the previous socket') > 0, 'the port is taken')
  network.udp.delete('127.0.0.9:6001')
  await application.echo('after')
  assert.ok(network.udp.has('127.0.0.9:6001'))
  application.close()
  close()
})

test('during a network outage of a minute the socket is kept, and traffic resumes when the route is back', async () => {
  const network = new VirtualNetwork()
  const { client, close } = await tunnel(network)
  const application = new Application(network, client)
  await application.echo('before')
  const key = `127.0.0.1:${client.udp.port}`
  const socket = network.udp.get(key)
  assert.ok(socket)
  socket.dead = 'silently'
  network.here = undefined
  await network.pass(60_000)
  assert.is(network.udp.get(key), socket, 'nothing else could be opened')
  network.here = '127.0.0.1'
  const back = network.runtime().clock.monotonic()
  await network.until(() => network.udp.get(key) !== socket, 'it was opened again')
  await application.echo('after')
  // a silent peer is pinged at intervals of up to 32 s, so the host detected the route
  assert.ok(network.runtime().clock.monotonic() - back < 20_000)
  application.close()
  close()
})

test('a silent server does not cause the client to reopen its socket', async () => {
  const network = new VirtualNetwork()
  const { client, server, close } = await tunnel(network)
  const application = new Application(network, client)
  await application.echo('before')
  application.close()
  const key = `127.0.0.1:${client.udp.port}`
  const socket = network.udp.get(key)
  server.close()
  await network.until(() => client.driver.peerSilent, 'the silence was noticed')
  await network.pass(90_000)
  assert.is(network.udp.get(key), socket)
  const second = await start(network, SERVER)
  const again = new Application(network, client)
  await again.echo('with the new server')
  second.close()
  close()
})

test('a resolver failure of a minute is survived, logged once, and lookups are retried within seconds', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.1')
  const { client, server, close } = await tunnel(network, { kcp_connect: 'server.test:5000' })
  network.hosts.delete('server.test')
  server.close()
  await network.until(() => printed(network, 'cannot resolve server.test') === 1, 'the failure was logged')
  await network.pass(60_000)
  assert.is(printed(network, 'cannot resolve server.test'), 1)
  network.hosts.set('server.test', '127.0.0.2')
  const second = await start(network, { ...SERVER, kcp_bind: '127.0.0.2:5000' })
  await network.until(() => printed(network, 'udp connect: 127.0.0.2:5000') === 1, 'the client uses the new address')
  assert.is(printed(network, 'addresses resolved again'), 1)
  assert.is(network.udp.has(`127.0.0.1:${client.udp.port}`), true, 'the port stays')
  await new Application(network, client).echo('at the new address')
  second.close()
  close()
})

/** Messages sent to a rendezvous server so far: LISTEN or CONNECT, the address, the service. */
function announcements(network: MemoryNetwork): string[] {
  const lines: string[] = []
  for (const datagram of network.datagrams) {
    const decoded = decode(datagram)
    if (!('session0' in decoded) || (decoded.session0 !== 'LISTEN' && decoded.session0 !== 'CONNECT')) continue
    lines.push(`${decoded.session0} ${decoded.addr?.addr}:${decoded.addr?.port} ${decoded.service_id}`)
  }
  return lines
}

const RENDEZVOUS = { rendezvous_server: 'meet.test:4000', service_id: 'a', keepalive: 5 }

for (const [what, own] of [
  ['LISTEN', { connect: '127.0.0.1:9000' }],
  ['CONNECT', { listen: '127.0.0.1:0' }],
] as const) {
  test(`MUST 54: ${what} contains the real port and is sent again after an address change or a reload`, async () => {
    const network = new VirtualNetwork()
    network.hosts.set('meet.test', '127.0.0.1')
    network.here = '10.0.0.1'
    const meeting = await start(network, { kcp_bind: '127.0.0.1:4000' })
    const endpoint = await start(network, { ...RENDEZVOUS, ...own })
    const { port } = endpoint.udp
    await network.until(() => announcements(network).includes(`${what} 10.0.0.1:${port} a`), 'the announcement')
    await endpoint.reload(configOf({ ...RENDEZVOUS, ...own, service_id: 'b' }))
    await network.until(() => announcements(network).includes(`${what} 10.0.0.1:${port} b`), 'the new service')
    // a server receives nothing from a rendezvous server: it checks its address every T seconds
    network.here = '10.0.0.2'
    await network.until(() => announcements(network).includes(`${what} 10.0.0.2:${port} b`), 'the new address')
    assert.is(network.udp.size, 2, 'the socket was kept')
    network.hosts.set('meet.test', '127.0.0.2')
    const elsewhere = await start(network, { kcp_bind: '127.0.0.2:4000' })
    await network.until(() => printed(network, '-> 127.0.0.2:4000') === 1, 'its new address')
    for (const each of [meeting, elsewhere, endpoint]) each.close()
  })
}

test('MUST 48: a rendezvous client without a peer closes connections at once', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('meet.test', '127.0.0.1')
  const client = await start(network, { ...RENDEZVOUS, listen: '127.0.0.1:0' })
  const application = new Application(network, client)
  await network.until(() => application.over, 'the connection ended')
  assert.is(printed(network, 'no peer yet'), 1)
  client.close()
})

test('a server on a wildcard address logs once that its socket cannot choose the source of its answers', async () => {
  for (const [kcp_bind, wanted] of [
    ['0.0.0.0:4000', 1],
    ['127.0.0.1:4000', 0],
  ] as const) {
    const network = new VirtualNetwork()
    const server = await start(network, { kcp_bind, connect: '127.0.0.1:9000' })
    await server.reload(configOf({ kcp_bind, connect: '127.0.0.1:9000', udp: { sndbuf: 65536 } }))
    assert.is(printed(network, 'udp socket restart'), 1)
    assert.is(printed(network, 'on the portable UDP path answers leave'), wanted)
    server.close()
  }
})

for (const noticed of ['reported by the system', 'seen at the next wake-up'] as const) {
  test(`after a suspension, ${noticed}, sessions that the server has ended are reset within 5 s`, async () => {
    const network = new VirtualNetwork()
    const { client, server, close } = await tunnel(network)
    const application = new Application(network, client)
    await application.echo('before')
    await network.pass(2000)
    // what the server forgot meanwhile: everything
    server.close()
    const second = await start(network, SERVER)
    network.clock.suspended += 3_600_000
    if (noticed === 'reported by the system') client.driver.clockStepped()
    await network.until(() => printed(network, 'the machine was suspended for') > 0, 'the suspension was noticed')
    const at = network.clock.monotonic()
    await network.until(() => application.over, 'the dead session was reset')
    assert.ok(network.clock.monotonic() - at < 5000, `${network.clock.monotonic() - at} ms`)
    await new Application(network, client).echo('with the server that is there')
    second.close()
    close()
  })
}

test('after a suspension that the server did not notice, the client pings at once and sessions go on', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.1')
  const { client, server, close } = await tunnel(network, { kcp_connect: 'server.test:5000' })
  const application = new Application(network, client)
  await application.echo('before')
  network.lookups.length = 0
  network.clock.suspended += 60_000
  const rounds = printed(network, 'roundtrip finished')
  client.driver.clockStepped()
  await network.pass(1000)
  assert.is(printed(network, 'roundtrip finished'), rounds + 1)
  assert.equal(network.lookups, ['server.test'], 'the name may have another address by now')
  await application.echo('after')
  assert.ok(server.udp)
  close()
})

/** A runtime whose system calls do nothing; the callbacks of watched descriptors, by descriptor. */
function watched(network: VirtualNetwork): { runtime: Runtime; readable: Map<number, () => void> } {
  const readable = new Map<number, () => void>()
  const calls: Partial<Libc> = {
    pointerBytes: 8,
    socket: () => NETLINK,
    timerfd_create: () => TIMER,
    if_nametoindex: () => 5,
    recv: () => -1,
    errno: () => 11,
    errorName: () => 'EAGAIN',
  }
  const libc = new Proxy(calls, { get: (known, name: keyof Libc) => known[name] ?? (() => 0) }) as Libc
  const watch: OperatingSystem['watch'] = (fd, onReadable) => {
    readable.set(fd, onReadable)
    return { close: () => readable.delete(fd) }
  }
  const os: Partial<OperatingSystem> = { libc: () => libc, watch }
  return { runtime: Object.assign(network.runtime(), { os: os as OperatingSystem }), readable }
}

test('interfaces and the clock are watched where system calls are used anyway, and either shows a suspension', async () => {
  for (const [keys, wanted] of [
    [{ udp: { path: 'portable' } }, []],
    [{ udp: { path: 'portable' }, netdev: 'ppp0' }, [NETLINK, TIMER]],
    [{}, [NETLINK, TIMER]],
  ] as const) {
    for (const fd of wanted.length > 0 ? wanted : [0]) {
      const network = new VirtualNetwork()
      const { runtime, readable } = watched(network)
      const log = new Log((stream, text) => runtime.print(stream, text))
      const server = await startEndpoint(runtime, configOf({ ...SERVER, ...keys }), log, NO_CIPHERS)
      assert.equal([...readable.keys()], wanted, JSON.stringify(keys))
      network.clock.suspended += 60_000
      readable.get(fd)?.()
      assert.is(printed(network, 'the machine was suspended for'), wanted.length > 0 ? 1 : 0, `${fd}`)
      server.close()
      assert.is(readable.size, 0)
    }
  }
})

test('a clock that is set back, or a little ahead, is not taken for a suspension', async () => {
  const network = new VirtualNetwork()
  const { client, close } = await tunnel(network)
  for (const step of [-3_600_000, 2000]) {
    network.clock.suspended += step
    client.driver.clockStepped()
  }
  assert.is(printed(network, 'the clock jumped'), 2)
  assert.is(printed(network, 'suspended'), 0)
  close()
})

test.run()
