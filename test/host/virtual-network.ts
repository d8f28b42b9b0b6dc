/** Endpoints on an in-memory network in virtual time. */
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Log } from '../../host/log/log.ts'
import type { TcpHandlers } from '../../host/runtime.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'
import { loopback, MemoryNetwork, NO_CIPHERS } from './memory-runtime.ts'
import type { MemoryTcp } from './memory-tcp.ts'

/** Step of the virtual time, ms. */
const STEP_MS = 10
/** Turns of the event loop per step: a datagram and its reply are delivered within them. */
const TURNS = 6
/** Virtual time limit of a condition, ms. */
const LIMIT_MS = 600_000

export const configOf = (config: object) => parseConfig(new TextEncoder().encode(JSON.stringify(config)))

/** A network in virtual time. */
export class VirtualNetwork extends MemoryNetwork {
  override readonly clock = new VirtualClock()

  async pass(ms: number): Promise<void> {
    for (const end = this.clock.monotonic() + ms; this.clock.monotonic() < end; ) await this.#step()
  }

  /** Advances the time until a condition holds. */
  async until(condition: () => boolean, what: string): Promise<void> {
    for (const end = this.clock.monotonic() + LIMIT_MS; !condition(); ) {
      assert.ok(this.clock.monotonic() < end, `timeout: ${what}`)
      await this.#step()
    }
  }

  async #step(): Promise<void> {
    await this.clock.advance(STEP_MS)
    for (let turn = 0; turn < TURNS; turn++) await new Promise((resolve) => setImmediate(resolve))
  }
}

export async function start(network: MemoryNetwork, config: object): Promise<Endpoint> {
  const log = new Log((stream, text) => network.runtime().print(stream, text))
  log.setLevel(6)
  return startEndpoint(network.runtime(), configOf(config), log, NO_CIPHERS)
}

export const printed = (network: MemoryNetwork, text: string): number =>
  network.printed.filter((line) => line.includes(text)).length

/** Starts a target that echoes. */
export function echoTarget(network: MemoryNetwork, address = loopback(9000)): void {
  network.listen(address, (socket) => {
    setImmediate(() => socket.resume())
    return echoing(socket)
  })
}

function echoing(socket: MemoryTcp): TcpHandlers {
  return {
    onData(chunk) {
      socket.writeBuffer().set(chunk)
      socket.write(socket.writeBuffer(), chunk.length)
    },
    onEnd: () => socket.end(),
    onDrain() {},
    onClose() {},
  }
}

/** A connection through the tunnel. */
export class Application {
  received = 0
  over = false
  /** How it ended. */
  ending: 'FIN' | 'RST' | undefined
  readonly #network: VirtualNetwork
  readonly #socket: MemoryTcp

  constructor(network: VirtualNetwork, client: Endpoint) {
    assert.ok(client.tcp)
    this.#network = network
    this.#socket = network.dial(client.tcp, {
      onData: (chunk) => {
        this.received += chunk.length
      },
      onEnd: () => {
        this.ending ??= 'FIN'
        this.over = true
      },
      onDrain() {},
      onClose: (error) => {
        if (error !== undefined) this.ending ??= 'RST'
        this.over = true
      },
    })
    this.#socket.resume()
  }

  /** Sends one byte. */
  send(): void {
    this.#socket.write(this.#socket.writeBuffer(), 1)
  }

  /** Sends one byte and waits for its echo. */
  async echo(what: string): Promise<void> {
    const before = this.received
    this.send()
    await this.#network.until(() => this.received > before || this.over, what)
    assert.not.ok(this.over, what)
  }

  close(): void {
    this.#socket.reset()
  }
}

/** Sessions follow their peer to another address only if the datagram is authenticated. */
export const SECURITY = { method: 'xchacha20poly1305_ietf', psk: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' }
export const SERVER = { ...SECURITY, connect: '127.0.0.1:9000', kcp_bind: '127.0.0.1:5000' }

export async function tunnel(network: VirtualNetwork, clientOnly: object = {}) {
  echoTarget(network)
  const server = await start(network, SERVER)
  const config = {
    ...SECURITY,
    listen: '127.0.0.1:0',
    kcp_connect: '127.0.0.1:5000',
    keepalive: 5,
    ...clientOnly,
  }
  const client = await start(network, config)
  return {
    server,
    client,
    config,
    close() {
      client.close()
      server.close()
    },
  }
}
