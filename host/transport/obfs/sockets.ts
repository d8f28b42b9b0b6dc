/**
 * Opens the sockets of both sides of an obfuscated transport (protocol.md 9.1): the capture socket and the raw socket,
 * combined into the driver's socket. Also selects the capture interface.
 */

import type { Config } from '../../config/config.ts'
import { UDP_RCVBUF_BYTES } from '../../config/socket-options.ts'
import type { Driver } from '../../driver/driver.ts'
import { ObfsKind } from '../../engine/core.ts'
import { messageOf, quote, StartError, systemError } from '../../errors.ts'
import { PacketSocket } from '../../linux/packet-socket.ts'
import { RawSocket } from '../../linux/raw-socket.ts'
import { applyMark } from '../../linux/socket-options.ts'
import { type Syscalls, syscallsOf } from '../../linux/syscalls.ts'
import { LOG_WARNING, type Log } from '../../log/log.ts'
import type { SocketAddress } from '../../net/address.ts'
import type { OperatingSystem, Runtime } from '../../runtime.ts'
import { ObfsSocket } from './socket.ts'

/** For packets that netfilter drops on their way out. */
const REFUSED_TEXT =
  "obfs: a firewall of this machine refuses the tunnel's packets (EPERM); a rule that drops packets in conntrack state " +
  'invalid does: put an exception for the port before it'

/**
 * Checks that the operating system provides the calls required by an obfuscator.
 * @throws StartError
 */
export function obfsSystem(runtime: Runtime, config: Config): OperatingSystem {
  const { os } = runtime
  try {
    if (os === undefined) throw new Error('not available here')
    syscallsOf(os)
    return os
  } catch (error) {
    throw new StartError(`obfs = ${quote(config.obfs ?? '')}: ${messageOf(error)}`)
  }
}

/**
 * Opens both sockets and adds them to the driver. They receive nothing before ObfsSocket.attach.
 * @param onPackets called for packets that were captured
 * @throws StartError naming the missing feature or privilege
 */
export async function openSockets(
  os: OperatingSystem,
  config: Config,
  driver: Driver,
  family: 4 | 6,
  onPackets: (count: number) => void,
): Promise<ObfsSocket> {
  const { calls } = driver.core
  const { sndbuf, rcvbuf } = config.udp
  // the sockets outlive an engine: reopening them would require privileges
  const memory = {
    get buffer() {
      return driver.core.calls.memory.buffer
    },
  }
  let socket: ObfsSocket | undefined
  try {
    const opened = await driver.sockets.add(async (handlers) => {
      socket = new ObfsSocket({
        get core() {
          return driver.core
        },
        get dead() {
          return driver.dead
        },
        clock: driver.runtime.clock,
        kind: config.obfs === 'dpi/tcp' ? ObfsKind.TCP : ObfsKind.TCP_WND,
        handlers,
        now: () => driver.now(),
        caught: (error) => void driver.caught(error),
        openPacket: (onBatch) =>
          new PacketSocket(
            os,
            family,
            memory,
            calls.obfs_rx_ptr() >>> 0,
            calls.obfs_slots(),
            rcvbuf > 0 ? rcvbuf : UDP_RCVBUF_BYTES,
            (count) => {
              onBatch(count)
              onPackets(count)
            },
          ),
        openRaw: () =>
          new RawSocket(
            os,
            family,
            memory,
            sndbuf,
            (code) => {
              if (code === 'EPERM') driver.log.limited('obfs EPERM', LOG_WARNING, () => REFUSED_TEXT)
              handlers.onError(systemError(code, 'raw socket', 'sendmmsg'))
            },
            (syscalls, fd) => markSocket(syscalls, fd, config, driver.log),
          ),
      })
      return socket
    })
    driver.sockets.send(opened, undefined)
  } catch (error) {
    throw new StartError(`obfs = ${quote(config.obfs ?? '')}: ${messageOf(error)}`)
  }
  if (socket === undefined) throw new Error('the driver did not open a socket')
  return socket
}

/** Sets the configured mark. A refusal is logged. */
export function markSocket(syscalls: Syscalls, fd: number, { fwmark }: Config, log: Log): void {
  applyMark(syscalls, fd, fwmark, (why) =>
    log.limited('fwmark', LOG_WARNING, () => `config key fwmark = ${fwmark}: ${why}`),
  )
}

/**
 * Selects the capture interface: that of a link-local address, else `netdev`. An unknown `netdev` is only logged.
 * @returns the interface index, 0 = all
 */
export function captureInterface(
  os: OperatingSystem,
  config: Config,
  bind: SocketAddress | undefined,
  log: Log,
): number {
  if (bind !== undefined && bind.scope !== 0) return bind.scope
  const { netdev } = config
  if (netdev === undefined || netdev === '') return 0
  try {
    return syscallsOf(os).interfaceIndex(netdev)
  } catch (error) {
    log.warning(`config key netdev = ${quote(netdev)}: ${messageOf(error)}`)
    return 0
  }
}
