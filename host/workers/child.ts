/**
 * A worker: one endpoint in a process of its own, on a socket that it was given, which does what the first process
 * (workers.ts) says. What it logs goes there; it ends when that process is gone.
 */
import type { RuntimeCrypto } from '../crypto/open.ts'
import { type Endpoint, startEndpoint } from '../endpoint/endpoint.ts'
import { messageOf } from '../errors.ts'
import { Log } from '../log/log.ts'
import type { Runtime, WorkerCalls } from '../runtime.ts'
import type { FromWorker, ToWorker } from './messages.ts'

/** How long the last messages may take before the process ends, ms. */
const LAST_WORDS_MS = 1000

/** Runs as a worker for good. */
export async function runWorker(runtime: Runtime, calls: WorkerCalls, crypto: RuntimeCrypto): Promise<void> {
  const send = (message: FromWorker, sent?: () => void): void => calls.send(message, sent)
  const log = new Log(
    () => {},
    () => new Date(runtime.clock.wall()),
    () => (level, text) => send({ kind: 'log', level, text }),
  )
  log.setOutput('syslog')
  let endpoint: Endpoint | undefined
  /** Start and reloads run one after the other. */
  let turn: Promise<void> = Promise.resolve()

  const leave = (status: number, last: FromWorker = { kind: 'bye' }): void => {
    endpoint?.close()
    runtime.clock.setTimer(() => runtime.exit(status), LAST_WORDS_MS)
    send(last, () => runtime.exit(status))
  }
  const start = async ({ config, level, secret }: Extract<ToWorker, { kind: 'start' }>): Promise<void> => {
    log.setLevel(level)
    try {
      endpoint = await startEndpoint(runtime, config, log, crypto, { fd: calls.socket, secret })
    } catch (error) {
      return leave(1, { kind: 'failed', text: messageOf(error) })
    }
    send({ kind: 'serving' })
    // the engine trapped again and again, which has been logged
    void endpoint.failed.then((error) => {
      void tell(0, false)
      leave(1, { kind: 'failed', text: messageOf(error) })
    })
  }
  const reload = async ({ config }: Extract<ToWorker, { kind: 'reload' }>): Promise<void> => {
    try {
      await endpoint?.reload(config)
    } catch (error) {
      return send({ kind: 'reloaded', failure: messageOf(error) })
    }
    send({ kind: 'reloaded' })
  }
  const tell = async (id: number, withSessions: boolean): Promise<void> => {
    if (endpoint === undefined) return
    const { monitor } = endpoint
    if (withSessions) {
      for (const sessions of monitor.sessions()) {
        send({ kind: 'sessions', id, sessions })
        // the tunnel comes first
        await new Promise((resolve) => runtime.clock.defer(() => resolve(undefined)))
      }
    }
    const { cpu, counters } = monitor.snapshot()
    const part = {
      cpu: cpu ?? 0,
      counters,
      host: monitor.hostCounters(),
      health: monitor.health(),
      path: monitor.path(),
    }
    send({ kind: 'stats', id, part })
  }
  const inTurn = (action: () => Promise<void>): void => {
    turn = turn.then(action).catch((error) => log.error(messageOf(error)))
  }

  // a terminal sends these to all processes; the first one decides what they mean
  runtime.onReload(() => {})
  runtime.onTerminate((signal) => {
    if (signal === 'SIGTERM') leave(0)
  })
  calls.receive(
    (received) => {
      const message = received as ToWorker
      if (message.kind === 'start') inTurn(() => start(message))
      else if (message.kind === 'reload') inTurn(() => reload(message))
      else if (message.kind === 'level') log.setLevel(message.level)
      else if (message.kind === 'ping') endpoint?.monitor.ping()
      else if (message.kind === 'stats')
        tell(message.id, message.sessions).catch((error) => log.error(messageOf(error)))
    },
    () => {
      endpoint?.close()
      runtime.exit(0)
    },
  )
  send({ kind: 'hello' })
}
