/** A client with several servers, each of which has a target of its own that shows which one was chosen. */
import { randomBytes } from 'node:crypto'
import type { Config, Program, Running } from './process.ts'
import { freePort, httpGet, start } from './process.ts'
import { dial, listen, type Target, type TcpEnd } from './tcp.ts'
import { sleep, waitFor } from './wait.ts'

const ANSWER_MS = 60_000
/** A connection that is opened to find out where it goes may have got a server that does not answer. */
const PATIENCE_MS = 3000

/** One server, as in /stats.json. */
export interface State {
  readonly server: string
  readonly state: string
  readonly rtt_ms: number | null
  readonly sessions: number
  readonly used: boolean
}

export interface Fleet {
  readonly client: Running
  readonly port: number
  /** Addresses of the servers. */
  readonly addresses: readonly string[]
  /** Starts server number `index`. */
  startServer(index: number): Promise<void>
  server(index: number): Running
  /** Opens a connection. @returns it, and the number of the server whose target answers */
  ask(): Promise<{ readonly app: TcpEnd; readonly server: number }>
  /** The number of the server that a new connection gets. */
  where(): Promise<number>
  states(): Promise<readonly State[]>
  /** Waits until new connections get this server. */
  goesTo(index: number): Promise<void>
}

export interface FleetOptions {
  readonly client: Program
  readonly servers: readonly Program[]
  /** Numbers of the servers that run when the client starts; default: all. */
  readonly running?: readonly number[]
  readonly clientConfig?: Config
  readonly serverConfig?: Config
  /** The value of kcp_connect. */
  readonly connect?: (addresses: readonly string[]) => string | readonly string[]
}

/** Asks through the port of a client. @param patience ms until it gives up */
export async function askAt(
  port: number,
  patience = ANSWER_MS,
): Promise<{ readonly app: TcpEnd; readonly server: number }> {
  const app = await dial('127.0.0.1', port, { keep: 1000 })
  await app.send('who?')
  const answered = waitFor('an answer', () => app.text().length > 0, patience)
  await Promise.race([answered, app.ending]).catch(() => {})
  answered.catch(() => {})
  if (app.text() === '') {
    app.destroy()
    throw new Error((await Promise.race([app.ending, sleep(0)]))?.kind ?? 'no answer')
  }
  return { app, server: Number(app.text()[0]) }
}

/** Runs a test body with a client and its servers, and stops everything afterwards. */
export async function withServers(options: FleetOptions, body: (fleet: Fleet) => Promise<void>): Promise<void> {
  const shared = { method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64') }
  const targets: Target[] = []
  const ports: number[] = []
  for (const index of options.servers.keys()) {
    targets.push(
      await listen(({ socket }) => {
        socket.on('data', (chunk) => socket.write(`${index}${chunk}`))
        socket.on('end', () => socket.end())
      }),
    )
    ports.push(await freePort())
  }
  const addresses = ports.map((port) => `127.0.0.1:${port}`)
  const running = new Map<number, Running>()
  const startServer = async (index: number): Promise<void> => {
    const config = {
      ...shared,
      kcp_bind: addresses[index] ?? '',
      connect: targets[index]?.address ?? '',
      ...options.serverConfig,
    }
    running.set(index, await start(options.servers[index] ?? 'node', config))
  }
  let client: Running | undefined
  try {
    for (const index of options.running ?? options.servers.keys()) await startServer(index)
    const port = await freePort()
    const connect = options.connect?.(addresses) ?? addresses
    const config = { ...shared, listen: `127.0.0.1:${port}`, kcp_connect: connect, ...options.clientConfig }
    const own = await start(options.client, config)
    client = own
    const fleet: Fleet = {
      client: own,
      port,
      addresses,
      startServer,
      server: (index) => running.get(index) as Running,
      ask: () => askAt(port),
      async where() {
        const { app, server } = await askAt(port, PATIENCE_MS)
        app.destroy()
        return server
      },
      async states() {
        return JSON.parse(await httpGet(`http://${own.config['http_listen']}/stats.json`)).servers
      },
      goesTo: (index) =>
        waitFor(
          `new connections go to server ${index}`,
          () =>
            fleet.where().then(
              (at) => at === index,
              () => false,
            ),
          ANSWER_MS,
          own.log,
        ),
    }
    await body(fleet)
  } catch (error) {
    throw new Error(`${String(error)}\n--- client\n${client?.log().slice(-4000)}`, { cause: error })
  } finally {
    for (const server of running.values()) {
      // a stopped one ends only when it continues
      if (server.status === undefined) process.kill(server.pid, 'SIGCONT')
      await server.stop('SIGKILL')
    }
    await client?.stop()
    for (const target of targets) await target.close()
  }
}
