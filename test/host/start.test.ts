/** A start without network or name resolution, on an in-memory network in virtual time (protocol.md 10.5). */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Endpoint } from '../../host/endpoint/endpoint.ts'
import { renderHealth } from '../../host/monitoring/stats.ts'
import {
  Application,
  configOf,
  echoTarget,
  printed,
  SECURITY,
  SERVER,
  start,
  VirtualNetwork,
} from './virtual-network.ts'

const test = suite('start')

const CLIENT = { ...SECURITY, listen: '127.0.0.1:0', keepalive: 5 }

const warnings = (network: VirtualNetwork): string[] => network.printed.filter((line) => line.startsWith('W '))

const health = (endpoint: Endpoint): string => renderHealth(endpoint.monitor.health()).text

async function refusal(network: VirtualNetwork, config: object): Promise<string> {
  return start(network, config).then(
    (endpoint) => {
      endpoint.close()
      return 'it started'
    },
    (error) => String(error.message),
  )
}

test('a client whose server has no address yet listens, resets connections, warns once, and works as soon as it has', async () => {
  const network = new VirtualNetwork()
  echoTarget(network)
  const server = await start(network, SERVER)
  const client = await start(network, { ...CLIENT, kcp_connect: 'server.test:5000' })
  const statuses: string[] = []
  client.onStatus = (status) => statuses.push(status)
  assert.match(client.status, /kcp_connect: cannot resolve server\.test: .*ENOTFOUND/)
  assert.is(health(client), 'waiting for kcp_connect')
  const early = new Application(network, client)
  await network.until(() => early.over, 'an early connection ends')
  assert.is(early.ending, 'RST')
  await network.pass(300_000)
  assert.is(warnings(network).filter((line) => line.includes('server.test')).length, 1, network.printed.join(''))
  const before = network.lookups.length
  assert.ok(before >= 15 && before < 40, `${before} lookups in 5 minutes`)
  network.hosts.set('server.test', '127.0.0.1')
  await network.until(() => client.status === '', 'the name is resolved')
  assert.equal(statuses, [''])
  await new Application(network, client).echo('through the tunnel')
  assert.match(health(client), 'healthy')
  const settled = network.lookups.length
  await network.pass(300_000)
  assert.is(network.lookups.length, settled, 'no lookups without a reason')
  client.close()
  server.close()
})

test('a client without a route to its server works as soon as there is one', async () => {
  const network = new VirtualNetwork()
  echoTarget(network)
  const server = await start(network, SERVER)
  network.here = undefined
  const client = await start(network, { ...CLIENT, kcp_connect: '127.0.0.1:5000' })
  assert.match(client.status, /udp: cannot open 0\.0\.0\.0:0: ENETUNREACH/)
  assert.is(health(client), 'waiting for udp')
  network.here = '127.0.0.1'
  await network.until(() => client.status === '', 'the socket is open')
  await new Application(network, client).echo('through the tunnel')
  client.close()
  server.close()
})

test('sockets whose address appears later are opened then: listen, http_listen and kcp_bind', async () => {
  const network = new VirtualNetwork()
  echoTarget(network)
  network.absent.add('192.0.2.1')
  const server = await start(network, { ...SERVER, kcp_bind: '192.0.2.1:5000', http_listen: '192.0.2.1:81' })
  const client = await start(network, { ...CLIENT, listen: '192.0.2.1:80', kcp_connect: '192.0.2.1:5000' })
  assert.match(server.status, /udp: cannot open 192\.0\.2\.1:5000: EADDRNOTAVAIL; http_listen: cannot listen/)
  assert.match(client.status, /listen: cannot listen on 192\.0\.2\.1:80: EADDRNOTAVAIL/)
  assert.is(health(server), 'waiting for udp')
  assert.is(health(client), 'waiting for listen')
  await network.pass(100_000)
  assert.is(warnings(network).filter((line) => line.includes('retrying')).length, 3, warnings(network).join(''))
  network.absent.clear()
  await network.until(() => server.status === '' && client.status === '', 'all sockets are open')
  assert.is(health(server), 'healthy')
  assert.is(server.http?.port, 81)
  await new Application(network, client).echo('through the tunnel')
  client.close()
  server.close()
  assert.is(network.udp.size + network.listeners.size - 1 + network.http.size, 0, 'nothing is left open')
})

test('a listener without an address is tried again after 1 s, then after twice as long each time, up to 30 s', async () => {
  const network = new VirtualNetwork()
  const tries: number[] = []
  network.absent.has = (address) => {
    if (address === '192.0.2.1') tries.push(Math.round(network.clock.monotonic() / 1000))
    return address === '192.0.2.1'
  }
  const client = await start(network, { ...CLIENT, listen: '192.0.2.1:80', kcp_connect: '127.0.0.1:5000' })
  await network.pass(125_000)
  const [first = 0] = tries
  assert.equal(
    tries.map((at) => at - first),
    [0, 1, 3, 7, 15, 31, 61, 91, 121],
  )
  client.close()
})

test('an endpoint that is closed while it waits opens nothing', async () => {
  const network = new VirtualNetwork()
  network.absent.add('192.0.2.1')
  const server = await start(network, { ...SERVER, kcp_bind: '192.0.2.1:5000', http_listen: '192.0.2.1:81' })
  const client = await start(network, { ...CLIENT, listen: '192.0.2.1:80', kcp_connect: 'server.test:5000' })
  server.close()
  client.close()
  network.absent.clear()
  network.hosts.set('server.test', '127.0.0.1')
  await network.pass(100_000)
  assert.is(network.udp.size + network.listeners.size + network.http.size, 0)
  assert.is(network.clock.armed, 0)
})

test('a server whose rendezvous server or target has no address yet serves, and announces itself when it has', async () => {
  const network = new VirtualNetwork()
  echoTarget(network)
  const own = { connect: 'target.test:9000', rendezvous_server: 'meet.test:4000', service_id: 'a' }
  const server = await start(network, { ...SERVER, ...own })
  assert.ok(network.udp.has('127.0.0.1:5000'), 'the socket is open')
  assert.not.match(health(server), /^healthy/)
  network.hosts.set('target.test', '127.0.0.1')
  network.hosts.set('meet.test', '127.0.0.1')
  await network.until(() => printed(network, '-> 127.0.0.1:4000') === 1, 'the announcement')
  const client = await start(network, { ...CLIENT, kcp_connect: '127.0.0.1:5000' })
  await new Application(network, client).echo('through the tunnel')
  await network.until(() => health(server) === 'healthy', 'the server is ready')
  client.close()
  server.close()
})

test('a rendezvous server whose address appears later serves then', async () => {
  const network = new VirtualNetwork()
  network.absent.add('192.0.2.1')
  const meeting = await start(network, { ...SECURITY, kcp_bind: '192.0.2.1:4000' })
  network.absent.clear()
  await network.until(() => network.udp.has('192.0.2.1:4000'), 'the socket is open')
  meeting.close()
})

test('errors that cannot heal end the start: syntax, a port in use', async () => {
  const network = new VirtualNetwork()
  const server = await start(network, SERVER)
  assert.match(await refusal(network, { ...CLIENT, kcp_connect: 'server.test' }), /kcp_connect/)
  assert.match(await refusal(network, { ...SERVER, connect: 'target.test:0:1' }), /connect/)
  assert.match(await refusal(network, SERVER), /udp: cannot open 127\.0\.0\.1:5000: EADDRINUSE/)
  const client = await start(network, { ...CLIENT, listen: '127.0.0.1:80', kcp_connect: '127.0.0.1:5000' })
  const again = { ...CLIENT, listen: '127.0.0.1:80', kcp_connect: 'server.test:5000' }
  assert.match(await refusal(network, again), /listen: cannot listen on 127\.0\.0\.1:80: EADDRINUSE/)
  // a client with kcp_bind opens its socket before the server has an address
  const taken = { ...CLIENT, kcp_bind: '127.0.0.1:5000', kcp_connect: 'server.test:5000' }
  assert.match(await refusal(network, taken), /udp: cannot open 127\.0\.0\.1:5000: EADDRINUSE/)
  client.close()
  server.close()
  assert.is(network.udp.size + network.listeners.size, 0)
})

test('a reload before the names are resolved is applied', async () => {
  const network = new VirtualNetwork()
  echoTarget(network)
  network.hosts.set('other.test', '127.0.0.1')
  const server = await start(network, SERVER)
  const client = await start(network, { ...CLIENT, kcp_connect: 'server.test:5000' })
  await client.reload(configOf({ ...CLIENT, kcp_connect: 'nowhere.test:5000' }))
  assert.match(client.status, /nowhere\.test/)
  await client.reload(configOf({ ...CLIENT, kcp_connect: 'other.test:5000' }))
  assert.is(client.status, '')
  await new Application(network, client).echo('through the tunnel')
  client.close()
  server.close()
})

test('a name with several addresses is listened on at each of them, with one port', async () => {
  const network = new VirtualNetwork()
  echoTarget(network)
  network.hosts.set('here.test', '127.0.0.1 127.0.0.2 192.0.2.1')
  network.absent.add('192.0.2.1')
  const server = await start(network, SERVER)
  const client = await start(network, { ...CLIENT, listen: 'here.test:0', kcp_connect: '127.0.0.1:5000' })
  assert.ok(client.tcp)
  const { port } = client.tcp
  assert.ok(network.listeners.has(`127.0.0.1:${port}`))
  assert.ok(network.listeners.has(`127.0.0.2:${port}`))
  assert.is(warnings(network).filter((line) => line.includes('192.0.2.1')).length, 1)
  assert.is(client.status, '')
  client.close()
  server.close()
  assert.is(network.listeners.size, 1, 'only the target')
})

test.run()
