/** Determines which changes a reload applies. */

import { StartError } from '../errors.ts'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'

/** Keys that are only read at startup. */
const FIXED_KEYS = ['http_listen', 'method', 'psk', 'password', 'obfs', 'user', 'native', 'workers'] as const
/** Fixed as long as they are the only keys: as one of `keys` each of them may come and go. */
const ONE_KEY: readonly string[] = ['psk', 'password']
/** Keys of the socket that several workers share. */
const SERVER_SOCKET = ['kcp_bind', 'netdev', 'fwmark', 'dscp'] as const
const CLIENT_SOCKET = ['listen', 'listen_mode', 'udp_listen'] as const

/**
 * Returns a fresh configuration with the old values of fixed keys, and the keys whose changes were discarded.
 * @throws StartError if the change cannot be applied
 */
export function keepFixed(old: Config, fresh: Config): { readonly config: Config; readonly kept: readonly string[] } {
  if (((old.udp_listen ?? old.udp_connect) === undefined) !== ((fresh.udp_listen ?? fresh.udp_connect) === undefined))
    throw new StartError('a change between TCP and UDP (listen, connect, udp_listen, udp_connect) needs a restart')
  // a rendezvous server knows its peers by one key
  const isDirect = (old.mode & MODE_RENDEZVOUS) === 0 && (old.mode & (MODE_SERVER | MODE_CLIENT)) !== 0
  const hasKeys = isDirect && old.keys.length + fresh.keys.length > 0
  const kept: string[] = FIXED_KEYS.filter((key) => old[key] !== fresh[key] && !(hasKeys && ONE_KEY.includes(key)))
  if (!isDirect && JSON.stringify(old.keys) !== JSON.stringify(fresh.keys)) kept.push('keys')
  if (old.tcp.reuseport !== fresh.tcp.reuseport) kept.push('tcp.reuseport')
  const { http_listen, method, obfs, user, native, workers } = old
  const { psk, password } = hasKeys ? fresh : old
  const keys = isDirect ? fresh.keys : old.keys
  // with several workers the first process opens the socket, at startup only
  const isServer = (old.mode & MODE_SERVER) !== 0
  const shared = workers === 1 ? [] : isServer ? SERVER_SOCKET : CLIENT_SOCKET
  for (const key of shared) if (old[key] !== fresh[key]) kept.push(key)
  const stays = Object.fromEntries(shared.map((key) => [key, old[key]]))
  const isUdpShared = workers > 1 && isServer
  if (isUdpShared && JSON.stringify(old.udp) !== JSON.stringify(fresh.udp)) kept.push('udp')
  const udp = isUdpShared ? old.udp : fresh.udp
  // a group of servers is made at the start
  const isGroupNew = old.servers.length === 0 && fresh.servers.length > 1
  if (isGroupNew) kept.push('kcp_connect')
  const peers = isGroupNew ? { kcp_connect: old.kcp_connect, servers: old.servers } : {}
  const tcp = { ...fresh.tcp, reuseport: old.tcp.reuseport }
  return {
    config: {
      ...fresh,
      http_listen,
      method,
      psk,
      password,
      keys,
      obfs,
      user,
      native,
      workers,
      tcp,
      ...stays,
      ...peers,
      udp,
    },
    kept,
  }
}
