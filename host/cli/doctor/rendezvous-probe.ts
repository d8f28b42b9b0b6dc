/**
 * Finds a server through a rendezvous server (protocol.md 8) as a client does, from a separate socket. The rendezvous
 * server sends each endpoint the address of the other; pings from both sides open the NATs.
 */

import { MODE_CLIENT, MODE_RENDEZVOUS } from '../../config/config.ts'
import { quote } from '../../errors.ts'
import { formatAddress, type SocketAddress, sameAddress } from '../../net/address.ts'
import { announcedAddress, asSeenBy, localTowards } from '../../transport/rendezvous.ts'
import { Pinger } from './pings.ts'
import { Probe } from './probe.ts'
import { type Case, ephemeral, type Reached, reach } from './reachability.ts'

/** Requests to the rendezvous server. */
const ASK_TIMES = 8
/** Interval between two requests, ms. */
const ASK_PAUSE_MS = 1000
/** Wait for an answer of the server from one of its addresses, which the engine pings, ms. */
const PUNCH_WAIT_MS = 8000

/**
 * Finds the server and reports the result.
 * @returns undefined if it was not found, or if this configuration is that of a server
 */
export async function meet(examined: Case, server: SocketAddress): Promise<Reached | undefined> {
  const { runtime, config, own, report, progress } = examined
  const found = await reach(examined, 'rendezvous', 'rendezvous_server', server)
  if (found === undefined) return undefined
  found.probe.close()
  const isClient = (config.mode & MODE_CLIENT) !== 0
  const service = quote(config.service_id)
  progress(`requesting the service ${service}`)
  const probe = await Probe.open(runtime, config, ephemeral(examined, server), [own], MODE_CLIENT | MODE_RENDEZVOUS)
  const { local } = probe
  if (local === undefined) return undefined
  const pinger = new Pinger(probe)
  // each address of the name may be a server of its own
  const servers = examined.addresses.rendezvousAddresses
    .filter((address) => address.family === 4 || local.family === 6)
    .map((address) => asSeenBy(local, address))
  const received: SocketAddress[] = []
  let punched = false
  let peer: SocketAddress | undefined
  probe.onAnswer = (answer) => void pinger.take(answer)
  probe.onPeer = (address) => {
    peer = address
  }
  probe.onPunched = (addresses) => {
    for (const address of addresses) {
      if (!received.some((known) => sameAddress(known, address))) received.push(address)
    }
    punched = true
  }
  const [first = server, ...others] = servers
  const announced = announcedAddress(local, false, await localTowards(runtime, server, config.fwmark))
  const service_id = new TextEncoder().encode(config.service_id)
  for (let i = 0; i < ASK_TIMES && !punched; i++) {
    probe.announce({ server: first, others, local: announced, service: service_id })
    await probe.until(() => punched, ASK_PAUSE_MS)
  }
  const values = { service: config.service_id, addresses: received.map(formatAddress).join(' ') }
  if (!punched) {
    const text = `the service ${service} is not registered with the rendezvous server`
    report.add('peer', isClient ? 'failure' : 'note', text, {
      values: { ...values, cause: 'no service' },
      remedies: [
        'start the server, or wait until it registers (every keepalive seconds)',
        'compare service_id and rendezvous_server: they must be the same on client and server',
      ],
    })
    probe.close()
    return undefined
  }
  if (!isClient) {
    report.add('peer', 'ok', `the service ${service} is registered: ${values.addresses}`, { values })
    probe.close()
    return undefined
  }
  await probe.until(() => peer !== undefined, PUNCH_WAIT_MS)
  if (peer === undefined) {
    const text = `the server is registered as ${values.addresses}, but does not answer there`
    report.add('peer', 'failure', text, {
      values: { ...values, cause: 'not punched' },
      remedies: [
        'a NAT is symmetric (uses a different port for each destination), or a firewall drops UDP: forward a port to the server and use kcp_connect',
        'addresses in 127/8, 169.254/16 and 100.64/10 are never tried',
      ],
    })
    probe.close()
    return undefined
  }
  report.add('peer', 'ok', `found the server at ${formatAddress(peer)}`, { values })
  return { probe, pinger, peer }
}
