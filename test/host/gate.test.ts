/** Connections of applications while the peer is silent (`when_down`), on an in-memory network in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Endpoint } from '../../host/endpoint/endpoint.ts'
import { systemError } from '../../host/errors.ts'
import { Application, configOf, printed, SERVER, start, tunnel, VirtualNetwork } from './virtual-network.ts'

const test = suite('gate')

const pings = (client: Endpoint): number => Number(client.driver.core.counter('pings_sent'))

/** A tunnel whose server is gone for a minute. */
async function dead(more: object = {}) {
  const network = new VirtualNetwork()
  const { client, server, config } = await tunnel(network, more)
  const before = new Application(network, client)
  await before.echo('before')
  before.close()
  server.close()
  await network.pass(60_000)
  return { network, client, config }
}

/** Waits for the end of a connection. @returns how it ended, and after how many ms */
async function endOf(network: VirtualNetwork, application: Application) {
  const begin = network.clock.monotonic()
  await network.until(() => application.over, 'the end of a connection')
  return { ending: application.ending, ms: network.clock.monotonic() - begin }
}

test('while the peer is silent a connection causes a ping, waits 3 s for the answer and is reset', async () => {
  const { network, client } = await dead()
  const before = pings(client)
  for (let round = 0; round < 5; round++) {
    const apps = Array.from({ length: 20 }, () => new Application(network, client))
    for (const app of apps) {
      const { ending, ms } = await endOf(network, app)
      assert.is(ending, 'RST')
      assert.ok(ms < 3200, `${ms} ms`)
    }
  }
  const sent = pings(client) - before
  assert.ok(sent >= 12 && sent <= 18, `${sent} pings in 15 s`)
  assert.is(client.driver.streams.size, 0)
  assert.ok(printed(network, 'TCP connection refused: the peer does not answer') > 0)
  client.close()
})

test('a connection that waits is opened by the answer, with what it sent before', async () => {
  const { network, client } = await dead()
  const app = new Application(network, client)
  await network.pass(500)
  const server = await start(network, SERVER)
  const begin = network.clock.monotonic()
  await app.echo('as soon as the server answers')
  assert.ok(network.clock.monotonic() - begin < 2000)
  await new Application(network, client).echo('at once')
  client.close()
  server.close()
})

test('data and FIN that arrive while a connection waits are delivered', async () => {
  const { network, client } = await dead()
  assert.ok(client.tcp)
  let received = 0
  let isEnded = false
  const handlers = {
    onData: (chunk: Uint8Array) => {
      received += chunk.length
    },
    onEnd: () => {
      isEnded = true
    },
    onDrain() {},
    onClose() {},
  }
  const socket = network.dial(client.tcp, handlers)
  socket.resume()
  socket.write(socket.writeBuffer(), 10)
  socket.end()
  await network.pass(500)
  const server = await start(network, SERVER)
  await network.until(() => isEnded, 'the echo and its end')
  assert.is(received, 10)
  client.close()
  server.close()
})

for (const [name, more] of [
  ['when_down hold', { when_down: 'hold' }],
  ['keepalive 0', { keepalive: 0 }],
] as const) {
  test(`with ${name} a connection waits in a session`, async () => {
    const { network, client } = await dead(more)
    const app = new Application(network, client)
    await network.pass(20_000)
    assert.not(app.over)
    assert.is(client.driver.streams.size >= 1, true)
    client.close()
  })
}

test('with when_down close the port is closed while the peer is silent, and opened again with the same number', async () => {
  const { network, client, config } = await dead({ when_down: 'close' })
  assert.ok(client.tcp)
  const port = `127.0.0.1:${client.tcp.port}`
  assert.not(network.listeners.has(port))
  const server = await start(network, SERVER)
  await network.until(() => network.listeners.has(port), 'the port is open')
  await new Application(network, client).echo('through the tunnel')
  server.close()
  await network.until(() => !network.listeners.has(port), 'the port is closed')
  await client.reload(configOf({ ...config, when_down: 'reset' }))
  await network.until(() => network.listeners.has(port), 'a reload opens it')
  await client.reload(configOf({ ...config, when_down: 'close' }))
  assert.not(network.listeners.has(port), 'a reload closes it')
  client.close()
})

test('with when_down close the port stays closed until the server has an address', async () => {
  const network = new VirtualNetwork()
  const { client, close } = await tunnel(network, { when_down: 'close', kcp_connect: 'server.test:5000' })
  assert.is(network.listeners.size, 1, 'only the target')
  network.hosts.set('server.test', '127.0.0.1')
  await network.until(() => network.listeners.size === 2, 'the port is open')
  await new Application(network, client).echo('through the tunnel')
  close()
})

test('an ICMP error alone refuses nothing', async () => {
  const network = new VirtualNetwork()
  const { client, close } = await tunnel(network)
  for (let i = 0; i < 3; i++) client.driver.onUdpError(systemError('ECONNREFUSED', 'connection refused', 'send'))
  await new Application(network, client).echo('through the tunnel')
  close()
})

test('the number of connections that wait is limited, and closing the endpoint resets them', async () => {
  const { network, client } = await dead()
  const apps = Array.from({ length: 1100 }, () => new Application(network, client))
  await network.pass(100)
  assert.is(apps.filter(({ over }) => over).length, 1100 - 1024)
  client.close()
  await network.pass(100)
  assert.is(apps.filter(({ ending }) => ending === 'RST').length, 1100)
  assert.is(network.clock.armed, 0)
})

test('a silent peer causes no wake-ups of the gate without connections', async () => {
  const { network, client } = await dead()
  const before = pings(client)
  await network.pass(64_000)
  assert.ok(pings(client) - before < 32, 'less than one in two seconds: keepalive and probes of the port')
  client.close()
})

test.run()
