/** The dashboard's data source of an idle endpoint. */

import type { HttpSource } from '../../host/monitoring/source.ts'
import { clock } from '../../runtime-shared/clock.ts'

export const NO_LIVE: HttpSource['live'] = {
  client: true,
  server: false,
  clock,
  about: () => ({}),
  path: () => ({ local: undefined, peer: undefined, rendezvous: undefined, peerFound: false, pongRtt: undefined }),
  ping: () => {},
  history: () => [],
  warnings: () => ({ recent: [], remembered: 0 }),
}
