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
  migrations: 0,
  aborts: 0,
  slowReader: false,
  idles: 0,
  inFlight: 3,
}
const sealed: Scenario = { ...plain, name: 'sealed', sealed: true }

/** Small bounds: what every run of the tests explores. */
export const short: readonly Scenario[] = [
  { ...plain, name: 'plain, loss', losses: 1 },
  { ...plain, name: 'plain, late duplicate', duplicates: 1, holds: 1 },
  { ...sealed, name: 'sealed, loss', losses: 1 },
]

/** Everything. */
export const long: readonly Scenario[] = [...short]
