/** What a search may do: how much the applications say, and how often the network and the machines misbehave. */

export interface Scenario {
  readonly name: string
  /** With a method: nonces, replay filter, validation, confirmation, migration. */
  readonly sealed: boolean
  /** Most bytes of each application. */
  readonly clientBytes: number
  readonly serverBytes: number
  /** Datagrams that may be lost, duplicated, and held back for any time. */
  readonly losses: number
  readonly duplicates: number
  readonly holds: number
  /** Times at which the server or the client loses its state. */
  readonly serverRestarts: number
  readonly clientRestarts: number
  /** Datagrams that a machine sent before its restart arrive afterwards, which the wire cannot tell apart. */
  readonly lateFromBefore: boolean
  /** Times at which the client gets another address; datagrams to the old one are lost. */
  readonly migrations: number
  /** Applications that may break off, and targets that may refuse. */
  readonly aborts: number
  /** Reading is a step of its own: data may wait. */
  readonly slowReader: boolean
  /** Waits of a second or more while an application has not finished. */
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

/** One fault at a time, and pairs that belong together. */
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

/** The same while applications act only when nothing is in flight: small enough for every run of the tests. */
export const quick: readonly Scenario[] = scenarios.map((scenario) => ({ ...scenario, inFlight: 1 }))
