/** A server with several keys, clients of it, and what its figures say, for tests. */
import * as assert from 'uvu/assert'
import { freePort, httpGet, type Program, type Running, type StartOptions, start } from './process.ts'
import { dial, echoTarget, type TcpEnd } from './tcp.ts'
import { waitFor } from './wait.ts'

export const MIB = 1024 * 1024
export const TIMEOUT_MS = 60_000
const RELOADED = 'config successfully reloaded'

export const keyOf = (letter: string): string => Buffer.alloc(32, letter).toString('base64')
export const ALICE = { name: 'alice', psk: keyOf('a') }
export const BOB = { name: 'bob', psk: keyOf('b') }
export const CAROL = { name: 'carol', psk: keyOf('c') }

export interface KeyFigures {
  readonly name: string
  readonly sessions: number
  readonly sessions_opened: number
  readonly sessions_refused: number
  readonly tcp_written_bytes: number
}

export async function figuresOf(server: Running): Promise<Map<string, KeyFigures>> {
  const stats = JSON.parse(await httpGet(`http://${server.config['http_listen']}/stats.json`)) as {
    readonly keys: readonly KeyFigures[]
  }
  return new Map(stats.keys.map((key) => [key.name, key]))
}

export async function reload(end: Running, change: Parameters<Running['reload']>[0]): Promise<void> {
  const count = (): number => end.log().split(RELOADED).length
  const before = count()
  end.reload(change)
  await waitFor('the reload', () => count() > before, 20_000, end.log)
}

/** A server, its echo target, and clients of it. */
export class Setting {
  readonly #ends: Running[] = []
  readonly #close: () => Promise<unknown>
  readonly server: Running
  readonly #method: string

  private constructor(server: Running, method: string, close: () => Promise<unknown>) {
    this.server = server
    this.#method = method
    this.#close = close
  }

  /** @param host where the server receives datagrams */
  static async open(
    program: Program,
    method: string,
    keys: object,
    host = '127.0.0.1',
    options: StartOptions = {},
  ): Promise<Setting> {
    const target = await echoTarget()
    const kcp_bind = `${host.includes(':') ? `[${host}]` : host}:${await freePort(host)}`
    const server = await start(program, { method, kcp_bind, connect: target.address, ...keys }, options)
    return new Setting(server, method, () => target.close())
  }

  async client(program: Program, keys: object, more: object = {}): Promise<Running> {
    const listen = `127.0.0.1:${await freePort()}`
    const kcp_connect = String(this.server.config['kcp_bind'])
    const end = await start(program, { method: this.#method, listen, kcp_connect, ...keys, ...more })
    this.#ends.push(end)
    return end
  }

  async close(): Promise<void> {
    for (const end of [...this.#ends, this.server]) await end.stop('SIGKILL')
    await this.#close()
  }
}

export const connect = (client: Running): Promise<TcpEnd> =>
  dial('127.0.0.1', Number(String(client.config['listen']).split(':')[1]))

export async function assertEcho(app: TcpEnd, bytes: number, what: string): Promise<void> {
  const wanted = app.received + bytes
  const poured = app.pour(bytes, 1)
  await waitFor(`${what}: the echo`, () => app.received >= wanted || app.ended, TIMEOUT_MS)
  assert.is(app.received, wanted, what)
  await poured
}
