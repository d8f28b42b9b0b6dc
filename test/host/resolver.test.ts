/** Resolution of the configured addresses, and the parameters with which the UDP socket is opened. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import type { Runtime } from '../../host/runtime.ts'
import { announcedAddress, asSeenBy, localTowards } from '../../host/transport/rendezvous.ts'
import { checkAddresses, NO_ADDRESSES, resolveAddresses, resolveAll } from '../../host/transport/resolver.ts'
import { packetFamily, udpOptions } from '../../host/transport/udp-options.ts'
import { MemoryNetwork } from './memory-runtime.ts'

const test = suite('resolver')

const configOf = (config: object) => parseConfig(new TextEncoder().encode(JSON.stringify(config)))

const v4 = (address: string, port: number): SocketAddress => ({ family: 4, address, port, scope: 0 })
const v6 = (address: string, port: number): SocketAddress => ({ family: 6, address, port, scope: 0 })

/** Both families for every name but `none`, IPv6 first. */
const runtime: Pick<Runtime, 'resolve'> = {
  async resolve(host) {
    if (host === 'none') throw new Error('ENOTFOUND none')
    if (/^[\d.]+$/.test(host)) return [{ family: 4, address: host, scope: 0 }]
    if (host.includes(':')) return [{ family: 6, address: host, scope: 0 }]
    const both = [
      { family: 6, address: '2001:db8::1', scope: 0 },
      { family: 4, address: '192.0.2.1', scope: 0 },
    ] as const
    return host === 'ipv4-first' ? both.toReversed() : both
  },
}

const resolver: Runtime = Object.assign(new MemoryNetwork().runtime(), runtime)

/** The parameters of the UDP socket: bind, connect, family of the packets. */
async function opened(config: object): Promise<string> {
  const { addresses, failures } = await resolveAddresses(resolver, configOf(config), NO_ADDRESSES)
  assert.is(failures.length, 0)
  const { bind, connect } = udpOptions(addresses)
  const parts = [formatAddress(bind), connect === undefined ? '-' : formatAddress(connect), packetFamily(addresses)]
  return parts.join(' ')
}

test('MUST 70, MUST 71: each mode opens its socket: bound, connected, or for a rendezvous server', async () => {
  assert.is(await opened({ connect: 'a:1', kcp_bind: ':5' }), '0.0.0.0:5 - 4')
  assert.is(await opened({ connect: 'a:1', kcp_bind: '[::]:5' }), '[::]:5 - 6')
  assert.is(await opened({ listen: ':1', kcp_connect: 'a:5' }), '[::]:0 [2001:db8::1]:5 6')
  assert.is(await opened({ listen: ':1', kcp_connect: '192.0.2.9:5' }), '0.0.0.0:0 192.0.2.9:5 4')
  assert.is(await opened({ kcp_bind: '192.0.2.1:5' }), '192.0.2.1:5 - 4')
  assert.is(await opened({ connect: 'a:1', rendezvous_server: 'a:5' }), '[::]:0 - 6')
  assert.is(await opened({ listen: ':1', rendezvous_server: '192.0.2.9:5' }), '0.0.0.0:0 - 4')
  assert.is(await opened({ listen: ':1', rendezvous_server: 'a:5', kcp_bind: ':7' }), '0.0.0.0:7 - 4')
  // with a rendezvous server kcp_connect is ignored, and a rendezvous server needs no other one
  assert.is(await opened({ listen: ':1', rendezvous_server: '192.0.2.9:5', kcp_connect: 'none:1' }), '0.0.0.0:0 - 4')
  assert.is(await opened({ kcp_bind: ':5', rendezvous_server: 'none:1' }), '0.0.0.0:5 - 4')
})

test('of several addresses of a name, one is chosen that the socket can reach', async () => {
  assert.is(await opened({ listen: ':1', kcp_connect: 'a:5', kcp_bind: ':7' }), '0.0.0.0:7 192.0.2.1:5 4')
  assert.is(await opened({ listen: ':1', kcp_connect: 'a:5', kcp_bind: '[::]:7' }), '[::]:7 [2001:db8::1]:5 6')
  assert.is(await opened({ listen: ':1', kcp_connect: '192.0.2.9:5', kcp_bind: '[::]:7' }), '[::]:7 192.0.2.9:5 4')
  // one that reaches every address of the rendezvous server
  assert.is(await opened({ listen: ':1', rendezvous_server: 'ipv4-first:5' }), '[::]:0 - 6')
  for (const key of ['kcp_connect', 'rendezvous_server']) {
    try {
      await opened({ listen: ':1', [key]: '[2001:db8::1]:5', kcp_bind: ':7' })
      assert.unreachable()
    } catch (error) {
      assert.match(String(error), `${key}: an IPv6 address is not reachable`)
    }
  }
})

test('a system without IPv6 uses the IPv4 addresses of a name, for every key', async () => {
  const openUdp: Runtime['openUdp'] = async () => {
    throw Object.assign(new Error('no IPv6'), { code: 'EAFNOSUPPORT' })
  }
  const without: Runtime = Object.assign(new MemoryNetwork().runtime(), runtime, { openUdp })
  for (const [key, role] of [
    ['listen', 'bind'],
    ['kcp_bind', 'bind'],
    ['kcp_connect', 'connect'],
    ['connect', 'connect'],
  ] as const) {
    assert.equal((await resolveAll(without, key, 'a:5', role)).map(formatAddress), ['192.0.2.1:5'])
  }
  assert.equal((await resolveAll(without, 'kcp_connect', '[::1]:5', 'connect')).map(formatAddress), ['[::1]:5'])
})

test('with obfs a name of kcp_bind with several addresses: those that are not used are named', async () => {
  const secret = { method: 'aes256gcm', psk: `${'A'.repeat(43)}=` }
  const server = { ...secret, connect: 'a:1', kcp_bind: 'a:5' }
  const found = await resolveAddresses(resolver, configOf({ ...server, obfs: 'dpi/tcp-wnd' }), NO_ADDRESSES)
  assert.is(found.warnings.length, 1)
  assert.match(found.warnings[0] ?? '', 'kcp_bind = "a:5": with obfs only [2001:db8::1]:5 is used, not 192.0.2.1:5')
  for (const config of [server, { ...server, kcp_bind: '192.0.2.8:5', obfs: 'dpi/tcp-wnd' }]) {
    assert.equal((await resolveAddresses(resolver, configOf(config), NO_ADDRESSES)).warnings, [])
  }
})

test('of several addresses of kcp_bind a client is bound to one of the family of its server', async () => {
  const client = { listen: ':1', kcp_bind: 'a:0' }
  assert.is(await opened({ ...client, kcp_connect: '192.0.2.9:5' }), '192.0.2.1:0 192.0.2.9:5 4')
  assert.is(await opened({ ...client, kcp_connect: '[2001:db8::9]:5' }), '[2001:db8::1]:0 [2001:db8::9]:5 6')
  assert.is(await opened({ ...client, rendezvous_server: '192.0.2.9:5' }), '192.0.2.1:0 - 6')
})

test('a name that fails to resolve keeps its old address, the others are updated', async () => {
  const rendezvous = v4('192.0.2.7', 1)
  const before = { ...NO_ADDRESSES, rendezvous, rendezvousAddresses: [rendezvous], bind: v4('0.0.0.0', 5) }
  const config = configOf({ connect: 'a:1', rendezvous_server: 'none:1', kcp_bind: '192.0.2.8:5' })
  const { addresses, failures } = await resolveAddresses(resolver, config, before)
  assert.is(addresses.rendezvous, before.rendezvous)
  assert.is(addresses.bind?.address, '192.0.2.8')
  assert.is(failures.length, 1)
  assert.match(failures[0]?.message ?? '', 'rendezvous_server: cannot resolve none')
})

test('MUST 71: the syntax of every address that may change is checked at once', () => {
  const server = { connect: 'a:1', kcp_bind: ':1' }
  checkAddresses(configOf({ ...server, rendezvous_server: '[::1]:2' }))
  for (const [key, value] of [
    ['connect', ':1'],
    ['connect', 'a'],
    ['kcp_bind', '::1:53'],
    ['rendezvous_server', 'a:65536'],
  ] as const) {
    assert.throws(() => checkAddresses(configOf({ ...server, [key]: value })), new RegExp(key))
  }
})

test('LISTEN and CONNECT contain the source IP towards the rendezvous server and the real port', async () => {
  assert.equal(announcedAddress(v4('0.0.0.0', 7), false, v4('10.0.0.1', 999)), v4('10.0.0.1', 7))
  assert.equal(announcedAddress(v4('0.0.0.0', 7), false, undefined), v4('0.0.0.0', 0))
  assert.equal(announcedAddress(v6('::', 7), false, undefined), v6('::', 0))
  assert.equal(announcedAddress(v4('10.0.0.2', 7), true, v4('10.0.0.1', 999)), v4('10.0.0.2', 7))
  const network = new MemoryNetwork()
  network.here = '10.0.0.1'
  assert.is((await localTowards(network.runtime(), v4('192.0.2.1', 5), 0))?.address, '10.0.0.1')
  assert.is(network.udp.size, 0, 'the socket was thrown away')
  network.here = undefined
  assert.is(await localTowards(network.runtime(), v4('192.0.2.1', 5), 0), undefined)
})

test('an IPv6 socket uses IPv4 addresses in mapped form', () => {
  assert.equal(asSeenBy(v6('::', 1), v4('192.0.2.1', 5)), v6('::ffff:192.0.2.1', 5))
  assert.equal(asSeenBy(v6('::', 1), v6('2001:db8::1', 5)), v6('2001:db8::1', 5))
  assert.equal(asSeenBy(v4('0.0.0.0', 1), v4('192.0.2.1', 5)), v4('192.0.2.1', 5))
})

test.run()
