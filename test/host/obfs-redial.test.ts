/** The client's redial schedule, in virtual time, and the firewall rules of dpi/tcp. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { firewallNotice, firewallText } from '../../host/transport/obfs/firewall.ts'
import { Redial } from '../../host/transport/obfs/redial.ts'

const test = suite('obfs: redial')

/** A clock with one timer. */
class OneTimer {
  now = 0
  due: { at: number; callback: () => void } | undefined
  setTimer(callback: () => void, ms: number): { at: number; callback: () => void } {
    this.due = { at: this.now + ms, callback }
    return this.due
  }
  clearTimer(): void {
    this.due = undefined
  }
  /** Advances to the next timer. */
  pass(): void {
    const { due } = this
    if (due === undefined) throw new Error('no timer')
    this.due = undefined
    this.now = due.at
    due.callback()
  }
}

test('MUST 66: redials follow the schedule, which restarts after a success', () => {
  const clock = new OneTimer()
  const dials: number[] = []
  const redial = new Redial(() => dials.push(clock.now), clock)
  for (let round = 0; round < 2; round++) {
    const pauses: number[] = []
    // the first dial failed, or a working connection broke
    for (let n = 0; n < 15; n++) {
      const before = clock.now
      redial.failed()
      clock.pass()
      pauses.push((clock.now - before) / 1000)
    }
    assert.equal(pauses, [0, 0.2, 2, 2, 5, 5, 15, 15, 15, 60, 60, 120, 300, 300, 300])
    assert.is(redial.count, 15)
    redial.succeeded()
  }
  assert.is(dials.length, 30)
})

test('MUST 66: a configuration change dials at once, and nothing is dialled twice', () => {
  const clock = new OneTimer()
  let dials = 0
  const redial = new Redial(() => dials++, clock)
  redial.failed()
  redial.failed()
  redial.now()
  assert.is(dials, 1)
  assert.is(clock.due, undefined)
  assert.is(redial.failed(), 0)
  redial.cancel()
  assert.is(clock.due, undefined)
})

test('the firewall rules match only the packets of the tunnel', () => {
  const server = { side: 'server', address: { family: 4, address: '0.0.0.0', port: 8080, scope: 0 } } as const
  assert.is(
    firewallText([server]),
    `# dpi/tcp, server: keeps the kernel from answering the tunnel's packets with RST
# with nftables
nft add table inet kcptun
nft 'add chain inet kcptun input { type filter hook input priority filter; policy accept; }'
nft add rule inet kcptun input meta nfproto ipv4 tcp dport 8080 drop
# or with iptables
iptables -I INPUT -p tcp --dport 8080 -j DROP
`,
  )
  const client = { side: 'client', address: { family: 6, address: '2001:db8::1', port: 443, scope: 0 } } as const
  const text = firewallText([client])
  const other = { side: 'client', address: { ...client.address, address: '2001:db8::2' } } as const
  const both = firewallText([client, other])
  for (const each of [client, other]) for (const line of firewallText([each]).split('\n')) assert.match(both, line)
  assert.is(both.split('nft add table').length, 2, 'one table')
  assert.match(text, 'nft add rule inet kcptun input ip6 saddr 2001:db8::1 tcp sport 443 drop\n')
  assert.match(text, 'ip6tables -I INPUT -p tcp -s 2001:db8::1 --sport 443 -j DROP\n')
  assert.match(firewallNotice(client), 'ip6tables -I INPUT')
})

test.run()
