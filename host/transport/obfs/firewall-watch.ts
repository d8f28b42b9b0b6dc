/**
 * Notices while a dpi/tcp tunnel runs that its firewall rule is gone, as after `nft flush ruleset`: the kernel then
 * answers the tunnel's packets with RST. Own RSTs are counted by the kernel (RFC 4022, tcpOutRsts), those of peers by
 * the engine. Compared are the packets of a short time with much traffic, in which RSTs for other reasons are few.
 */

import type { Driver } from '../../driver/driver.ts'
import type { Log } from '../../log/log.ts'
import type { Clock, OperatingSystem } from '../../runtime.ts'
import { type FirewallTarget, iptablesCommand } from './firewall.ts'

/** Longest time of a comparison, ms, and number of packets that it needs. */
const WINDOW_MS = 4000
const ENOUGH = 32
/** Time between two comparisons, ms. */
const PAUSE_MS = 10_000
/** Least number of RSTs of peers in a comparison. */
const PEER_RESETS = 4

const SNMP = '/proc/net/snmp'

/** Value of `Tcp: OutRsts` in the text of /proc/net/snmp; undefined if it is not there. */
export function sentResets(snmp: string): number | undefined {
  const [names, values] = snmp.split('\n').filter((line) => line.startsWith('Tcp: '))
  const at = names?.split(' ').indexOf('OutRsts') ?? -1
  const value = Number(values?.split(' ')[at])
  return at > 0 && Number.isFinite(value) ? value : undefined
}

export class FirewallWatch {
  readonly #os: OperatingSystem
  readonly #driver: Driver
  readonly #log: Log
  readonly #clock: Clock
  readonly #target: () => FirewallTarget | undefined
  /** Start of the comparison in progress, and the counters then. */
  #since = Number.NEGATIVE_INFINITY
  #nextAt = Number.NEGATIVE_INFINITY
  #packets = 0
  #own = 0
  #peers = 0
  #isOwnGone = false
  #isPeersGone = false

  /** @param target the packets that the rule drops */
  constructor(os: OperatingSystem, driver: Driver, log: Log, target: () => FirewallTarget | undefined) {
    this.#os = os
    this.#driver = driver
    this.#log = log
    this.#clock = driver.runtime.clock
    this.#target = target
  }

  /** `count` packets were captured. */
  onPackets(count: number): void {
    const now = this.#clock.monotonic()
    if (now - this.#since > WINDOW_MS) {
      if (now >= this.#nextAt) this.#begin(now)
      return
    }
    this.#packets += count
    if (this.#packets < ENOUGH) return
    this.#since = Number.NEGATIVE_INFINITY
    this.#compare()
  }

  #begin(now: number): void {
    this.#nextAt = now + PAUSE_MS
    const own = this.#readOwn()
    if (own === undefined) return
    this.#since = now
    this.#packets = 0
    this.#own = own
    this.#peers = this.#readPeers()
  }

  #compare(): void {
    const peers = this.#readPeers() - this.#peers
    const own = (this.#readOwn() ?? this.#own) - this.#own
    // an RST is not answered
    this.#report(own >= (this.#packets - peers) * 0.8 && own > 0, peers >= PEER_RESETS)
  }

  #report(isOwnGone: boolean, isPeersGone: boolean): void {
    const target = this.#target()
    if (isOwnGone !== this.#isOwnGone && target !== undefined) {
      this.#isOwnGone = isOwnGone
      if (isOwnGone) {
        const why = "the kernel answers the tunnel's packets with RST, the firewall rule of dpi/tcp is gone"
        this.#log.warning(`obfs: ${why}: ${iptablesCommand(target)} (--obfs-firewall also prints it for nft)`)
      } else {
        this.#log.notice('obfs: the firewall rule is in force again')
      }
    }
    if (isPeersGone === this.#isPeersGone) return
    this.#isPeersGone = isPeersGone
    if (!isPeersGone) this.#log.notice('obfs: no more RST packets arrive')
    else {
      const what = "the peer's kernel answers the tunnel's packets with RST"
      this.#log.warning(`obfs: ${what}: the firewall rule there is gone, or a device on the path resets connections`)
    }
  }

  #readPeers(): number {
    return Number(this.#driver.read((core) => core.counter('obfs_resets'), 0n))
  }

  #readOwn(): number | undefined {
    try {
      return sentResets(this.#os.readText(SNMP))
    } catch {
      return undefined
    }
  }
}
