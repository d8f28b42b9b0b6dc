/**
 * Checks whether a server or rendezvous server answers PINGs, and reports why not. Causes that can be distinguished are
 * reported separately, others as possibilities.
 */

import type { Config } from '../../config/config.ts'
import { socketOptionsOf } from '../../config/socket-options.ts'
import type { RuntimeCrypto } from '../../crypto/open.ts'
import { messageOf } from '../../errors.ts'
import { Log } from '../../log/log.ts'
import { formatAddress, parseHostPort, type SocketAddress } from '../../net/address.ts'
import type { Runtime, UdpOptions } from '../../runtime.ts'
import type { ResolvedAddresses } from '../../transport/resolver.ts'
import { udpOptions } from '../../transport/udp-options.ts'
import type { Refusals } from './host-checks.ts'
import { findSibling, investigate, type Silence } from './no-answer.ts'
import { firstAnswer, Pinger } from './pings.ts'
import { Probe } from './probe.ts'
import type { Finding, FindingName, Report } from './report.ts'
import { type Cipher, PLAIN } from './voice.ts'

/** The context of all tests. */
export interface Case {
  readonly runtime: Runtime
  readonly config: Config
  readonly crypto: RuntimeCrypto
  /** Method and key of the configuration. */
  readonly own: Cipher
  readonly addresses: ResolvedAddresses
  readonly report: Report
  readonly refusals: Refusals
  /** Duration of the ping train, s. */
  readonly seconds: number
  /** Shows the current step; an empty text clears the line. */
  readonly progress: (text: string) => void
}

/** A peer that answered. */
export interface Reached {
  readonly probe: Probe
  readonly pinger: Pinger
  readonly peer: SocketAddress
}

/** Discards log lines about socket options: `Refusals` records them. */
const silentLog = new Log(
  () => {},
  () => new Date(),
)

/** Options of a socket with an ephemeral port and the configured interface, address and buffers. */
export function ephemeral(
  { config, addresses, refusals }: Pick<Case, 'config' | 'addresses' | 'refusals'>,
  remote: SocketAddress,
): UdpOptions {
  const { bind } = udpOptions({ ...addresses, peer: undefined, rendezvous: remote, rendezvousAddresses: [remote] })
  const socketOptions = socketOptionsOf('udp', { ...config.udp, reuseport: false }, config, silentLog)
  return { bind: { ...bind, port: 0 }, socketOptions: refusals.of(socketOptions), path: config.udp.path }
}

/** Errors that mean that there is no route to the peer. */
const NO_WAY = ['ENETUNREACH', 'EHOSTUNREACH', 'ENETDOWN', 'EHOSTDOWN', 'EADDRNOTAVAIL', 'EACCES', 'EPERM']

/**
 * Pings an address until it answers, and reports the result.
 * @param key config key of the address
 */
export async function reach(
  examined: Case,
  finding: FindingName,
  key: 'kcp_connect' | 'rendezvous_server',
  peer: SocketAddress,
): Promise<Reached | undefined> {
  const { runtime, report, own, progress } = examined
  const where = formatAddress(peer)
  const options = ephemeral(examined, peer)
  progress(`pinging ${where}`)
  const siblings = await furtherAddresses(runtime, examined.config[key], key, peer)
  /** Whether another address of the name answers; if so, this is reported. */
  const isWrongAddress = async (values: Finding['values']): Promise<boolean> => {
    const sibling = await findSibling(runtime, examined.config, own, siblings)
    if (sibling !== undefined) reportSibling(report, finding, key, peer, sibling, values)
    return sibling !== undefined
  }
  let probe: Probe
  try {
    probe = await Probe.open(runtime, examined.config, { ...options, connect: peer }, [own])
  } catch (error) {
    if (await isWrongAddress({ address: where })) return undefined
    report.add(finding, 'failure', `no route to ${where}: ${messageOf(error)}`, {
      values: { address: where, cause: 'no route' },
      remedies: ['check network and routes of this machine', 'check kcp_bind and netdev, if set'],
    })
    return undefined
  }
  const pinger = new Pinger(probe)
  probe.onAnswer = (answer) => void pinger.take(answer)
  const first = await firstAnswer(probe, pinger, peer)
  if (first !== undefined) {
    const values = { address: where, first_ms: round(first) }
    report.add(finding, 'ok', `${where} answers after ${round(first)} ms`, { values })
    return { probe, pinger, peer }
  }
  const values = {
    address: where,
    refused: probe.errors.get('ECONNREFUSED') ?? 0,
    unauthenticated: probe.unopened,
  }
  const errors = NO_WAY.filter((code) => probe.errors.has(code))
  probe.close()
  if ((values.refused > 0 || errors.length > 0) && (await isWrongAddress(values))) return undefined
  if (values.refused > 0) {
    const { port } = peer
    report.add(finding, 'failure', `${where} refused: no program listens on UDP port ${port} of this host`, {
      values: { ...values, cause: 'refused' },
      remedies: [
        'start the server, or check its log',
        `compare the port in ${key} (${port}) with kcp_bind of the peer`,
        `allow UDP port ${port} in the firewall of the peer, which may reject it`,
      ],
    })
    return undefined
  }
  if (errors.length > 0) {
    report.add(finding, 'failure', `no route to ${where}: ${errors.join(', ')}`, {
      values: { ...values, cause: 'no route' },
      remedies: ['check network, routes and firewall of this machine and on the path'],
    })
    return undefined
  }
  progress(`no answer from ${where}, determining the cause`)
  const silence = await investigate(runtime, examined.config, examined.crypto, own, options, peer, siblings)
  reportSilence(examined, finding, key, peer, silence, values)
  return undefined
}

/** Reports that another address of the name answers, but not the first one, which is used. */
function reportSibling(
  report: Report,
  finding: FindingName,
  key: string,
  peer: SocketAddress,
  sibling: SocketAddress,
  values: Finding['values'],
): void {
  const answer = formatAddress(sibling)
  const text =
    `${formatAddress(peer)} does not answer, but another address of the same name does: ${answer}. ` +
    'It is tried after a while'
  report.add(finding, 'failure', text, {
    values: { ...values, cause: 'other address', answer },
    remedies: [`set ${key} to ${answer}`, 'or make the server listen on all addresses of the name'],
  })
}

/** The addresses of a name beside the one in use. */
export async function furtherAddresses(
  runtime: Runtime,
  text: string | undefined,
  key: string,
  used: SocketAddress,
): Promise<SocketAddress[]> {
  if (text === undefined) return []
  const { host, port } = parseHostPort(key, text, 'connect')
  const all = await runtime.resolve(host).catch(() => [])
  return all.filter(({ address }) => address !== used.address).map((address) => ({ ...address, port }))
}

function reportSilence(
  { report, config, own }: Case,
  finding: FindingName,
  key: string,
  peer: SocketAddress,
  silence: Silence,
  values: Readonly<Record<string, number | string>>,
): void {
  const where = formatAddress(peer)
  const { other, recovered, sibling, neighboursRefuse } = silence
  const same = 'compare method and psk (or password, or keys): they must be the same at both ends'
  const log = 'check the log of the peer for "failed authentication", which it reports if our datagrams arrive'
  if (recovered) {
    const text = `${where} did not answer for several seconds and does now: the path is very lossy or was interrupted`
    report.add(finding, 'failure', text, { values: { ...values, cause: 'interrupted' }, remedies: ['test again'] })
  } else if (other !== undefined && other.cipher !== own) {
    const how = other.cipher === PLAIN ? 'without encryption' : `to ${other.cipher.name}`
    const text = `${where} answers ${how}, but method is ${config.method ?? 'not set'} in this configuration`
    const cause = { ...values, cause: 'other method', peer_method: other.cipher.name }
    report.add(finding, 'failure', text, { values: cause, remedies: ['set the same method and key at both ends'] })
  } else if (other !== undefined) {
    const answer = formatAddress(other.from)
    report.add(finding, 'failure', `the answer comes from ${answer} instead of ${where}`, {
      values: { ...values, cause: 'other address', answer },
      remedies: [
        `set ${key} to ${answer}`,
        'or bind the server to one address with kcp_bind: with a wildcard its system chooses the source address',
      ],
    })
  } else if (sibling !== undefined) {
    reportSibling(report, finding, key, peer, sibling, values)
  } else if (Number(values['unauthenticated']) > 0) {
    const text = `${values['unauthenticated']} datagrams from ${where} failed authentication: key or method differ`
    report.add(finding, 'failure', text, { values: { ...values, cause: 'key mismatch' }, remedies: [same, log] })
  } else if (neighboursRefuse) {
    const text =
      `${where} does not answer, while closed ports of the same host refuse: a program listens but drops our datagrams. ` +
      'Most likely key or method differ; otherwise it is another program, or a firewall drops only this port'
    const cause = { ...values, cause: 'silent listener' }
    report.add(finding, 'failure', text, { values: cause, remedies: [same, log, `check the port of ${key}`] })
  } else {
    const text =
      `no answer from ${where}. Possible causes: wrong key or method, wrong address, host down, firewall. ` +
      'They cannot be distinguished from here: a server drops datagrams that it cannot open'
    const command = `tcpdump -n udp port ${peer.port}`
    report.add(finding, 'failure', text, {
      values: { ...values, cause: 'silence' },
      remedies: [
        `run on the peer: ${command}. If our datagrams arrive, ${same}; ${log}`,
        `if they do not arrive: check the address in ${key}, and allow UDP port ${peer.port} in all firewalls on the path`,
        'run kcptun-wasm doctor on the peer, with its configuration',
      ],
    })
  }
}

/** Rounds to two decimals. */
export const round = (ms: number): number => Math.round(ms * 100) / 100
