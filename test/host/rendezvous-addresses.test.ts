/** A rendezvous server whose name has several addresses, on an in-memory network in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Endpoint } from '../../host/endpoint/endpoint.ts'
import { Application, configOf, echoTarget, printed, SECURITY, start, VirtualNetwork } from './virtual-network.ts'

const test = suite('rendezvous: several addresses')

const PARTY = { ...SECURITY, rendezvous_server: 'meet.test:4000', service_id: 'a', keepalive: 5 }
const SERVER = { ...PARTY, connect: '127.0.0.1:9000' }
const CLIENT = { ...PARTY, listen: '127.0.0.1:0' }

/** A rendezvous server at one of the addresses. */
const meeting = (network: VirtualNetwork, address: string): Promise<Endpoint> =>
  start(network, { ...SECURITY, kcp_bind: `${address}:4000` })

function networkWith(...addresses: string[]): VirtualNetwork {
  const network = new VirtualNetwork()
  // loopback addresses are never tried
  network.here = '10.0.0.1'
  network.hosts.set('meet.test', addresses.join(' '))
  echoTarget(network)
  return network
}

/** Waits until a client has found the server. */
async function found(network: VirtualNetwork, client: Endpoint): Promise<void> {
  await network.until(() => client.driver.peer !== undefined, 'the peer is found')
  const application = new Application(network, client)
  await application.echo('through the tunnel')
  application.close()
}

const MOVED = 'no answer from 10.0.1.1:4000, but from 10.0.1.2:4000, another address of rendezvous_server'

test('a server is announced at the next address when the one in use does not answer, and stays there', async () => {
  const network = networkWith('10.0.1.1', '10.0.1.2')
  const first = await meeting(network, '10.0.1.1')
  const server = await start(network, SERVER)
  const client = await start(network, CLIENT)
  await found(network, client)
  const application = new Application(network, client)
  await application.echo('before')
  const { port } = server.udp
  first.close()
  const second = await meeting(network, '10.0.1.2')
  await network.until(() => printed(network, MOVED) > 0, 'the move')
  await application.echo('the open connection')
  assert.is(server.udp.port, port, 'its port is kept')
  client.close()
  const third = await start(network, CLIENT)
  await found(network, third)
  // the first one is back, and the answer is in another order
  const again = await meeting(network, '10.0.1.1')
  network.hosts.set('meet.test', '10.0.1.1 10.0.1.2 10.0.1.3')
  await server.reload(configOf({ ...SERVER, timeout: 100 }))
  await network.pass(120_000)
  assert.is(printed(network, '-> 10.0.1.1:4000'), 3, 'one announcement of each endpoint')
  assert.is(printed(network, MOVED), 1)
  for (const each of [third, server, second, again]) each.close()
})

test('a client moves to the next address when the one in use does not answer, also before the service exists', async () => {
  const network = networkWith('10.0.1.1', '10.0.1.2', '10.0.1.3')
  const only = await meeting(network, '10.0.1.3')
  const client = await start(network, CLIENT)
  await network.until(() => printed(network, 'but from 10.0.1.3:4000') > 0, 'the move')
  const server = await start(network, SERVER)
  await found(network, client)
  for (const each of [client, server, only]) each.close()
})

test('a client finds a service that another address of the name knows, although the first one answers', async () => {
  const network = networkWith('10.0.1.1', '10.0.1.2')
  const [first, second] = [await meeting(network, '10.0.1.1'), await meeting(network, '10.0.1.2')]
  const server = await start(network, { ...SERVER, rendezvous_server: '10.0.1.2:4000' })
  const client = await start(network, CLIENT)
  await found(network, client)
  assert.is(printed(network, 'another address of rendezvous_server'), 0)
  for (const each of [client, server, first, second]) each.close()
})

test('an outage of all addresses, and an answer in another order, move nothing', async () => {
  const network = networkWith('10.0.1.1', '10.0.1.2')
  const first = await meeting(network, '10.0.1.1')
  const server = await start(network, SERVER)
  await network.pass(10_000)
  first.close()
  await network.pass(120_000)
  assert.is(printed(network, 'another address of rendezvous_server'), 0)
  network.hosts.set('meet.test', '10.0.1.2 10.0.1.1')
  await server.reload(configOf({ ...SERVER, timeout: 100 }))
  const [again, second] = [await meeting(network, '10.0.1.1'), await meeting(network, '10.0.1.2')]
  await network.pass(120_000)
  assert.is(printed(network, '-> 10.0.1.2:4000'), 0)
  assert.is(printed(network, 'another address of rendezvous_server'), 0)
  // an address that the name does not have any more is not kept
  network.hosts.set('meet.test', '10.0.1.2')
  await server.reload(configOf(SERVER))
  assert.is(printed(network, '-> 10.0.1.2:4000'), 1)
  for (const each of [server, again, second]) each.close()
})

test('an address without a route is passed over at the start', async () => {
  const network = networkWith('10.0.1.9', '10.0.1.2')
  network.unreachable.add('10.0.1.9')
  const second = await meeting(network, '10.0.1.2')
  const server = await start(network, SERVER)
  assert.is(printed(network, '-> 10.0.1.2:4000'), 1)
  const client = await start(network, CLIENT)
  await found(network, client)
  for (const each of [client, server, second]) each.close()
})

test('a client that has its peer does not look for another rendezvous server', async () => {
  const network = networkWith('10.0.1.1', '10.0.1.2')
  const [first, second] = [await meeting(network, '10.0.1.1'), await meeting(network, '10.0.1.2')]
  const server = await start(network, SERVER)
  const client = await start(network, CLIENT)
  await found(network, client)
  server.close()
  await network.pass(120_000)
  assert.is(printed(network, 'another address of rendezvous_server'), 0)
  const fresh = await start(network, SERVER)
  await network.until(() => client.driver.peer?.port === fresh.udp.port, 'the new server')
  for (const each of [client, fresh, first, second]) each.close()
})

test.run()
