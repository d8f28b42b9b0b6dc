/**
 * The plan of an episode: role, method, obfuscator, options, addresses. It is derived from the seed.
 */

import { AddressRecord, type CoreConfig, Mode, ObfsKind, UNSET } from '../../host/engine/core.ts'
import { address4, address6 } from '../../testkit/sim/address.ts'
import { Random } from '../../testkit/sim/random.ts'
import { sealingConfig } from '../../testkit/sim/sealing.ts'

/** Maximum sessions of an episode; the larger value, at which tables grow, is rare. */
const SESSIONS_MAX = 24
const SESSIONS_MANY = 90
/** Keys of peers. */
export const FUZZ_KEYS = 3
/** Largest memory ceiling in bytes; the larger one, with which queues reach the largest window, is rare. */
const CEILING_MAX = 3 << 20
const CEILING_LARGE = 40 << 20

export type Role = 'server' | 'client' | 'neither'

export interface Plan {
  readonly name: string
  readonly role: Role
  readonly obfs: number
  readonly random: Random
  readonly config: CoreConfig
  readonly clock: number
  readonly addresses: readonly Uint8Array[]
  /** Largest memory ceiling, bytes. */
  readonly ceiling: number
  /** Datagrams come from new ports, so that the engine's address records grow to their limit. */
  readonly hasStrangers: boolean
  /** Few sessions, whose queues reach the largest window. */
  readonly isLarge: boolean
  /** Percentage of reads that TCP performs. */
  readonly reads: number
  /** Percentage of session datagrams full of small out-of-order segments. */
  readonly floods: number
  /** Percentage of the engine's segments that are lost. */
  readonly loss: number
  /** Local address of the obfuscator's packets. */
  readonly local: Uint8Array
}

/** Some peers have keys of their own, and one may be at the address of another. */
function spreadKeys(addresses: Uint8Array[]): void {
  for (const record of addresses) record[AddressRecord.key] = (record[AddressRecord.port] ?? 0) % FUZZ_KEYS
  const [first] = addresses
  if (first === undefined) return
  const other = first.slice()
  other[AddressRecord.key] = ((first[AddressRecord.key] ?? 0) + 1) % FUZZ_KEYS
  addresses.push(other)
}

function makeAddresses(random: Random, obfs: number): { addresses: Uint8Array[]; local: Uint8Array } {
  const isIpv6 = random.chance(0.4)
  const one = (host: number): Uint8Array => {
    const v6 = obfs === ObfsKind.NONE ? random.chance(0.4) : isIpv6
    return v6 ? address6(host, 1024 + random.below(60000)) : address4(host, 1024 + random.below(60000))
  }
  const addresses = [one(1), one(2), one(3), one(4), one(5)]
  if (random.chance(0.3)) {
    // link-local, with a scope id
    const record = address6(9, 4000, obfs === ObfsKind.NONE ? 3 : 0)
    record.set([0xfe, 0x80], 8)
    if (obfs === ObfsKind.NONE || isIpv6) addresses.push(record)
  }
  if (obfs === ObfsKind.NONE && random.chance(0.5)) spreadKeys(addresses)
  return { addresses, local: isIpv6 ? address6(77, 8080) : address4(77, 8080) }
}

/** KCP options within their ranges. */
export function randomOptions(random: Random, sessions: number): Partial<CoreConfig> {
  return {
    kcpMtu: random.pick(1372, 1332, 1332, 1280, 576, 100 + random.below(1300), 64 + random.below(1437)),
    sndwnd: random.pick(UNSET, UNSET, 256, 32, 1, 65536),
    rcvwnd: random.pick(UNSET, UNSET, 256, 1, 65536, 65536),
    nodelay: random.pick(UNSET, UNSET, 0, 1, 2),
    interval: random.pick(UNSET, UNSET, 1, 10, 100, 5000),
    resend: random.pick(UNSET, UNSET, 0, 2, 100),
    nc: random.pick(UNSET, UNSET, 0, 1),
    flush: random.pick(UNSET, UNSET, 0, 1, 2),
    timeout: random.pick(600, 600, 60, 10, 1),
    linger: random.pick(30, 5, 1),
    keepalive: random.pick(25, 5, 1, 0),
    timeWait: random.pick(120, 5, 1),
    memoryCeiling: random.pick(1 << 20, 2 << 20, 3 << 20, (1 << 20) + random.below(1 << 21)),
    maxSessions: random.pick(sessions, sessions, sessions, 1 + random.below(sessions)),
    maxHalfOpen: random.pick(0, 0, 0, 0, 2, 16),
    rateUp: random.pick(UNSET, 0, 0, 1, 1000, 100_000_000),
    rateDown: random.pick(UNSET, 0, 0, 1, 1000, 100_000_000),
    sessionRateUp: random.pick(UNSET, 0, 0, 1, 1000, 100_000_000),
    sessionRateDown: random.pick(UNSET, 0, 0, 1, 1000, 100_000_000),
  }
}

/** Makes the plan of an episode. */
export function makePlan(seed: number): Plan {
  const random = new Random(seed)
  const role: Role = random.pick('server', 'server', 'server', 'client', 'client', 'client', 'client', 'neither')
  const obfs = role === 'neither' || random.chance(0.75) ? ObfsKind.NONE : random.pick(ObfsKind.TCP_WND, ObfsKind.TCP)
  const sealing = random.pick('none', 'random', 'random', 'counter')
  const rendezvous = obfs === ObfsKind.NONE && random.chance(0.25) ? Mode.RENDEZVOUS : 0
  const modes = { server: Mode.SERVER, client: Mode.CLIENT, neither: 0 }
  const isLarge = random.chance(0.02)
  const sessions = random.chance(0.1) ? SESSIONS_MANY : SESSIONS_MAX
  const sealed = sealingConfig(obfs !== ObfsKind.NONE && sealing === 'none' ? 'random' : sealing)
  const config = {
    tagBytes: 0,
    nonceBytes: 0,
    nonceStrategy: 0,
    ...sealed,
    ...randomOptions(random, sessions),
    mode: modes[role] | rendezvous,
    maxSessions: sessions,
    ...(isLarge ? { memoryCeiling: CEILING_LARGE, kcpMtu: 64 + random.below(20), sndwnd: 65536, timeout: 600 } : {}),
    confirm: random.pick(0, 0, 1),
    sendOnce: random.pick(0, 0, 1),
    searchMtu: random.pick(0, 0, 1472, 64 + random.below(1437)),
    replayCapacity: sealed.tagBytes ? random.pick(0, 64, 4096) : 0,
  } as CoreConfig
  const clock = random.chance(0.5) ? random.u32() : (0 - random.below(8000 * 60)) >>> 0
  return {
    name: `${role}, ${sealing}${obfs === ObfsKind.NONE ? '' : obfs === ObfsKind.TCP ? ', dpi/tcp' : ', dpi/tcp-wnd'}`,
    role,
    obfs,
    random,
    config,
    clock,
    ceiling: isLarge ? CEILING_LARGE : CEILING_MAX,
    isLarge,
    hasStrangers: role === 'server' && obfs === ObfsKind.NONE && random.chance(0.1),
    reads: random.pick(100, 100, 100, 20, 0),
    floods: random.pick(0, 0, 0, 10, 70),
    loss: random.pick(0, 2, 10, 30, 100),
    ...makeAddresses(random, obfs),
  }
}
