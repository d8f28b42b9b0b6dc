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

test.run()
