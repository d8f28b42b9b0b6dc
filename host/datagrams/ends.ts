/** The application's side of an endpoint that forwards datagrams. Loaded by those alone. */

import type { Config } from '../config/config.ts'
import type { EntranceHost } from './entrance.ts'
import { UdpEntrance } from './entrance.ts'
import { UdpExit } from './exit.ts'
import { FlowTable, type FlowTableOptions } from './flow-table.ts'

export type { UdpEntrance } from './entrance.ts'
export type { UdpExit } from './exit.ts'

type Host = Omit<EntranceHost, 'table' | 'path'> & Pick<FlowTableOptions, 'counters'>

/**
 * Opens the UDP port of a client, or looks up the target of a server.
 * @param current the configuration in force
 * @throws ConfigError, StartError
 */
export async function openDatagrams(
  host: Host,
  current: () => Config,
): Promise<{ readonly entrance?: UdpEntrance; readonly exit?: UdpExit }> {
  const { udp_listen, udp_connect, udp } = current()
  const { clock } = host.runtime
  const table = new FlowTable({ ...host, clock, timeout: () => current().udp_timeout })
  if (udp_connect !== undefined) {
    const exit = new UdpExit({ ...host, table }, udp_connect)
    await exit.open()
    return { exit }
  }
  const entrance = new UdpEntrance({ ...host, table, path: udp.path }, udp_listen ?? '')
  await entrance.open()
  return { entrance }
}
