// time limit: 120 s
/** The endpoint's secret across traps, clock jumps and workers, and the effect of replayed traffic. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { EndpointSecret } from '../../host/engine/secret.ts'
import { Log } from '../../host/log/log.ts'
import { loopback, NO_CIPHERS, until } from './memory-runtime.ts'
import { configOf, METHODS, PSK, tunnel } from './trap-tunnel.ts'
import { trapAt } from './traps.ts'

const test = suite('trap: secret')

for (const method of METHODS) {
  test(`datagrams sent before a trap are recognized as own datagrams afterwards (${method})`, async () => {
    const all = await tunnel({ method, psk: PSK })
    const { network, client, server, connect, close } = all
    for (const [end, peer] of [
      [client, server],
      [server, client],
    ] as const) {
      network.datagrams.length = 0
      const sent: Uint8Array[] = []
      const far = network.udp.get(`127.0.0.1:${peer.udp.port}`)
      const near = network.udp.get(`127.0.0.1:${end.udp.port}`)
      assert.ok(far && near)
      const deliver = far.deliver.bind(far)
      far.deliver = (data, from) => {
        sent.push(data.slice())
        deliver(data, from)
      }
      await connect()
      far.deliver = deliver
      const first = end.driver.core
      trapAt(first, 'poll_events')
      end.driver.pump()
      await until(() => end.driver.core !== first && !end.driver.dead, 'the fresh engine')
      const { driver } = end
      const reflected = driver.core.counter('drop_reflected')
      for (const data of sent) near.deliver(data, far.local)
      await until(() => driver.core.counter('drop_reflected') - reflected === BigInt(sent.length), 'all are recognized')
    }
    close()
  })
}

for (const method of METHODS) {
  test(`workers recognize each other's datagrams as own, another endpoint does not (${method})`, async () => {
    const all = await tunnel({ method, psk: PSK })
    const { network, client, server, close } = all
    const secret = new EndpointSecret()
    const worker = (port: number): Promise<Endpoint> => {
      const config = { connect: '127.0.0.1:9000', kcp_bind: `127.0.0.1:${port}`, method, psk: PSK }
      const share = { fd: -1, addresses: [], secret: secret.part(256) }
      return startEndpoint(network.runtime(), configOf(config), new Log(() => {}), NO_CIPHERS, share)
    }
    const workers = [await worker(5001), await worker(5002)] as const
    const sent: Uint8Array[] = []
    const near = network.udp.get(`127.0.0.1:${client.udp.port}`)
    const [first, second] = [network.udp.get('127.0.0.1:5001'), network.udp.get('127.0.0.1:5002')]
    assert.ok(near && first && second)
    near.deliver = (data, from) => {
      if (from.port === 5001) sent.push(data.slice())
    }
    // the client's PINGs go to the first worker, whose answers are delivered to the second
    client.driver.pingPeer()
    const recorded = network.datagrams.slice(-5)
    for (const data of recorded) first.deliver(data.slice(), near.local)
    await until(() => sent.length > 0, 'the first worker answers')
    const answers = sent.slice()
    for (const data of answers) second.deliver(data.slice(), near.local)
    const reflected = (endpoint: Endpoint): bigint => endpoint.driver.core.counter('drop_reflected')
    await until(() => reflected(workers[1]) === BigInt(answers.length), 'the second worker recognizes them')
    const received = server.driver.core.counter('pkt_received')
    const strange = network.udp.get('127.0.0.1:5000')
    assert.ok(strange && answers[0])
    strange.deliver(answers[0], near.local)
    await until(() => server.driver.core.counter('pkt_received') > received, 'the datagram was received')
    assert.is(reflected(server), 0n)
    for (const one of workers) one.close()
    close()
  })

  test(`replaying a transfer recorded before a trap of the server dials nothing (${method})`, async () => {
    const all = await tunnel({ method, psk: PSK })
    const { network, client, server, targets, connect, close } = all
    const near = network.udp.get(`127.0.0.1:${server.udp.port}`)
    assert.ok(near)
    const recorded: Uint8Array[] = []
    const deliver = near.deliver.bind(near)
    near.deliver = (data, from) => {
      recorded.push(data.slice())
      deliver(data, from)
    }
    const first = await connect()
    // so that some datagrams are in flight
    first.send(50_000)
    const before = server.driver.core
    trapAt(before, 'handle_datagrams', () => recorded.length > 20)
    await until(() => server.driver.core !== before && !server.driver.dead, 'the fresh engine')
    near.deliver = deliver
    await connect()
    assert.is(targets.length, 2)
    const { local } = network.udp.get(`127.0.0.1:${client.udp.port}`) ?? {}
    assert.ok(local && recorded.length > 20)
    const { driver } = server
    for (const from of [local, loopback(6666)]) {
      const received = driver.core.counter('pkt_received')
      for (const data of recorded) near.deliver(data.slice(), from)
      await until(() => driver.core.counter('pkt_received') - received >= BigInt(recorded.length), 'all were received')
    }
    await connect()
    assert.is(targets.length, 3, 'no other connection was dialled')
    close()
  })
}

test('after a wall-clock jump counter nonces continue from another base, also in the engine after a trap', async () => {
  const all = await tunnel({ method: METHODS[1], psk: PSK })
  const { network, client, server, connect, close } = all
  const near = network.udp.get(`127.0.0.1:${client.udp.port}`)
  const far = network.udp.get(`127.0.0.1:${server.udp.port}`)
  assert.ok(near && far)
  /** The client's nonce bases: the part of the counter that is constant within a base. */
  const seen: string[] = []
  const sent: Uint8Array[] = []
  const deliver = far.deliver.bind(far)
  far.deliver = (data, from) => {
    sent.push(data.slice())
    const base = String(data.slice(-6))
    if (!seen.includes(base)) seen.push(base)
    deliver(data, from)
  }
  await connect()
  assert.is(seen.length, 1)
  network.wallAhead += 3_600_000
  network.clockAhead += 1500
  await connect()
  assert.is(seen.length, 2, 'another base')
  const first = client.driver.core
  trapAt(first, 'poll_events')
  client.driver.pump()
  await until(() => client.driver.core !== first && !client.driver.dead, 'the fresh engine')
  const known = sent.length
  await connect()
  assert.is(seen.length, 3, 'another slot')
  for (const data of sent.slice(0, known)) near.deliver(data, far.local)
  const { driver } = client
  await until(() => driver.core.counter('drop_reflected') === BigInt(known), 'datagrams of both bases are recognized')
  far.deliver = deliver
  close()
})

test.run()
