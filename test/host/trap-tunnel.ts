/** Two endpoints with real engines over an in-memory network, for the effects of a trap as seen from outside. */

import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Log } from '../../host/log/log.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { loopback, MemoryNetwork, NO_CIPHERS, until } from './memory-runtime.ts'
import type { MemoryTcp } from './memory-tcp.ts'

export const PSK = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
export const METHODS = ['xchacha20poly1305_ietf', 'chacha20poly1305_ietf'] as const
export const TARGET = loopback(9000)
export const configOf = (config: object) => parseConfig(new TextEncoder().encode(JSON.stringify(config)))

export async function start(network: MemoryNetwork, config: object): Promise<Endpoint> {
  const log = new Log((stream, text) => network.runtime().print(stream, text))
  log.setLevel(6)
  return startEndpoint(network.runtime(), configOf(config), log, NO_CIPHERS)
}

/** An application or a target: counts the received bytes, and echoes them if it is a target. */
export class Party {
  received = 0
  /** How the connection ended. */
  over: 'fin' | 'reset' | undefined
  readonly socket: MemoryTcp
  readonly #echo: boolean

  constructor(socket: MemoryTcp, echo: boolean) {
    this.socket = socket
    this.#echo = echo
  }

  send(length: number): void {
    this.socket.write(this.socket.writeBuffer(), length)
  }

  onData(chunk: Uint8Array): void {
    this.received += chunk.length
    if (this.#echo) this.send(chunk.length)
  }

  onEnd(): void {
    this.over ??= 'fin'
    if (this.#echo) this.socket.end()
  }

  onDrain(): void {}

  onClose(error?: Error): void {
    this.over = error === undefined ? (this.over ?? 'fin') : 'reset'
  }
}

export function dial(network: MemoryNetwork, address: SocketAddress | undefined): Party {
  assert.ok(address)
  const later = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }
  const socket = network.dial(address, later)
  const party = new Party(socket, false)
  socket.handlers = party
  socket.resume()
  return party
}

export interface Tunnel {
  readonly network: MemoryNetwork
  readonly server: Endpoint
  readonly client: Endpoint
  readonly targets: Party[]
  readonly config: object
  printed(text: string): number
  /** Opens a connection and waits for one echo. */
  connect(): Promise<Party>
  close(): void
}

/** @param extra configuration of both endpoints */
export async function tunnel(extra: object = {}, clientOnly: object = {}): Promise<Tunnel> {
  const network = new MemoryNetwork()
  const targets: Party[] = []
  network.listen(TARGET, (socket) => {
    const party = new Party(socket, true)
    targets.push(party)
    setImmediate(() => socket.resume())
    return party
  })
  const server = await start(network, { connect: '127.0.0.1:9000', kcp_bind: '127.0.0.1:5000', ...extra })
  const config = {
    listen: '127.0.0.1:0',
    kcp_connect: '127.0.0.1:5000',
    http_listen: '127.0.0.1:0',
    ...extra,
    ...clientOnly,
  }
  const client = await start(network, config)
  return {
    network,
    server,
    client,
    targets,
    config,
    printed: (text) => network.printed.filter((line) => line.includes(text)).length,
    async connect() {
      const application = dial(network, client.tcp)
      application.send(1000)
      await until(() => application.received === 1000 || application.over !== undefined, 'the echo')
      assert.is(application.over, undefined)
      return application
    },
    close() {
      client.close()
      server.close()
    },
  }
}

export async function get(network: MemoryNetwork, endpoint: Endpoint, path: string): Promise<string> {
  const fetch = network.http.get(`127.0.0.1:${endpoint.http?.port}`)
  assert.ok(fetch)
  return (await fetch(new Request(`http://127.0.0.1${path}`), path, { hold() {}, cut() {} })).text()
}
