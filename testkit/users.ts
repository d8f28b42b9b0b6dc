/** A server with several keys, and a client for each of some users. */
import { randomBytes } from 'node:crypto'
import type { KeyStatus } from '../host/monitoring/source.ts'
import { type Config, freePort, httpGet, type Program, type Running, start } from './process.ts'
import { dial, type TcpEnd } from './tcp.ts'
import { waitFor } from './wait.ts'

/** An entry of `keys` in /stats.json. */
export type KeyFigures = KeyStatus

export interface UsersOptions {
  readonly server: Program
  /** Program of each user's client, by name. */
  readonly clients: Readonly<Record<string, Program>>
  readonly target: string
  readonly host?: string
  readonly config?: Config
  readonly serverConfig?: Config
  /** Further members of entries, by name. */
  readonly entries?: Readonly<Record<string, Config>>
}

export interface Users {
  readonly server: Running
  readonly clients: Readonly<Record<string, Running>>
  /** Entries of `keys`, by name. */
  readonly entries: Readonly<Record<string, Config>>
  /** An application's connection to the client of a user. */
  dial(name: string): Promise<TcpEnd>
  /** Gives the server other keys and waits for the reload. */
  setKeys(...entries: readonly Config[]): Promise<void>
  statistics(): Promise<{
    readonly keys?: KeyFigures[]
    readonly sessions: { readonly user?: string; readonly peer: string }[]
    readonly counters: Readonly<Record<string, number>>
  }>
  figures(name: string): Promise<KeyFigures>
  close(): Promise<void>
}

const RELOADED = 'config successfully reloaded'
const count = (text: string): number => text.split(RELOADED).length - 1

export const newPsk = (): string => randomBytes(32).toString('base64')

export async function openUsers(options: UsersOptions): Promise<Users> {
  const { host = '127.0.0.1', target } = options
  const address = `${host.includes(':') ? `[${host}]` : host}:${await freePort(host)}`
  // sessions that are over soon make room
  const method = { method: 'xchacha20poly1305_ietf', linger: 5, ...options.config }
  const names = Object.keys(options.clients)
  const entries = Object.fromEntries(
    names.map((name) => [name, { name, psk: newPsk(), ...options.entries?.[name] }] as const),
  )
  const keys = Object.values(entries)
  const server = await start(options.server, {
    ...method,
    keys,
    kcp_bind: address,
    connect: target,
    ...options.serverConfig,
  })
  const clients: Record<string, Running> = {}
  const ports: Record<string, number> = {}
  const close = async (): Promise<void> => {
    await Promise.all([server, ...Object.values(clients)].map((each) => each.stop()))
  }
  try {
    for (const name of names) {
      const port = await freePort()
      ports[name] = port
      const psk = entries[name]?.psk ?? ''
      const config = { ...method, psk, listen: `127.0.0.1:${port}`, kcp_connect: address }
      clients[name] = await start(options.clients[name] ?? 'node', config)
    }
  } catch (error) {
    await close()
    throw error
  }
  const statistics = async (): ReturnType<Users['statistics']> =>
    JSON.parse(await httpGet(`http://${server.config['http_listen']}/stats.json`))
  return {
    server,
    clients,
    entries,
    dial: (name) => dial('127.0.0.1', ports[name] ?? 0),
    async setKeys(...fresh) {
      const before = count(server.log())
      server.reload({ keys: fresh })
      await waitFor(
        'the keys are reloaded',
        () => count(server.log()) > before,
        20_000,
        () => server.log().slice(-2000),
      )
    },
    statistics,
    async figures(name) {
      const { keys: all = [] } = await statistics()
      const found = all.find((key) => key.name === name)
      if (found === undefined) throw new Error(`no figures of ${name}: ${JSON.stringify(all)}`)
      return found
    },
    close,
  }
}
