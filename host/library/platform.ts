/** What a runtime gives to the library. */

import type { RuntimeCrypto } from '../crypto/open.ts'
import type { Runtime } from '../runtime.ts'
import type { Channel } from './channel.ts'

export interface Platform<Stream> {
  /** The runtime of this process or page. */
  runtime(): Runtime
  readonly crypto: RuntimeCrypto
  /** Whether chunks of its streams may share an ArrayBuffer, as those of node:stream do. */
  readonly sharesMemory: boolean
  /** Why there are no sockets, where there are none: a transport is required. */
  readonly noSockets?: string
  /**
   * Makes a stream of the application's side of a channel.
   * @param remoteAddress of its peer, as text
   */
  streamOf(channel: Channel, remoteAddress: string | undefined): Stream
}
