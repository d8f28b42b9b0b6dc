/** What the page compares: a sender and a receiver with a link between them. */

import type { Link } from './link.ts'

export interface Lane {
  readonly link: Link
  /** Bytes that the receiving application got. */
  readonly received: number
  /** The round trip as the sender measures it, ms; null: not yet. */
  readonly roundTrip: number | null
  /** Starts a transfer in place of the current one. `bytes` may be Infinity. */
  start(bytes: number): Promise<void>
  /** Ends the transfer. */
  stop(): void
}
