/**
 * The firewall rule that dpi/tcp requires on both sides (protocol.md 9.4): its connections do not exist in the kernels,
 * which would answer their packets with RST. The rule drops the packets before TCP, but after the capture socket.
 */

import { type Config, MODE_SERVER } from '../../config/config.ts'
import type { SocketAddress } from '../../net/address.ts'
import type { Runtime } from '../../runtime.ts'
import { isWildcard, resolveAll, resolveKey } from '../resolver.ts'

/** The packets to drop: on a server those sent to it, on a client those from its server. */
export interface FirewallTarget {
  readonly side: 'server' | 'client'
  /** Server: its bind address, possibly the wildcard. Client: the server's address. */
  readonly address: SocketAddress
}

/** The match of the nft rule, such as `ip saddr 192.0.2.1 tcp sport 443`. */
function nftMatch({ side, address }: FirewallTarget): string {
  const family = address.family === 4 ? 'ip' : 'ip6'
  const port = `tcp ${side === 'server' ? 'dport' : 'sport'} ${address.port}`
  if (isWildcard(address)) return `meta nfproto ${address.family === 4 ? 'ipv4' : 'ipv6'} ${port}`
  return `${family} ${side === 'server' ? 'daddr' : 'saddr'} ${address.address} ${port}`
}

/** Shell commands for nftables, to be run as root. */
export function nftCommands(target: FirewallTarget): readonly string[] {
  return [
    'nft add table inet kcptun',
    "nft 'add chain inet kcptun input { type filter hook input priority filter; policy accept; }'",
    `nft add rule inet kcptun input ${nftMatch(target)} drop`,
  ]
}

/** Shell command for iptables or ip6tables. */
export function iptablesCommand({ side, address }: FirewallTarget): string {
  const program = address.family === 4 ? 'iptables' : 'ip6tables'
  const [host, port] = side === 'server' ? ['-d', '--dport'] : ['-s', '--sport']
  const match = isWildcard(address) ? '' : ` ${host} ${address.address}`
  return `${program} -I INPUT -p tcp${match} ${port} ${address.port} -j DROP`
}

/** Shell commands for each target, of one side. */
export function firewallText(targets: readonly FirewallTarget[]): string {
  const nft = new Set(targets.flatMap(nftCommands))
  return (
    `# dpi/tcp, ${targets[0]?.side}: keeps the kernel from answering the tunnel's packets with RST\n` +
    `# with nftables\n${[...nft].join('\n')}\n# or with iptables\n${targets.map(iptablesCommand).join('\n')}\n`
  )
}

/** Log text at the start of a dpi/tcp endpoint. */
export function firewallNotice(target: FirewallTarget): string {
  return (
    'obfs: dpi/tcp requires a firewall rule, or the kernel answers its packets with RST: ' +
    `${iptablesCommand(target)} (--obfs-firewall also prints it for nft)`
  )
}

/**
 * The output of --obfs-firewall for a configuration that passed checkStart.
 * @throws ConfigError or StartError for an address that is invalid or cannot be resolved
 */
export async function firewallOf(runtime: Runtime, config: Config): Promise<string> {
  if (config.obfs !== 'dpi/tcp') return `# no rule is required: obfs is ${config.obfs ?? 'not set'}, not dpi/tcp\n`
  if ((config.mode & MODE_SERVER) !== 0) {
    const address = await resolveKey(runtime, 'kcp_bind', config.kcp_bind ?? '', 'bind')
    return firewallText([{ side: 'server', address }])
  }
  // each of them is dialled if another one does not answer
  const servers = config.servers.length > 0 ? config.servers : [config.kcp_connect ?? '']
  const found = await Promise.all(servers.map((server) => resolveAll(runtime, 'kcp_connect', server, 'connect')))
  return firewallText(found.flat().map((address) => ({ side: 'client', address })))
}
