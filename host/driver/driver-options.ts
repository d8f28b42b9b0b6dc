/** What an endpoint passes to its driver. */

import type { Core } from '../engine/core.ts'
import type { Engine } from '../engine/engine.ts'
import type { SystemError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Runtime } from '../runtime.ts'
import type { EventHandlers } from './events.ts'
import type { KeyRing } from './key-ring.ts'
import type { TcpPolicy } from './stream.ts'

export interface DriverOptions extends EventHandlers, TcpPolicy {
  readonly runtime: Runtime
  readonly engine: Engine
  /** Undefined: no method, datagrams are plaintext. */
  readonly keys: KeyRing | undefined
  readonly log: Log
  /** The UDP socket reported an error; only a hint. */
  onUdpError?(error: SystemError): void
  /** The machine was suspended, and resumed. */
  onResume?(): void
  /** The engine trapped and is about to be replaced. */
  onTrap?(broken: Core): void
  /** A fresh engine is in use, with the configuration, peer and announcement of the previous one. */
  onEngineReplaced?(): void
  /** The engine trapped repeatedly or cannot be replaced. Everything is already closed; the driver cannot be reused. */
  onFatal(error: Error): void
}
