/** A server whose `kcp_bind` is a name with several addresses, on an in-memory network in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Endpoint } from '../../host/endpoint/endpoint.ts'
import { Application, configOf, echoTarget, printed, SECURITY, start, VirtualNetwork } from './virtual-network.ts'

const test = suite('several addresses of kcp_bind')

const SERVER = { ...SECURITY, connect: '127.0.0.1:9000', kcp_bind: 'server.test:5000' }
const ADDRESSES = ['127.0.0.1', '127.0.0.2', '127.0.0.3']

function networkWith(...addresses: string[]): VirtualNetwork {
  const network = new VirtualNetwork()
  network.hosts.set('server.test', addresses.join(' '))
  echoTarget(network)
  return network
}

const startClient = (network: VirtualNetwork, kcp_connect: string): Promise<Endpoint> =>
  start(network, { ...SECURITY, listen: '127.0.0.1:0', kcp_connect, keepalive: 5 })

/** The addresses that the server is bound to. */
const bound = (network: VirtualNetwork): string[] => ADDRESSES.filter((address) => network.udp.has(`${address}:5000`))

test('it receives at each of them, and answers from there', async () => {
  const network = networkWith(...ADDRESSES)
  const server = await start(network, SERVER)
  assert.equal(bound(network), ADDRESSES)
  for (const address of ADDRESSES) {
    assert.is(printed(network, `udp bind: ${address}:5000`), 1)
    // its socket accepts nothing from another address
    const client = await startClient(network, `${address}:5000`)
    await new Application(network, client).echo(address)
    client.close()
  }
  server.close()
  assert.equal(bound(network), [])
})

test('connections follow their client to another address of the server', async () => {
  const network = networkWith('127.0.0.1', '127.0.0.2')
  const server = await start(network, SERVER)
  const client = await startClient(network, 'server.test:5000')
  const application = new Application(network, client)
  await application.echo('before')
  const used = network.udp.get('127.0.0.1:5000')
  assert.ok(used)
  used.dead = 'silently'
  await application.echo('after')
  assert.is(printed(network, 'udp connect: 127.0.0.2:5000'), 1)
  for (const end of [client, server]) end.close()
})

test('another order of the answer changes nothing, and what it has or lacks is followed', async () => {
  const network = networkWith('127.0.0.1', '127.0.0.2')
  const server = await start(network, SERVER)
  const client = await startClient(network, '127.0.0.2:5000')
  const application = new Application(network, client)
  await application.echo('before')
  const sockets = (): unknown[] => bound(network).map((address) => network.udp.get(`${address}:5000`))
  const before = sockets()
  network.hosts.set('server.test', '127.0.0.2 127.0.0.1')
  await server.reload(configOf({ ...SERVER, timeout: 100 }))
  assert.equal(sockets(), before)
  assert.is(printed(network, 'udp socket restart'), 0)
  network.hosts.set('server.test', '127.0.0.3 127.0.0.2')
  await server.reload(configOf({ ...SERVER, timeout: 101 }))
  assert.equal(bound(network), ['127.0.0.2', '127.0.0.3'])
  await application.echo('the open connection, whose address stays')
  network.hosts.set('server.test', '127.0.0.2')
  await server.reload(configOf({ ...SERVER, timeout: 102 }))
  assert.equal(bound(network), ['127.0.0.2'])
  await application.echo('with one address')
  for (const end of [client, server]) end.close()
})

test('an address that no interface has is named, and used when one has it', async () => {
  const network = networkWith('127.0.0.3', '127.0.0.2', '127.0.0.1')
  network.absent.add('127.0.0.3')
  const server = await start(network, SERVER)
  assert.equal(bound(network), ['127.0.0.1', '127.0.0.2'])
  assert.is(printed(network, 'udp: cannot open 127.0.0.3:5000: EADDRNOTAVAIL'), 1)
  assert.is(server.waiting, undefined)
  const client = await startClient(network, '127.0.0.2:5000')
  const application = new Application(network, client)
  await application.echo('at one there is')
  const socket = network.udp.get('127.0.0.2:5000')
  network.absent.clear()
  server.transport?.onInterfaces()
  await network.until(() => bound(network).length === 3, 'the other one')
  assert.is(printed(network, 'udp bind: 127.0.0.3:5000'), 1)
  assert.is(network.udp.get('127.0.0.2:5000'), socket, 'what is open stays')
  const other = await startClient(network, '127.0.0.3:5000')
  await new Application(network, other).echo('at another one')
  for (const end of [client, other, server]) end.close()
})

test('a server without any of its addresses waits for one', async () => {
  const network = networkWith('127.0.0.1', '127.0.0.2')
  for (const address of ['127.0.0.1', '127.0.0.2']) network.absent.add(address)
  const server = await start(network, SERVER)
  assert.match(server.waiting ?? '', 'cannot open 127.0.0.1:5000, 127.0.0.2:5000')
  network.absent.delete('127.0.0.2')
  await network.until(() => server.waiting === undefined, 'one of them')
  assert.equal(bound(network), ['127.0.0.2'])
  server.close()
})

test('a port in use at one of them ends the start, and a reload is refused', async () => {
  const network = networkWith('127.0.0.1', '127.0.0.2')
  const other = await start(network, { ...SERVER, kcp_bind: '127.0.0.2:5000' })
  await start(network, SERVER).then(
    () => assert.unreachable('the port is taken'),
    (error) => assert.match(error.message, 'EADDRINUSE'),
  )
  assert.equal(bound(network), ['127.0.0.2'], 'nothing is left open')
  const server = await start(network, { ...SERVER, kcp_bind: '127.0.0.3:5000' })
  const before = server.config
  await server.reload(configOf(SERVER)).then(
    () => assert.unreachable('the port is taken'),
    (error) => assert.match(error.message, 'EADDRINUSE'),
  )
  assert.is(server.config, before)
  assert.equal(bound(network), ['127.0.0.2', '127.0.0.3'])
  for (const end of [other, server]) end.close()
})

test.run()
