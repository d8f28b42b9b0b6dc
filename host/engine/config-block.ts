/**
 * The engine's config block for a configuration (docs/abi.md, "Config block"). Ranges are checked by the schema before
 * and by the engine after.
 */

import { type Config, type KcpConfig, MODE_SERVER } from '../config/config.ts'
import { kcpMtu } from '../config/mtu.ts'
import type { Aead } from '../crypto/aead.ts'
import { type CoreConfig, KCP_FIELDS, type KcpField, NonceStrategy } from './core.ts'

/** Nonces the replay filter remembers at least (protocol.md 3.6). */
const REPLAY_CAPACITY_SERVER = 1 << 20
const REPLAY_CAPACITY_CLIENT = 1 << 14
/** Sessions that are not answered, or that sent no DIAL: a flood of them leaves room for the others. */
const MAX_HALF_OPEN = 16384
const MIB_BYTES = 1 << 20

const NONCE_STRATEGIES = {
  none: NonceStrategy.NONE,
  random: NonceStrategy.RANDOM,
  counter: NonceStrategy.COUNTER,
} as const

/** What the user set of KCP's parameters. */
function kcpFields(kcp: KcpConfig): Partial<Record<KcpField, number>> {
  const fields: Partial<Record<KcpField, number>> = {}
  for (const name of KCP_FIELDS) {
    const value = kcp[name]
    if (value !== undefined) fields[name] = value
  }
  return fields
}

/** The config block. `family` is that of the packets on the network (protocol.md 4). */
export function coreConfig(config: Config, aead: Aead | undefined, family: 4 | 6): CoreConfig {
  const { kcp } = config
  const server = (config.mode & MODE_SERVER) !== 0
  return {
    ...kcpFields(kcp),
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
  }
}
