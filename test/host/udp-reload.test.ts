/** Reloads of the configuration and the UDP socket, on an in-memory network in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { startEndpoint } from '../../host/endpoint/endpoint.ts'
import { makeReload } from '../../host/endpoint/reload.ts'
import { Log } from '../../host/log/log.ts'
import type { Libc, OperatingSystem, Runtime } from '../../host/runtime.ts'
import { runtimeCrypto } from '../../testkit/crypto-variants.ts'
import { NO_CIPHERS } from './memory-runtime.ts'
import { Application, configOf, printed, SERVER, start, tunnel, VirtualNetwork } from './virtual-network.ts'

const test = suite('udp reload')

const RENDEZVOUS = { rendezvous_server: 'meet.test:4000', service_id: 'a', keepalive: 5 }

test('a reload with a service id that does not fit into a datagram is rejected with both keys, and changes nothing', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('meet.test', '127.0.0.1')
  const secret = { method: 'aes256gcm', psk: `${'A'.repeat(43)}=` }
  const own = { connect: '127.0.0.1:9000', service_id: 'x'.repeat(230), kcp: { mtu: 400 } }
  const config = { ...RENDEZVOUS, ...secret, ...own }
  const endpoint = await startEndpoint(network.runtime(), configOf(config), new Log(() => {}), runtimeCrypto)
  for (const change of [{ kcp: { mtu: 300 } }, { kcp: { mtu: 300 }, keepalive: 9, service_id: 'x'.repeat(231) }]) {
    await endpoint.reload(configOf({ ...config, ...change })).then(
      () => assert.unreachable('the reload was accepted'),
      (error) => assert.match(error.message, /service_id.*kcp\.mtu/),
    )
    assert.is(endpoint.config.kcp.mtu, 400)
    assert.is(endpoint.config.keepalive, 5)
  }
  await endpoint.reload(configOf({ ...config, kcp: { mtu: 310 } }))
  assert.is(endpoint.config.kcp.mtu, 310)
  endpoint.close()
})

test('a rejected reload leaves the log settings unchanged', async () => {
  const levels: number[] = []
  const old = configOf({ kcp_bind: '127.0.0.1:1', loglevel: 4 })
  const fresh = new TextEncoder().encode(JSON.stringify({ kcp_bind: '127.0.0.1:1', loglevel: 6 }))
  const reload = makeReload({
    runtime: { readFile: async () => fresh },
    log: new Log(() => {}),
    path: 'a.json',
    endpoint: { config: old, reload: () => Promise.reject(new Error('refused')) },
    applyLog: ({ config }) => void levels.push(config.loglevel),
  })
  await reload()
  assert.not(levels.includes(6))
})

test("a reload keeps connections and the socket, also when the server's name changes", async () => {
  const network = new VirtualNetwork()
  network.hosts.set('other.test', '127.0.0.1')
  const { client, server, config, close } = await tunnel(network)
  const { port } = client.udp
  const application = new Application(network, client)
  await application.echo('before')
  const socket = network.udp.get(`127.0.0.1:${port}`)
  await client.reload(configOf({ ...config, timeout: 100, keepalive: 7, linger: 9, kcp: { sndwnd: 64 } }))
  assert.is(client.config.timeout, 100)
  assert.is(network.udp.get(`127.0.0.1:${port}`), socket, 'the same socket')
  await application.echo('after the first reload')
  await client.reload(configOf({ ...config, kcp_connect: 'other.test:5000' }))
  assert.is(network.udp.get(`127.0.0.1:${port}`), socket, 'the same address, the same socket')
  await application.echo('after the second')
  await client.reload(configOf({ ...config, kcp_connect: 'nowhere.test:5000' }))
  assert.is(printed(network, 'cannot resolve nowhere.test'), 1)
  await application.echo('with a name that is unknown for now')
  await server.reload(configOf({ ...SERVER, timeout: 90 }))
  await application.echo('after a reload of the server')
  application.close()
  close()
})

test('a reload moves a server to another port', async () => {
  const network = new VirtualNetwork()
  const { client, server, config, close } = await tunnel(network)
  await server.reload(configOf({ ...SERVER, kcp_bind: '127.0.0.1:5001' }))
  assert.not.ok(network.udp.has('127.0.0.1:5000'))
  await client.reload(configOf({ ...config, kcp_connect: '127.0.0.1:5001' }))
  await new Application(network, client).echo('at the new port')
  close()
})

test('a reload to a port in use is rejected, and the server keeps its port and its whole old configuration', async () => {
  const network = new VirtualNetwork()
  const { client, server, config, close } = await tunnel(network)
  const before = server.config
  const moved = configOf({ ...SERVER, kcp_bind: '127.0.0.1:5001', timeout: 77, tcp: { nodelay: false } })
  const other = await start(network, { kcp_bind: '127.0.0.1:5001' })
  await server.reload(moved).then(
    () => assert.unreachable('the port is taken'),
    (error) => assert.match(error.message, /EADDRINUSE/),
  )
  assert.is(server.config, before)
  await new Application(network, client).echo('at the old port')
  other.close()
  await server.reload(moved)
  assert.is(server.config.timeout, 77)
  assert.not(network.udp.has('127.0.0.1:5000'))
  await client.reload(configOf({ ...config, kcp_connect: '127.0.0.1:5001' }))
  await new Application(network, client).echo('at the new port')
  close()
})

test('a socket that must be closed for a reload is reopened when its successor cannot be opened', async () => {
  const network = new VirtualNetwork()
  const { client, server, close } = await tunnel(network)
  const before = server.config
  // same port on another address: the old socket is closed first
  const other = await start(network, { kcp_bind: '127.0.0.2:5000' })
  await server.reload(configOf({ ...SERVER, kcp_bind: '127.0.0.2:5000' })).then(
    () => assert.unreachable('the address is taken'),
    (error) => assert.match(error.message, /EADDRINUSE/),
  )
  assert.is(server.config, before)
  await new Application(network, client).echo('at the old address')
  other.close()
  close()
})

test('a configuration rejected by the engine changes nothing, including sockets', async () => {
  const network = new VirtualNetwork()
  const { client, server, config, close } = await tunnel(network)
  const before = client.config
  const { port } = client.udp
  const fresh = configOf({ ...config, udp: { sndbuf: 100_000 }, timeout: 77 })
  await client.reload({ ...fresh, kcp: { ...fresh.kcp, sndwnd: 1e9 } }).then(
    () => assert.unreachable('no window is that large'),
    (error) => assert.match(error.message, /sndwnd/),
  )
  assert.is(client.config, before)
  assert.is(client.driver.sockets.sender?.local.port, port)
  assert.is(printed(network, 'udp socket restart'), 0)
  await new Application(network, client).echo('as before')
  assert.ok(server.udp)
  close()
})

test('keys that cannot change at run time are named once and keep their values', async () => {
  const network = new VirtualNetwork()
  const { client, config, close } = await tunnel(network)
  const { method } = client.config
  const fresh = {
    ...config,
    method: 'aes256gcm',
    psk: undefined,
    password: 'secret',
    tcp: { reuseport: true },
  }
  await client.reload(configOf(fresh))
  for (const key of ['method', 'psk', 'password', 'tcp.reuseport']) {
    assert.is(printed(network, `config key ${key}: the change needs a restart`), 1, key)
  }
  assert.is(printed(network, 'needs a restart'), 4)
  assert.not.ok(network.printed.join('').includes('secret'))
  assert.is(client.config.method, method)
  await new Application(network, client).echo('as before')
  close()
})

test('a reload binds to an interface `netdev` that was created again, and only then', async () => {
  const network = new VirtualNetwork()
  let index = 5
  const calls: Partial<Libc> = { pointerBytes: 8, if_nametoindex: () => index }
  const libc = new Proxy(calls, { get: (known, name: keyof Libc) => known[name] ?? (() => 0) }) as Libc
  const os: Partial<OperatingSystem> = { libc: () => libc, watch: () => ({ close() {} }) }
  const runtime: Runtime = Object.assign(network.runtime(), { os: os as OperatingSystem })
  const log = new Log((stream, text) => runtime.print(stream, text))
  const config = configOf({ ...SERVER, netdev: 'ppp0' })
  const server = await startEndpoint(runtime, config, log, NO_CIPHERS)
  const restarts = async (): Promise<number> => {
    await server.reload(config)
    return printed(network, 'udp socket restart')
  }
  assert.is(await restarts(), 0)
  index = 9
  assert.is(await restarts(), 1)
  assert.is(await restarts(), 1)
  // it is gone for a while: the socket stays as it is
  index = 0
  assert.is(await restarts(), 1)
  index = 12
  assert.is(await restarts(), 2)
  server.close()
})

test('an endpoint that is closed while a reload opens its socket leaves none', async () => {
  const network = new VirtualNetwork()
  const runtime = network.runtime()
  const { openUdp } = runtime
  const log = new Log((stream, text) => runtime.print(stream, text))
  const server = await startEndpoint(runtime, configOf(SERVER), log, NO_CIPHERS)
  runtime.openUdp = async (...words) => {
    const socket = await openUdp.apply(runtime, words)
    server.close()
    return socket
  }
  await server.reload(configOf({ ...SERVER, kcp_bind: '127.0.0.1:6000' })).catch(() => {})
  assert.is(network.udp.size, 0)
})

test('a reload that is still looking up names when the endpoint is closed ends without an error and changes nothing', async () => {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', '127.0.0.1')
  const server = await start(network, SERVER)
  let open = (): void => {}
  network.lookupGate = new Promise((resolve) => {
    open = resolve
  })
  const reload = server.reload(configOf({ ...SERVER, kcp_bind: 'server.test:6000' }))
  server.close()
  const lines = network.printed.length
  open()
  await reload
  assert.is(network.udp.size, 0)
  assert.is(network.printed.length, lines, network.printed.slice(lines).join(''))
})

test.run()
