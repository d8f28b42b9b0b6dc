/** Determines which changes a reload applies. */

import { type Config, MODE_SERVER } from './config.ts'

/** Keys that are only read at startup. */
const FIXED_KEYS = ['listen', 'http_listen', 'method', 'psk', 'password', 'obfs', 'user', 'native', 'workers'] as const

/** Returns a fresh configuration with the old values of fixed keys, and the keys whose changes were discarded. */
export function keepFixed(old: Config, fresh: Config): { readonly config: Config; readonly kept: readonly string[] } {
  const kept: string[] = FIXED_KEYS.filter((key) => old[key] !== fresh[key])
  if (old.tcp.reuseport !== fresh.tcp.reuseport) kept.push('tcp.reuseport')
  const { listen, http_listen, method, psk, password, obfs, user, native, workers } = old
  // with several workers the first process opens the socket, at startup only
  const shared = workers > 1 && (old.mode & MODE_SERVER) !== 0
  const stays = shared
    ? { kcp_bind: old.kcp_bind, netdev: old.netdev, fwmark: old.fwmark, dscp: old.dscp, udp: old.udp }
    : {}
  if (shared) {
    for (const key of ['kcp_bind', 'netdev', 'fwmark', 'dscp'] as const) if (old[key] !== fresh[key]) kept.push(key)
    if (JSON.stringify(old.udp) !== JSON.stringify(fresh.udp)) kept.push('udp')
  }
  const tcp = { ...fresh.tcp, reuseport: old.tcp.reuseport }
  return {
    config: { ...fresh, listen, http_listen, method, psk, password, obfs, user, native, workers, tcp, ...stays },
    kept,
  }
}
