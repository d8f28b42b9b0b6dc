/** The sockets that workers share: the first process opens them, because that may require privileges. */
import { type Config, MODE_CLIENT } from '../config/config.ts'
import { socketOptionsOf } from '../config/socket-options.ts'
import { isTemporary, messageOf, StartError, step } from '../errors.ts'
import { AF_INET, AF_INET6, AF_UNIX, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM } from '../linux/libc.ts'
import { bindWithOptions } from '../linux/socket-options.ts'
import type { Syscalls } from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import { isUnix, parseMode, parseUnix, unixText } from '../net/unix-path.ts'
import type { Runtime } from '../runtime.ts'
import { resolveAll } from '../transport/resolver.ts'

export interface SharedSockets {
  /** None for a Unix socket. */
  readonly local: readonly SocketAddress[]
  /** The text of these addresses, for people. */
  readonly shown: readonly string[]
  /** For each worker one socket on each address. */
  readonly sockets: readonly (readonly number[])[]
  /** Removes the file of a Unix socket. */
  release?(): void
}

/** Listen backlog of a Unix socket: Linux's default limit (net.core.somaxconn). */
const BACKLOG = 4096

/** Opens the Unix socket at `listen`: all workers accept at one. */
async function openUnix(
  { unix }: Runtime,
  { listen = '', listen_mode, workers }: Config,
  syscalls: Syscalls,
): Promise<SharedSockets> {
  if (unix === undefined) throw new StartError('listen: this system has no Unix sockets')
  const path = parseUnix('listen', listen)
  const claimed = await step(`listen: cannot listen on ${unixText(path)}`, () =>
    unix.claim(path, parseMode('listen_mode', listen_mode), (where) => {
      const socket = syscalls.socket(AF_UNIX, SOCK_STREAM)
      try {
        syscalls.bindUnix(socket, where)
        // until a worker listens, another instance would take its file for one that nobody uses
        syscalls.listen(socket, BACKLOG)
      } catch (error) {
        syscalls.close(socket)
        throw error
      }
      return socket
    }),
  )
  const others = Array.from({ length: workers - 1 }, () => syscalls.duplicate(claimed.bound))
  const sockets = [claimed.bound, ...others].map((socket) => [socket])
  return { local: [], shown: [unixText(path)], sockets, release: () => claimed.release() }
}

/** Binds without SO_REUSEPORT first: otherwise a second instance of this program would silently share the peers. */
function checkFree(syscalls: Syscalls, kind: 'tcp' | 'udp', address: SocketAddress): void {
  const socket = syscalls.socket(address.family === 4 ? AF_INET : AF_INET6, kind === 'udp' ? SOCK_DGRAM : SOCK_STREAM)
  try {
    if (kind === 'tcp') syscalls.setOption(socket, SO_REUSEADDR, 1)
    syscalls.bind(socket, address, formatAddress(address))
  } finally {
    syscalls.close(socket)
  }
}

/**
 * Opens a socket for each worker on every address of `listen`, `udp_listen` or `kcp_bind` that the machine has.
 * @throws StartError
 */
export async function openSockets(
  runtime: Runtime,
  config: Config,
  log: Log,
  syscalls: Syscalls,
): Promise<SharedSockets> {
  const client = (config.mode & MODE_CLIENT) !== 0
  if (client && isUnix(config.listen ?? '')) return openUnix(runtime, config, syscalls)
  const isDatagrams = config.udp_listen !== undefined
  const key = !client ? 'kcp_bind' : isDatagrams ? 'udp_listen' : 'listen'
  const kind = client && !isDatagrams ? 'tcp' : 'udp'
  const text = config[key]
  const found = await resolveAll(runtime, key, text ?? '', 'bind')
  // the options of the tunnel are not those of the applications' port
  const tunnel = client ? undefined : config
  const options = socketOptionsOf(kind, { ...config[kind], reuseport: true }, tunnel, log)
  const local: SocketAddress[] = []
  const sockets: number[][] = Array.from({ length: config.workers }, () => [])
  const failures: string[] = []
  for (const address of found) {
    const wanted = { ...address, port: address.port || (local[0]?.port ?? 0) }
    await step(`${key}: cannot open ${formatAddress(wanted)}`, async () => {
      if (!config[kind].reuseport) checkFree(syscalls, kind, wanted)
      let bound = wanted
      for (const own of sockets) {
        const socket = bindWithOptions(syscalls, kind, bound, options)
        own.push(socket)
        bound = { ...wanted, port: syscalls.port(socket) }
      }
      local.push(bound)
    }).catch((error) => {
      for (const own of sockets) while (own.length > local.length) syscalls.close(own.pop() ?? -1)
      if (!isTemporary(error)) {
        for (const own of sockets) for (const socket of own.splice(0)) syscalls.close(socket)
        throw error
      }
      failures.push(messageOf(error))
    })
  }
  if (local.length === 0) throw new StartError(failures[0] ?? `${key}: no address`, true)
  // a name may have addresses that this machine does not use
  for (const failure of failures) log.warning(failure)
  return { local, shown: local.map(formatAddress), sockets }
}
