/**
 * The firewall rule by which a server serves a range of ports: what arrives at any of them is redirected to the one port
 * that it has bound. The kernel remembers each flow, so that answers leave from the port that was asked.
 */

import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from '../config/config.ts'
import { rangeOf } from '../config/rules.ts'
import { ConfigError, quote } from '../errors.ts'
import { type PortRange, parseHostPort, type SocketAddress } from '../net/address.ts'
import type { Runtime } from '../runtime.ts'
import { isWildcard, resolveAll } from './resolver.ts'

const OPTION = '--hop-firewall'

/**
 * @param address what the server has bound; a wildcard stands for all addresses
 * @returns text with the shell commands, to be run as root at the server
 */
export function hopRules(address: SocketAddress, { first, last }: PortRange): string {
  const isIpv4 = address.family === 4
  const isAny = isWildcard(address)
  const match = isAny ? (isIpv4 ? 'meta nfproto ipv4 ' : '') : `${isIpv4 ? 'ip' : 'ip6'} daddr ${address.address} `
  const programs = isIpv4 ? ['iptables'] : isAny ? ['iptables', 'ip6tables'] : ['ip6tables']
  const host = isAny ? '' : ` -d ${address.address}`
  const { port } = address
  return (
    `# UDP ports ${first} to ${last} of this server lead to port ${port}\n` +
    '# with nftables\n' +
    'nft add table inet kcptun-hop\n' +
    "nft 'add chain inet kcptun-hop prerouting { type nat hook prerouting priority dstnat; policy accept; }'\n" +
    `nft add rule inet kcptun-hop prerouting ${match}udp dport ${first}-${last} redirect to :${port}\n` +
    '# or with iptables\n' +
    programs
      .map(
        (name) =>
          `${name} -t nat -A PREROUTING -p udp${host} --dport ${first}:${last} -j REDIRECT --to-ports ${port}\n`,
      )
      .join('')
  )
}

function portsOf(text: string): PortRange {
  const { range } = parseHostPort('kcp_connect', `h:${text}`, 'connect')
  if (range === undefined) throw new ConfigError(OPTION, quote(text), 'must be a range of ports, as in 4000-4999')
  return range
}

const bindsOneOf = ({ first, last }: PortRange, { kcp_bind }: Config): boolean => {
  if (kcp_bind === undefined) return false
  const { port } = parseHostPort('kcp_bind', kcp_bind, 'bind')
  return port >= first && port <= last
}

/**
 * The output of --hop-firewall for a valid configuration: a server's, with the ports, or a client's, whose server is taken
 * to have bound the first port on all its addresses. Of several tunnels those with a range count, else those that bind
 * one of the ports, else the first one.
 * @param ports `first-last`
 * @throws ConfigError or StartError
 */
export async function hopFirewallOf(
  runtime: Runtime,
  tunnels: readonly Config[],
  ports: string | undefined,
): Promise<string> {
  const wanting = tunnels.filter(({ servers, kcp_connect }) =>
    [...servers, kcp_connect].some((server) => rangeOf('kcp_connect', server) !== undefined),
  )
  const texts: string[] = []
  const binding = ports === undefined ? [] : tunnels.filter((config) => bindsOneOf(portsOf(ports), config))
  for (const config of [wanting, binding, tunnels.slice(0, 1)].find(({ length }) => length > 0) ?? [])
    texts.push(await textOf(runtime, config, ports))
  return texts.join('')
}

async function textOf(runtime: Runtime, config: Config, ports: string | undefined): Promise<string> {
  const { mode, kcp_bind, kcp_connect, servers } = config
  if ((mode & MODE_SERVER) !== 0 && kcp_bind !== undefined && (mode & MODE_RENDEZVOUS) === 0) {
    if (rangeOf('kcp_bind', kcp_bind) !== undefined) return '# no rule is required: kcp_bind is a range of ports\n'
    if (ports === undefined)
      throw new ConfigError(OPTION, '', 'a server requires the ports that clients use, as in --hop-firewall=4000-4999')
    const found = await resolveAll(runtime, 'kcp_bind', kcp_bind, 'bind')
    return found.map((address) => hopRules(address, portsOf(ports))).join('')
  }
  const named = [...servers, kcp_connect].map((server) => rangeOf('kcp_connect', server)).find((range) => range)
  const range = ports === undefined ? named : portsOf(ports)
  if ((mode & MODE_CLIENT) === 0 || range === undefined)
    throw new ConfigError(OPTION, '', 'requires a server, or a client with a range of ports in kcp_connect')
  return hopRules({ family: 6, address: '::', port: range.first, scope: 0 }, range)
}
