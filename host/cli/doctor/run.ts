/**
 * Runs all tests of `doctor` that apply to the mode, in order. A failure skips only the tests that depend on it.
 */

import { type Config, MODE_CLIENT, MODE_SERVER } from '../../config/config.ts'
import { isExpired } from '../../config/keys.ts'
import { MTU_DEFAULT } from '../../config/mtu.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { configWarnings } from '../../config/rules.ts'
import { checkStart } from '../../config/security.ts'
import { withKey } from '../../crypto/key.ts'
import { methods } from '../../crypto/methods.ts'
import { openAead, type RuntimeCrypto } from '../../crypto/open.ts'
import { messageOf } from '../../errors.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import { isUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import { checkAddresses, NO_ADDRESSES, resolveAddresses, resolveKey } from '../../transport/resolver.ts'
import {
  type ClockReading,
  Refusals,
  reportBuffers,
  reportCapabilities,
  reportClock,
  reportFiles,
} from './host-checks.ts'
import { measure } from './path.ts'
import { reportBind, reportListen, reportTargetHere } from './ports.ts'
import { Probe } from './probe.ts'
import { type Case, ephemeral, furtherAddresses, reach } from './reachability.ts'
import { meet } from './rendezvous-probe.ts'
import { Report } from './report.ts'
import { cipherOf, PLAIN } from './voice.ts'

const CHECK_NAMES = 'check the spelling and the DNS configuration (getent ahosts NAME)'

/** Arguments of `examine`. */
export interface Order {
  readonly runtime: Runtime
  readonly config: Config
  readonly crypto: RuntimeCrypto
  /** Duration of the ping train, s. */
  readonly seconds: number
  readonly progress: (text: string) => void
}

/**
 * Tests a configuration, the path to the peer and the local machine.
 * @throws ConfigError if the configuration would be rejected at startup
 */
export async function examine({ runtime, config, crypto, seconds, progress }: Order): Promise<Report> {
  const { os } = runtime
  const report = new Report()
  const clock = (): ClockReading => ({ wall: Date.now(), monotonic: runtime.clock.monotonic() })
  const before = clock()
  checkAddresses(config)
  const security = checkStart(config, methods)
  const aead = security && (await withKey(security, (key) => openAead(security.method, key, crypto)))
  const own = aead === undefined ? PLAIN : cipherOf(aead)
  reportConfig(report, config)
  try {
    await examinePath({ runtime, config, crypto, own, report, seconds, progress })
  } finally {
    own.wipe()
  }
  reportFiles(report, os, config)
  reportClock(report, before, clock())
  reportCapabilities(report, os, config)
  return report
}

/** Runs the tests of addresses, ports, peer and sockets. */
async function examinePath(order: Omit<Case, 'addresses' | 'refusals'>): Promise<void> {
  const { runtime, config, report, progress } = order
  const { addresses, failures } = await resolveAddresses(runtime, config, NO_ADDRESSES)
  const refusals = new Refusals()
  const examined: Case = { ...order, addresses, refusals }
  await reportNames(examined, failures)
  await reportListen(examined)
  // an obfuscator does not use a UDP port
  if ((config.mode & MODE_CLIENT) === 0 && config.obfs === undefined) await reportBind(examined)
  if ((config.mode & MODE_SERVER) !== 0) await reportTargetHere(examined)
  await reportPeer(examined)
  for (const server of config.servers.slice(1)) await reportOtherServer(order, server, refusals)
  progress('')

  await trySocket(examined)
  reportBuffers(report, runtime.os, config, refusals)
}

/** Tests the path to one of several servers. */
async function reportOtherServer(
  order: Omit<Case, 'addresses' | 'refusals'>,
  server: string,
  refusals: Refusals,
): Promise<void> {
  const config = { ...order.config, kcp_connect: server, servers: [] }
  const { addresses, failures } = await resolveAddresses(order.runtime, config, NO_ADDRESSES)
  const examined: Case = { ...order, config, addresses, refusals }
  await reportNames(examined, failures)
  await reportPeer(examined)
}

function reportConfig(report: Report, config: Config): void {
  const warnings = configWarnings(config)
  const { method, psk, keys } = config
  const valid = keys.find((key) => !isExpired(key))
  const source = valid !== undefined ? `key of ${valid.name}` : psk === undefined ? 'password' : 'psk'
  const crypto = method === undefined ? 'no method' : `${method}, ${source}`
  const text = [crypto, ...warnings].join('; ')
  const values = { method: method ?? null, mtu: config.kcp.mtu ?? MTU_DEFAULT }
  report.add('config', warnings.length > 0 ? 'note' : 'ok', text, { values })
}

async function reportNames({ runtime, config, addresses, report }: Case, failures: readonly Error[]): Promise<void> {
  for (const failure of failures) {
    report.add('names', 'failure', messageOf(failure), {
      remedies: [CHECK_NAMES],
    })
  }
  const found: string[] = []
  let target: SocketAddress | undefined
  const targetKey = config.udp_connect === undefined ? 'connect' : 'udp_connect'
  const targetText = config[targetKey]
  if (targetText !== undefined && !isUnix(targetText) && !isProxy(targetText)) {
    target = await resolveKey(runtime, targetKey, targetText, 'connect').catch((failure) => {
      report.add('names', 'failure', messageOf(failure), { remedies: [CHECK_NAMES] })
      return undefined
    })
  }
  for (const [key, address] of [
    [targetKey, target],
    ['kcp_connect', addresses.peer],
    ['rendezvous_server', addresses.rendezvous],
  ] as const) {
    if (address === undefined) continue
    const others = await furtherAddresses(runtime, config[key], key, address)
    const more = others.length === 0 ? '' : ` (the first of ${others.length + 1} addresses)`
    found.push(`${key} is ${formatAddress(address)}${more}`)
  }
  if (found.length > 0) report.add('names', 'ok', found.join(', '))
}

async function reportPeer(examined: Case): Promise<void> {
  const { config, addresses, report } = examined
  if (config.obfs !== undefined) {
    report.add('peer', 'note', 'not tested: obfs uses raw sockets, which this test does not support', {
      remedies: ['start the client and check /ready, or test without obfs at both ends'],
    })
    return
  }
  const { rendezvous, peer } = addresses
  const reached =
    rendezvous !== undefined
      ? await meet(examined, rendezvous)
      : peer !== undefined
        ? await reach(examined, 'peer', 'kcp_connect', peer)
        : undefined
  if (reached === undefined) return
  await measure(examined, reached)
  // the end of the last session may still be queued
  await new Promise((resolve) => setTimeout(resolve, 20))
  reached.probe.close()
}

/** Opens a socket with the configured options to record which of them the system refuses. */
async function trySocket(examined: Case): Promise<void> {
  const { addresses, config, runtime, refusals } = examined
  const remote = addresses.peer ?? addresses.rendezvous ?? addresses.bind
  if (remote === undefined || refusals.texts.length > 0) return
  try {
    const probe = await Probe.open(runtime, config, ephemeral(examined, remote), [])
    probe.close()
  } catch {
    // reported by another finding
  }
}
