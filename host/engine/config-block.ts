/**
 * Builds the engine's config block from a configuration (docs/abi.md, "Config block"). The schema checks ranges before,
 * the engine after.
 */

import { type Config, type KcpConfig, MODE_SERVER, type RateConfig } from '../config/config.ts'
import { kcpMtu, MTU_TOP } from '../config/mtu.ts'
import type { Aead } from '../crypto/aead.ts'
import { type CoreConfig, KCP_FIELDS, type KcpField, NonceStrategy, type RateField } from './core.ts'

/** Minimum number of nonces kept by the replay filter (protocol.md 3.6). */
const REPLAY_CAPACITY_SERVER = 1 << 20
const REPLAY_CAPACITY_CLIENT = 1 << 14
/** Maximum number of sessions without an answer or a DIAL, so that a flood leaves room for others. */
const MAX_HALF_OPEN = 16384
const MIB_BYTES = 1 << 20
const KBIT_PER_MBIT = 1000

const RATE_FIELDS = [
  ['up', 'rateUp'],
  ['down', 'rateDown'],
  ['session_up', 'sessionRateUp'],
  ['session_down', 'sessionRateDown'],
] as const

const NONCE_STRATEGIES = {
  none: NonceStrategy.NONE,
  random: NonceStrategy.RANDOM,
  counter: NonceStrategy.COUNTER,
} as const

/** KCP parameters set by the user. */
function kcpFields(kcp: KcpConfig): Partial<Record<KcpField, number>> {
  const fields: Partial<Record<KcpField, number>> = {}
  for (const name of KCP_FIELDS) {
    const value = kcp[name]
    if (value !== undefined) fields[name] = value
  }
  return fields
}

/** Rate limits in the unit of the engine; unlimited ones are unset. */
function rateFields(rate: RateConfig): Partial<Record<RateField, number>> {
  const fields: Partial<Record<RateField, number>> = {}
  for (const [key, field] of RATE_FIELDS) if (rate[key] > 0) fields[field] = Math.round(rate[key] * KBIT_PER_MBIT)
  return fields
}

/** Builds the config block. `family` is the IP family on the network (protocol.md 4). */
export function coreConfig(config: Config, aead: Aead | undefined, family: 4 | 6): CoreConfig {
  const { kcp } = config
  const server = (config.mode & MODE_SERVER) !== 0
  return {
    ...kcpFields(kcp),
    ...rateFields(config.rate),
    mode: config.mode,
    tagBytes: aead?.tagBytes ?? 0,
    nonceBytes: aead?.nonceBytes ?? 0,
    nonceStrategy: NONCE_STRATEGIES[aead?.nonceStrategy ?? 'none'],
    kcpMtu: kcpMtu(kcp.mtu, family, config.method, config.obfs),
    timeout: config.timeout,
    linger: config.linger,
    keepalive: config.keepalive,
    timeWait: config.time_wait,
    memoryCeiling: config.memory * MIB_BYTES,
    maxSessions: config.max_sessions,
    replayCapacity: aead === undefined ? 0 : server ? REPLAY_CAPACITY_SERVER : REPLAY_CAPACITY_CLIENT,
    maxHalfOpen: Math.min(MAX_HALF_OPEN, config.max_sessions),
    confirm: config.replay === 'strict' ? 1 : 0,
    sendOnce: kcp.redundancy ? 0 : 1,
    // the packets of an obfuscator are never fragmented, so that what is too long would remain lost
    searchMtu:
      kcp.mtu === undefined && config.obfs === undefined ? kcpMtu(MTU_TOP, family, config.method, undefined) : 0,
  }
}
