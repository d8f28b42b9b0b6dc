/** `kcptun-wasm link` in memory: links of clients, and of a server for its users. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readLink } from '../../host/config/link.ts'
import { parseConfig } from '../../host/config/load.ts'
import { type Outcome, tryCommand } from './command-line.ts'

const psk = (first: string) => `${first.padEnd(43, 'A')}=`
const SERVER = { connect: 'a:1', kcp_bind: '[::]:4000-4063', method: 'aes256gcm', kcp: { mtu: 1300, sndwnd: 99 } }
const KEYS = [
  { name: 'alice', psk: psk('a'), max_sessions: 9 },
  { name: 'bob', password: 'x' },
]

const link = (file: object, ...words: string[]): Promise<Outcome> =>
  tryCommand('link', ['-c', 'f.json', ...words], { files: new Map([['f.json', JSON.stringify(file)]]) })

/** What the link contains, which must be a valid client. */
function linked({ status, stdout, stderr }: Outcome): Record<string, unknown> {
  assert.is(status, 0, stderr)
  const content = readLink(/kcptun-wasm:\S+/.exec(stdout)?.[0] ?? '')
  parseConfig(new TextEncoder().encode(JSON.stringify(content)))
  return content
}

async function assertRefused(outcome: Promise<Outcome>, reason: RegExp): Promise<void> {
  const { status, stdout, stderr } = await outcome
  assert.equal([status, stdout], [1, ''])
  assert.match(stderr, reason)
}

const test = suite('link')

test('a user of a server gets a client with his key, and what both ends share', async () => {
  const file = { ...SERVER, keys: KEYS }
  assert.equal(linked(await link(file, 'alice', '--server', 'vpn.example')), {
    listen: '127.0.0.1:1080',
    kcp_connect: 'vpn.example:4000-4063',
    method: 'aes256gcm',
    psk: psk('a'),
    kcp: { mtu: 1300 },
  })
  const bob = linked(await link(file, 'bob', '--server', '[2001:db8::1]:5000', '--listen', ':8080'))
  assert.equal([bob['password'], bob['psk'], bob['kcp_connect']], ['x', undefined, '[2001:db8::1]:5000'])
  assert.is(bob['listen'], ':8080')
})

test('a server with one key, for UDP, or behind a rendezvous server has clients too', async () => {
  const { connect: _, ...udp } = { ...SERVER, kcp: {}, udp_connect: 'a:53', psk: psk('z') }
  const dns = linked(await link(udp, '--server', 'vpn.example:5', '--listen', '53'))
  assert.equal([dns['udp_listen'], dns['psk'], dns['kcp_connect']], ['127.0.0.1:53', psk('z'), 'vpn.example:5'])
  const met = { connect: 'a:1', rendezvous_server: 'r:1', service_id: 's', method: 'aes256gcm', psk: psk('z') }
  const content = linked(await link(met))
  assert.equal([content['rendezvous_server'], content['service_id'], content['kcp_connect']], ['r:1', 's', undefined])
})

test('the file of a client becomes a link as it is', async () => {
  const client = { listen: ':1', kcp_connect: 'a:1', method: 'aes256gcm', psk: psk('z'), keepalive: 7 }
  assert.equal(linked(await link(client)), client)
  await assertRefused(link(client, 'alice'), /alice is for a server, this is a client/)
  await assertRefused(link(client, '--server', 'x'), /--server is for a server/)
})

test('what is missing or wrong is refused with a reason, and no key is shown', async () => {
  const file = { ...SERVER, keys: KEYS }
  await assertRefused(link(file, '--server', 'vpn.example'), /name the user whose key it gets: alice, bob/)
  await assertRefused(link(file, 'carol', '--server', 'vpn.example'), /there is no key "carol": alice, bob/)
  await assertRefused(link(file, 'alice'), /--server is missing/)
  await assertRefused(link(file, 'alice', '--server', 'a:b:c'), /--server a:b:c: /)
  await assertRefused(link(file, 'alice', 'bob', '--server', 'x'), /unexpected argument: "bob"/)
  await assertRefused(link({ kcp_bind: ':1' }), /rendezvous server has no clients/)
})

test.run()
