/** The surroundings of an endpoint of the library: its own runtime, log and transport. */

import type { Config } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime } from '../runtime.ts'
import type { Transport, TransportOptions } from '../transport/transport.ts'
import type { DatagramTransport, Logger } from './api.ts'
import { CustomTransport } from './custom-transport.ts'
import { type KeptClock, keptRuntime } from './keep-alive.ts'
import { logTo } from './logger.ts'
import { PeerAddresses } from './peer-addresses.ts'

export interface Setting {
  readonly runtime: Runtime & { readonly clock: KeptClock }
  readonly log: Log
  /** Set with a DatagramTransport. */
  readonly makeTransport?: (onEnd: (error: Error | undefined) => void) => (options: TransportOptions) => Transport
  readonly addressText?: (address: SocketAddress) => string | undefined
}

/** @param base the runtime of the process or page */
export function settingOf(
  base: Runtime,
  logger: Logger | undefined,
  transport: DatagramTransport | undefined,
): Setting {
  const runtime = keptRuntime(base)
  const log = logTo(logger, runtime.clock)
  if (transport === undefined) return { runtime, log }
  const peers = new PeerAddresses()
  return {
    runtime,
    log,
    makeTransport: (onEnd) => (options) => new CustomTransport(options, transport, peers, onEnd),
    addressText: (address) => peers.peerAt(address),
  }
}

/** Applies the keys of a configuration that concern the process and the log. */
export function applyConfig({ runtime, log }: Setting, config: Config): void {
  if (!config.native) runtime.os?.native?.forbid('native is false')
  log.setLevel(config.loglevel)
}
