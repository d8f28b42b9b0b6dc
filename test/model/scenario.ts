/** The bounds of a search: how much the applications send, and how many faults network and machines have. */

export interface Scenario {
  readonly name: string
  /** With a method: nonces, replay filter, validation, confirmation, migration. */
  readonly sealed: boolean
  /** Maximum bytes of each application. */
  readonly clientBytes: number
  readonly serverBytes: number
  /** Number of datagrams that may be lost, duplicated, and delayed for any time. */
  readonly losses: number
  readonly duplicates: number
  readonly holds: number
  /** Number of restarts in which the server or the client loses its state. */
  readonly serverRestarts: number
  readonly clientRestarts: number
  /** Datagrams sent before a restart may arrive after it; the wire format does not distinguish them. */
  readonly lateFromBefore: boolean
  /** Number of changes of the client's address; datagrams to the old one are lost. */
  readonly migrations: number
  /** Number of applications that may abort, and of targets that may refuse. */
  readonly aborts: number
  /** Reading is a separate step, so that data may stay buffered. */
  readonly slowReader: boolean
  /** Number of waits of a second or more while an application has not finished. */
  readonly idles: number
  /** Applications do nothing while this many datagrams are in flight. */
  readonly inFlight: number
}

const plain: Scenario = {
  name: 'plain',
  sealed: false,
  clientBytes: 1,
  serverBytes: 1,
  losses: 0,
  duplicates: 0,
  holds: 0,
  serverRestarts: 0,
  clientRestarts: 0,
  lateFromBefore: false,
  migrations: 0,
  aborts: 0,
  slowReader: false,
  idles: 0,
  inFlight: 3,
}
const sealed: Scenario = { ...plain, name: 'sealed', sealed: true }

/** One fault at a time, and related pairs. */
export const scenarios: readonly Scenario[] = [
  { ...plain, name: 'plain, loss', losses: 1 },
  { ...plain, name: 'plain, duplicate', duplicates: 1 },
  { ...plain, name: 'plain, late', holds: 1 },
  { ...plain, name: 'plain, restart of the server', serverRestarts: 1 },
  { ...plain, name: 'plain, restart of the client', clientRestarts: 1 },
  { ...plain, name: 'plain, abort', aborts: 1 },
  { ...plain, name: 'plain, slow reader', slowReader: true, clientBytes: 2 },
  { ...sealed, name: 'sealed, loss', losses: 1 },
  { ...sealed, name: 'sealed, duplicate', duplicates: 1 },
  { ...sealed, name: 'sealed, late', holds: 1 },
  { ...sealed, name: 'sealed, restart of the server', serverRestarts: 1 },
  { ...sealed, name: 'sealed, restart of the server, late', serverRestarts: 1, holds: 1 },
  { ...sealed, name: 'sealed, restart of the client', clientRestarts: 1 },
  { ...sealed, name: 'sealed, migration', migrations: 1 },
  { ...sealed, name: 'sealed, migration, idle', migrations: 1, idles: 1 },
  { ...sealed, name: 'sealed, abort', aborts: 1 },
]

/** The same with applications that act only when nothing is in flight: small enough for every test run. */
export const quick: readonly Scenario[] = scenarios.map((scenario) => ({ ...scenario, inFlight: 1 }))
