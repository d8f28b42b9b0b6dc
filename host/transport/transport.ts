/**
 * Interface of the transports: UDP (udp.ts), obfuscated client and obfuscated server (obfs/). A transport opens the
 * sockets, follows changes of names and networks, and selects the sending socket.
 */

import type { Config } from '../config/config.ts'
import type { Aead } from '../crypto/aead.ts'
import type { Driver } from '../driver/driver.ts'
import type { SystemError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime, SocketOptions } from '../runtime.ts'
import type { ResolvedAddresses } from './resolver.ts'

/** Constructor arguments of every transport. */
export interface TransportOptions {
  readonly runtime: Runtime
  readonly config: Config
  readonly log: Log
  readonly driver: Driver
  /** Undefined: no method, datagrams are plaintext. */
  readonly aead: Aead | undefined
  /**
   * Options of UDP sockets for a configuration.
   * @param number of the address in `kcp_bind`
   */
  socketOptions(config: Config, number?: number): SocketOptions | undefined
  /** Worker of a server: the addresses that it has sockets for, in place of those of `kcp_bind`. */
  readonly bound?: readonly SocketAddress[] | undefined
  /** `waiting` may have changed. */
  onWaiting(): void
}

export interface Transport {
  readonly addresses: ResolvedAddresses
  /** Whether a rendezvous client has found its peer. */
  readonly peerFound: boolean
  /** The address that datagrams to the peer go to, where it may be another one than the peer's. */
  readonly remote?: SocketAddress | undefined
  /** Why no traffic is possible yet, as `key: reason`: a name without address, a socket that is not open. */
  readonly waiting: string | undefined
  /**
   * Resolves names, configures the engine and opens the sockets. What fails for a temporary reason is retried.
   * @throws ConfigError, StartError for other reasons
   */
  open(): Promise<void>
  close(): void
  /** Nothing was received for a long time, or a ping to the peer was not answered. */
  onResolve(): void
  onPeerFound(peer: SocketAddress): void
  /** Interfaces or their addresses changed. */
  onInterfaces(): void
  /** The machine was suspended, and resumed. */
  onResume(): void
  /** The peer answered at the probing socket. */
  onProbed?(): void
  onUdpError(error: SystemError): void
  /** dpi/tcp client: the SYN was answered. */
  onObfsReady?(context: number): void
  /** A context of the obfuscator timed out. */
  onObfsEnded?(context: number): void
  /** A fresh engine is in use. It has configuration, peer and rendezvous server, but no obfuscator contexts. */
  onEngineReplaced?(): void
  /**
   * Applies a configuration to engine, sockets and addresses, completely or not at all. A name that cannot be resolved
   * is not an error: it keeps its address and is resolved again later.
   * @throws ConfigError, or the error of a socket that cannot be opened; the previous configuration then stays in force
   */
  reload(config: Config): Promise<void>
}
