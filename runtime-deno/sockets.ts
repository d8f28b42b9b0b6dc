/** TCP, portable UDP and the HTTP server of Deno. */
import { codeOf, systemError } from '../host/errors.ts'
import { formatAddress, type SocketAddress } from '../host/net/address.ts'
import type { Runtime } from '../host/runtime.ts'
import { dgramUdp } from '../runtime-shared/dgram-udp.ts'
import { serveHttp as serve } from '../runtime-shared/http.ts'
import { netTcp, type SocketCalls } from '../runtime-shared/net-tcp.ts'
import { netUnix } from '../runtime-shared/net-unix.ts'
import { adoptConnecting } from './adopt.ts'
import { syscalls } from './ffi.ts'

const calls: SocketCalls = { syscalls, hasReusePort: false, isLooseDgram: true }
const tcp = netTcp(calls)

/** node:net of Deno reports EINVAL when the address is none of this system. */
async function bound<Result>(address: SocketAddress, opened: Promise<Result>): Promise<Result> {
  try {
    return await opened
  } catch (error) {
    throw codeOf(error) === 'EINVAL'
      ? systemError('EADDRNOTAVAIL', `listen ${formatAddress(address)}`, 'listen')
      : error
  }
}

export const { dialTcp, adoptListener } = tcp
export const adoptConnection = adoptConnecting(tcp.adoptConnection)
export const unix = netUnix(calls)
export const openUdp = dgramUdp(calls)

/** See Runtime.listenTcp. */
export const listenTcp: Runtime['listenTcp'] = (address, ...words) => bound(address, tcp.listenTcp(address, ...words))

/** See Runtime.serveHttp. */
export const serveHttp: typeof serve = (address, ...words) => bound(address, serve(address, ...words))
