/** The target of a server: names that move, several addresses (RFC 8305), on an in-memory network in virtual time. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import { interleaved } from '../../host/transport/happy-eyeballs.ts'
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

const test = suite('target')

const at = (address: string): SocketAddress => ({
  family: address.includes(':') ? 6 : 4,
  address,
  port: 9000,
  scope: 0,
})

/** A tunnel whose target is `target.test` with these addresses; `listening` are those that echo. */
async function open(addresses: string, listening: readonly string[], connect = 'target.test:9000') {
  const network = new VirtualNetwork()
  network.hosts.set('target.test', addresses)
  for (const address of listening) echoTarget(network, at(address))
  const config = { ...SERVER, connect }
  const server = await start(network, config)
  const client = await start(network, { ...SECURITY, listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:5000' })
  return {
    network,
    server,
    config,
    app: () => new Application(network, client),
    close(address: string) {
      network.listeners.delete(formatAddress(at(address)))
    },
    /** Addresses dialled since the last call. */
    dialled: () => network.dials.splice(0).map((text) => text.replace(':9000', '')),
    end() {
      client.close()
      server.close()
    },
  }
}

test('an answer older than 30 s is looked up again, also when the old address still accepts connections', async () => {
  const { network, app, dialled, end } = await open('127.0.0.1', ['127.0.0.1', '127.0.0.2'])
  await app().echo('at the start')
  network.hosts.set('target.test', '127.0.0.2')
  await network.pass(20_000)
  await app().echo('with a fresh answer')
  await network.pass(20_000)
  await app().echo('with an old answer')
  assert.equal(dialled(), ['127.0.0.1', '127.0.0.1', '127.0.0.2'])
  assert.is(printed(network, 'connect: now 127.0.0.2:9000'), 1)
  end()
})

test('MUST 59: a failed dial looks the name up at once and tries again', async () => {
  const { network, app, dialled, close, end } = await open('127.0.0.1', ['127.0.0.1', '127.0.0.2'])
  await app().echo('before')
  await network.pass(2000)
  network.hosts.set('target.test', '127.0.0.2')
  close('127.0.0.1')
  await app().echo('after the target moved')
  assert.equal(dialled(), ['127.0.0.1', '127.0.0.1', '127.0.0.2'])
  end()
})

test('a dial that fails a moment after a lookup waits for another one', async () => {
  const { network, app, dialled, close, end } = await open('127.0.0.1', ['127.0.0.1', '127.0.0.2'])
  network.hosts.set('target.test', '127.0.0.2')
  close('127.0.0.1')
  await app().echo('within 100 ms of the start')
  assert.equal(dialled(), ['127.0.0.1', '127.0.0.2'])
  end()
})

test('a dial without an answer looks the name up too', async () => {
  const { network, app, dialled, end } = await open('127.0.0.1', ['127.0.0.1', '127.0.0.2'])
  await app().echo('before')
  await network.pass(2000)
  network.hosts.set('target.test', '127.0.0.2')
  network.silent.add('127.0.0.1:9000')
  const begin = network.clock.monotonic()
  await app().echo('after the target moved')
  assert.ok(network.clock.monotonic() - begin < 2000)
  assert.equal(dialled(), ['127.0.0.1', '127.0.0.1', '127.0.0.2'])
  end()
})

test('the previous answer is used when a lookup takes longer than a second, or fails', async () => {
  const { network, app, dialled, end } = await open('127.0.0.1', ['127.0.0.1', '127.0.0.2'])
  await network.pass(40_000)
  let answer = (): void => {}
  network.lookupGate = new Promise((resolve) => {
    answer = resolve
  })
  network.hosts.set('target.test', '127.0.0.2')
  const begin = network.clock.monotonic()
  await app().echo('during the lookup')
  assert.ok(network.clock.monotonic() - begin >= 1000)
  await app().echo('the next one waits again, for the same lookup')
  assert.equal(dialled(), ['127.0.0.1', '127.0.0.1'])
  answer()
  await app().echo('with the answer')
  assert.equal(dialled(), ['127.0.0.2'])
  network.hosts.delete('target.test')
  for (let i = 0; i < 3; i++) {
    await network.pass(40_000)
    await app().echo('without an answer')
  }
  assert.is(printed(network, 'cannot resolve target.test: ENOTFOUND; using its previous addresses'), 1)
  assert.equal(dialled(), ['127.0.0.2', '127.0.0.2', '127.0.0.2'])
  end()
})

test('lookups are shared, and there are none without a dial', async () => {
  const { network, app, end } = await open('127.0.0.1', ['127.0.0.1'])
  await network.pass(300_000)
  assert.equal(network.lookups, ['target.test'])
  await Promise.all(Array.from({ length: 50 }, () => app().echo('one of many')))
  assert.equal(network.lookups, ['target.test', 'target.test'])
  end()
})

test('a target that refuses is looked up at most ten times a second, and its connections end cleanly', async () => {
  const { network, app, end } = await open('127.0.0.1', [])
  const begin = network.clock.monotonic()
  for (let i = 0; i < 40; i++) {
    const one = app()
    await network.until(() => one.over, 'the end')
    assert.is(one.ending, 'FIN')
  }
  const seconds = (network.clock.monotonic() - begin) / 1000
  assert.ok(network.lookups.length <= 2 + 10 * seconds, `${network.lookups.length} lookups in ${seconds} s`)
  end()
})

test('an IP address is never looked up and is dialled once', async () => {
  const { network, app, dialled, end } = await open('', [], '127.0.0.9:9000')
  const one = app()
  await network.until(() => one.over, 'the end')
  await network.pass(40_000)
  const two = app()
  await network.until(() => two.over, 'the end')
  assert.equal(dialled(), ['127.0.0.9', '127.0.0.9'])
  assert.equal(network.lookups, [])
  end()
})

test('addresses of both families are tried in turn, each 250 ms after the one before, or at once when it failed', async () => {
  const addresses = ['2001:db8::1', '2001:db8::2', '192.0.2.1', '192.0.2.2']
  assert.equal(
    interleaved(addresses.map(at)).map(({ address }) => address),
    ['2001:db8::1', '192.0.2.1', '2001:db8::2', '192.0.2.2'],
  )
  const { network, app, dialled, end } = await open(addresses.join(' '), ['192.0.2.2'])
  for (const address of ['[2001:db8::1]:9000', '192.0.2.1:9000']) network.silent.add(address)
  const begin = network.clock.monotonic()
  const one = app()
  await one.echo('at the last address')
  const took = network.clock.monotonic() - begin
  assert.ok(took >= 500 && took < 750, `${took} ms`)
  assert.equal(dialled(), ['[2001:db8::1]', '192.0.2.1', '[2001:db8::2]', '192.0.2.2'])
  end()
})

test('the address in use is kept while the name has it: a rotated answer or a reload changes nothing', async () => {
  const both = ['192.0.2.1', '192.0.2.2']
  const { network, server, config, app, dialled, close, end } = await open(both.join(' '), ['192.0.2.2'])
  await app().echo('at the second')
  assert.equal(dialled(), both)
  echoTarget(network, at('192.0.2.1'))
  await app().echo('again')
  await network.pass(40_000)
  network.hosts.set('target.test', '192.0.2.1 192.0.2.3 192.0.2.2')
  await app().echo('after a rotation')
  await server.reload(configOf(config))
  await app().echo('after a reload')
  assert.equal(dialled(), ['192.0.2.2', '192.0.2.2', '192.0.2.2'])
  network.hosts.set('target.test', '192.0.2.1')
  await network.pass(40_000)
  close('192.0.2.2')
  await app().echo('when the name lost it')
  assert.equal(dialled(), ['192.0.2.1'])
  end()
})

test('a reload with another name uses its addresses, and the old ones while it has none', async () => {
  const { network, server, config, app, dialled, end } = await open('127.0.0.1', ['127.0.0.1', '127.0.0.2'])
  await server.reload(configOf({ ...config, connect: 'other.test:9000' }))
  await app().echo('with a name that is unknown for now')
  network.hosts.set('other.test', '127.0.0.2')
  await network.pass(2000)
  await app().echo('with its address')
  assert.equal(dialled(), ['127.0.0.1', '127.0.0.2'])
  end()
})

test('a connection that ends while the target is being dialled leaves no attempt', async () => {
  const { network, app, dialled, end } = await open('192.0.2.1 192.0.2.2', [])
  for (const address of ['192.0.2.1:9000', '192.0.2.2:9000']) network.silent.add(address)
  const one = app()
  await network.until(() => network.dials.length === 1, 'the first attempt')
  one.close()
  await network.pass(60_000)
  assert.ok(dialled().length <= 2)
  end()
  assert.is(network.clock.armed, 0)
})

test.run()
