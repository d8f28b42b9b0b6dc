/** Two hosts for obfuscated tunnels, and the firewall rules printed by the program. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { type Family, type Host, World } from '../../testkit/netns.ts'
import { type Config, commandOf, type Program, writeConfig } from '../../testkit/process.ts'
import { type MeetingOptions, titleOf } from './meeting.ts'

export const OBFUSCATORS = ['dpi/tcp-wnd', 'dpi/tcp'] as const
export type Obfuscator = (typeof OBFUSCATORS)[number]

/** Port of the server (meeting.ts). */
export const OBFS_PORT = 5200

export interface ObfsWorld {
  readonly world: World
  readonly serverHost: Host
  readonly clientHost: Host
}

/** @param offload whether checksums of the kernels' own packets are offloaded, as is usual on virtual links */
export function obfsWorld(offload = true): ObfsWorld {
  const world = new World()
  const serverHost = world.addPublicHost('obfs-s', 60)
  const clientHost = world.addPublicHost('obfs-c', 61)
  if (!offload) for (const host of [serverHost, clientHost]) setOffload(host, false)
  return { world, serverHost, clientHost }
}

function setOffload(host: Host, on: boolean): void {
  host.namespace.run(['ethtool', '-K', 'eth0', 'tx', on ? 'on' : 'off'])
}

/** The reason why `ethtool` cannot be used; undefined if it can. */
export const ethtoolProblem: string | undefined =
  spawnSync('ethtool', ['--version']).status === 0 ? undefined : 'there is no ethtool program'

export function meetingOf(
  { world, serverHost, clientHost }: ObfsWorld,
  obfs: Obfuscator,
  family: Family,
  server: Program,
  client: Program,
  more: Partial<MeetingOptions> = {},
): MeetingOptions & { readonly title: string } {
  const programs = { server, client }
  return {
    title: `${obfs}, ${titleOf({ programs, family })}`,
    programs,
    family,
    net: world.net,
    serverHost,
    clientHost,
    ...more,
    config: { obfs, ...more.config },
  }
}

/** The output of --obfs-firewall for a configuration. */
export function firewallText(program: Program, config: Config): string {
  const file = writeConfig(config)
  const [command, ...leading] = commandOf(program)
  const { stdout, stderr, status } = spawnSync(command, [...leading, '--obfs-firewall', '-c', file.path], {
    encoding: 'utf8',
  })
  file.remove()
  if (status !== 0) throw new Error(`--obfs-firewall: status ${status}: ${stdout}${stderr}`)
  return stdout
}

/** Installs the nftables rules printed by --obfs-firewall, on both hosts, for both families. */
export function setFirewalls({ serverHost, clientHost }: ObfsWorld, program: Program): void {
  const crypto: Config = { method: 'aes256gcm', password: 'x', obfs: 'dpi/tcp' }
  for (const family of [4, 6] as const) {
    const address = serverHost.at(family, OBFS_PORT)
    for (const [host, config] of [
      [serverHost, { kcp_bind: address, connect: '127.0.0.1:1' }],
      [clientHost, { kcp_connect: address, listen: '127.0.0.1:0' }],
    ] as const) {
      const lines = firewallText(program, { ...crypto, ...config }).split('\n')
      host.namespace.run(['sh', '-e'], lines.filter((line) => line.startsWith('nft ')).join('\n'))
    }
  }
}

/** Gives a host its own /etc/hosts (ip-netns(8)) while the body runs; programs started there use it. */
export async function withHostsFile(
  host: Host,
  body: (setAddress: (name: string, ...addresses: string[]) => void) => Promise<void>,
): Promise<void> {
  const directory = `/etc/netns/${host.namespace.name}`
  mkdirSync(directory, { recursive: true })
  try {
    await body((name, ...addresses) => {
      const lines = ['127.0.0.1 localhost', ...addresses.map((address) => `${address} ${name}`)]
      writeFileSync(`${directory}/hosts`, `${lines.join('\n')}\n`)
    })
  } finally {
    rmSync(directory, { recursive: true, force: true })
    // other processes may have files there
    if (readdirSync('/etc/netns').length === 0) rmdirSync('/etc/netns')
  }
}
