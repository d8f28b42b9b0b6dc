/**
 * How an endpoint's datagrams reach the addresses of its configuration: by UDP (udp.ts), or obfuscated as a client or a
 * server (obfs/). A transport opens the sockets, follows names and networks, and selects the socket that sends.
 */

import type { Config } from '../config/config.ts'
import type { Aead } from '../crypto/aead.ts'
import type { Driver } from '../driver/driver.ts'
import type { SystemError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime, SocketOptions } from '../runtime.ts'
import type { ResolvedAddresses } from './resolver.ts'

/** What every transport is made from. */
export interface TransportOptions {
  readonly runtime: Runtime
  readonly config: Config
  readonly log: Log
  readonly driver: Driver
  /** Undefined: no method, datagrams are plaintext. */
  readonly aead: Aead | undefined
  /** Options of UDP sockets for a configuration. */
  socketOptions(config: Config): SocketOptions | undefined
}

export interface Transport {
  readonly addresses: ResolvedAddresses
  /** Whether a rendezvous client has found its peer. */
  readonly peerFound: boolean
  /**
   * The start: resolves, configures the engine, opens sockets.
   * @returns where they are bound
   * @throws ConfigError, StartError
   */
  open(): Promise<{ readonly local: SocketAddress }>
  close(): void
  /** Nothing was received for long, or the peer left a ping unanswered. */
  onResolve(): void
  onPeerFound(peer: SocketAddress): void
  onUdpError(error: SystemError): void
  /** dpi/tcp client: the SYN was answered. */
  onObfsReady?(context: number): void
  /** A context of the obfuscator timed out. */
  onObfsEnded?(context: number): void
  /** A fresh engine is in use. It has configuration, peer and rendezvous server, but no context of the obfuscator. */
  onEngineReplaced?(): void
  /**
   * Takes over a configuration: engine, sockets and addresses, all of it or nothing. A name that cannot be resolved now
   * is no failure; it keeps its address and is looked up again.
   * @throws ConfigError, or the error of a socket that cannot be opened; the configuration before stays in force then
   */
  reload(config: Config): Promise<void>
}
