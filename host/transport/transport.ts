/**
 * How an endpoint's datagrams get to where the configuration's names lead: over UDP (follower.ts), or obfuscated as a server or a client (obfs/).
 */

import type { Config } from '../config/config.ts'
import type { SystemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Names } from './resolver.ts'

export interface Way {
  readonly names: Names
  /** Whether a rendezvous client has found its peer. */
  readonly peerFound: boolean
  /**
   * The start: resolves, configures the engine, opens sockets. Result: where they are bound.
   * @throws ConfigError, StartError
   */
  open(): Promise<{ readonly local: SocketAddress }>
  close(): void
  /** Nothing was heard for long, or the peer left a ping unanswered. */
  onResolve(): void
  onPeerFound(peer: SocketAddress): void
  onUdpError(error: SystemError): void
  /** dpi/tcp client: the SYN was answered. */
  onObfsReady?(context: number): void
  /** A context of the obfuscator timed out. */
  onObfsEnded?(context: number): void
  /** A fresh engine is in use, which knows configuration, peer and rendezvous server, but nothing of the obfuscator. */
  onEngineReplaced?(): void
  /** A new configuration is in force. `reopen`: sockets need other options. Fulfilled when its names were followed, or could not be. */
  reload(config: Config, reopen: boolean): Promise<void>
}
