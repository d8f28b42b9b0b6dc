/** TCP and portable UDP of Node. */
import { dgramUdp } from '../runtime-shared/dgram-udp.ts'
import { netTcp, type SocketCalls } from '../runtime-shared/net-tcp.ts'
import { netUnix } from '../runtime-shared/net-unix.ts'
import { syscalls } from './ffi.ts'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

const calls: SocketCalls = {
  syscalls,
  hasReusePort: major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12),
  isLooseDgram: 'deno' in process.versions,
  padsAbstract: true,
}

export const { dialTcp, listenTcp, adoptConnection, adoptListener } = netTcp(calls)
export const unix = netUnix(calls)
export const openUdp = dgramUdp(calls)
