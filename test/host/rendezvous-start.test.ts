/** The ends of a rendezvous started in any order, on an in-memory network in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Endpoint } from '../../host/endpoint/endpoint.ts'
import { Application, echoTarget, printed, SECURITY, start, VirtualNetwork } from './virtual-network.ts'

const test = suite('rendezvous: order of starts')

const PARTY = { ...SECURITY, rendezvous_server: '10.0.1.1:4000', service_id: 'den' }
const RENDEZVOUS = { ...SECURITY, kcp_bind: '10.0.1.1:4000' }
const SERVER = { ...PARTY, connect: '127.0.0.1:9000' }
const CLIENT = { ...PARTY, listen: '127.0.0.1:0' }
const UNANSWERED = 'the service "den" does not answer: its server is not started, or the NATs do not let both meet'
/** Much less than the 25 s after which a server announces itself again. */
const SOON_MS = 6000

function network(): VirtualNetwork {
  const network = new VirtualNetwork()
  // loopback addresses are never tried
  network.here = '10.0.0.1'
  echoTarget(network)
  return network
}

async function echoes(network: VirtualNetwork, client: Endpoint): Promise<void> {
  const application = new Application(network, client)
  await application.echo('through the tunnel')
  application.close()
}

for (const order of ['server, client', 'client, server']) {
  test(`the rendezvous server is started last, after ${order}: both meet within seconds`, async () => {
    const net = network()
    const ends: Endpoint[] = []
    for (const config of order === 'server, client' ? [SERVER, CLIENT] : [CLIENT, SERVER]) {
      ends.push(await start(net, config))
    }
    await net.pass(20_000)
    assert.is(printed(net, 'waiting for rendezvous server 10.0.1.1:4000\n'), 2, net.printed.join('\n'))
    const client = order === 'server, client' ? ends[1] : ends[0]
    assert.ok(client)
    ends.push(await start(net, RENDEZVOUS))
    await net.until(() => printed(net, 'connected: rendezvous server') === 2, 'it answers both')
    await net.pass(SOON_MS)
    assert.ok(client.driver.peer, net.printed.join('\n'))
    await echoes(net, client)
    assert.is(printed(net, UNANSWERED), 0)
    for (const end of ends) end.close()
  })
}

test('a client whose service is not there says so once, and finds it when it comes', async () => {
  const net = network()
  const rendezvous = await start(net, RENDEZVOUS)
  const client = await start(net, CLIENT)
  await net.pass(120_000)
  assert.is(printed(net, UNANSWERED), 1)
  const server = await start(net, SERVER)
  await net.pass(SOON_MS)
  await echoes(net, client)
  assert.is(printed(net, UNANSWERED), 1)
  for (const end of [client, server, rendezvous]) end.close()
})

test('a server that comes back at another port is named by that one, not by the one that is gone', async () => {
  const net = network()
  const ends = [await start(net, RENDEZVOUS), await start(net, CLIENT)]
  const [, client] = ends
  assert.ok(client)
  const server = await start(net, SERVER)
  await net.pass(SOON_MS)
  const before = client.driver.peer
  assert.ok(before)
  await server.close()
  await net.pass(60_000)
  net.printed.length = 0
  ends.push(await start(net, SERVER))
  await net.pass(30_000)
  const { peer } = client.driver
  assert.ok(peer)
  assert.is.not(peer.port, before.port)
  const connected = net.printed.filter((line) => line.includes(' connected: 10.'))
  assert.is(connected.length, 1, net.printed.join('\n'))
  assert.match(connected[0] ?? '', `:${peer.port} answers in `)
  assert.match(connected[0] ?? '', ' without an answer')
  for (const end of ends) end.close()
})

test.run()
