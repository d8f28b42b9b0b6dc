/**
 * Finds a server through a rendezvous server (protocol.md 8) as a client does, from a separate socket. The rendezvous
 * server sends each endpoint the address of the other; pings from both sides open the NATs.
 */

import { MODE_CLIENT } from '../../config/config.ts'
import { quote } from '../../errors.ts'
import { formatAddress, type SocketAddress, sameAddress } from '../../net/address.ts'
import { announcedAddress, asSeenBy, localTowards } from '../../transport/rendezvous.ts'
import { Pinger } from './pings.ts'
import { Probe } from './probe.ts'
import { type Case, ephemeral, type Reached, reach } from './reachability.ts'
import { connectMessage, isPunchable } from './wire.ts'

/** Requests to the rendezvous server. */
const ASK_TIMES = 8
/** Interval between two requests, ms. */
const ASK_PAUSE_MS = 1000
/** Pings to each address received. */
const PUNCH_TIMES = 32
/** Interval between two pings, ms. */
const PUNCH_PAUSE_MS = 250

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
  const probe = await Probe.open(runtime, ephemeral(examined, server), [own])
  const { local } = probe
  if (local === undefined) return undefined
  const pinger = new Pinger(probe)
  // each address of the name may be a server of its own
  const servers = examined.addresses.rendezvousAddresses
    .filter((address) => address.family === 4 || local.family === 6)
    .map((address) => asSeenBy(local, address))
  const received: SocketAddress[] = []
  probe.onArrival = (arrival) => {
    const { message } = arrival
    if (message.kind === 'punch') {
      for (const address of message.addresses) {
        const seen = asSeenBy(local, address)
        if (isPunchable(seen) && !received.some((known) => sameAddress(known, seen))) received.push(seen)
      }
      punched = true
    } else pinger.take(arrival)
  }
  let punched = false
  const hello = connectMessage(
    announcedAddress(local, false, await localTowards(runtime, server, config.fwmark)),
    config.service_id,
  )
  for (let i = 0; i < ASK_TIMES && !punched; i++) {
    for (const to of servers) probe.send(hello, to)
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
  for (let i = 0; i < PUNCH_TIMES && pinger.answers.size === 0; i++) {
    for (const address of received) pinger.send(address)
    // the server stops pinging us after a while: request it again
    if (i % 16 === 15) for (const to of servers) probe.send(hello, to)
    await probe.until(() => pinger.answers.size > 0, PUNCH_PAUSE_MS)
  }
  const peer = pinger.last?.from
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
