/**
 * `kcptun-wasm udp-wrap` and `udp-unwrap`: datagrams in TCP connections, for a tunnel whose other program forwards TCP.
 * The format is that of udp_listen and udp_connect.
 */

import { UdpEntrance } from '../../datagrams/entrance.ts'
import { UdpExit } from '../../datagrams/exit.ts'
import { FlowTable } from '../../datagrams/flow-table.ts'
import { Splice } from '../../datagrams/splice.ts'
import { NO_HOST_COUNTERS } from '../../driver/diagnostics.ts'
import { ConfigError, messageOf } from '../../errors.ts'
import { LOG_DEBUG, LOG_LEVEL_DEFAULT, LOG_WARNING, Log } from '../../log/log.ts'
import { formatAddress, parseHostPort } from '../../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, TcpOptions } from '../../runtime.ts'
import { resolveAll } from '../../transport/resolver.ts'
import { Target } from '../../transport/target.ts'
import type { Given, Option } from '../options.ts'
import { type Command, CommandError } from './command.ts'

const TIMEOUT_S = 120
const TIMEOUT_MAX_S = 86_400

/** Small buffers: datagrams that wait are to be dropped, not kept. Where an option cannot be set, more wait. */
const TCP: TcpOptions = {
  nodelay: true,
  keepalive: true,
  socketOptions: { reuseport: false, sndbuf: 32_768, rcvbuf: 0, netdev: '', refused() {} },
}

const TIMEOUT: Option = {
  long: '--timeout',
  value: '<seconds>',
  help: `when an idle flow ends, as udp_timeout; default ${TIMEOUT_S}`,
}
const VERBOSE: Option = { long: '--verbose', short: '-v', help: 'log each flow' }

const listenOption = (kind: string): Option => ({
  long: '--listen',
  value: '<host:port>',
  help: `${kind} address on which to accept`,
})
const connectOption = (kind: string): Option => ({
  long: '--connect',
  value: '<host:port>',
  help: `${kind} address of the target`,
})

interface End {
  readonly runtime: Runtime
  readonly log: Log
  readonly table: FlowTable
}

function required(given: Given, name: string, role: 'bind' | 'connect'): string {
  const text = given.values.get(name)
  if (text === undefined) throw new CommandError(`${name} is missing`)
  try {
    parseHostPort('', text, role)
  } catch (error) {
    throw error instanceof ConfigError ? new CommandError(`${name} ${JSON.stringify(text)}: ${error.reason}`) : error
  }
  return text
}

function timeoutOf(given: Given): number {
  const text = given.values.get(TIMEOUT.long)
  if (text === undefined) return TIMEOUT_S
  const seconds = /^\d{1,9}$/.test(text) ? Number(text) : 0
  if (seconds >= 1 && seconds <= TIMEOUT_MAX_S) return seconds
  throw new CommandError(`${TIMEOUT.long} ${JSON.stringify(text)}: must be an integer from 1 to ${TIMEOUT_MAX_S}`)
}

/** Runs an end until the program is terminated. */
async function runEnd(runtime: Runtime, given: Given, open: (end: End) => Promise<void>): Promise<number> {
  const { clock } = runtime
  const log = new Log(
    (stream, text) => runtime.print(stream, text),
    () => new Date(clock.wall()),
    () => () => {},
    (callback, ms) => clock.setTimer(callback, ms),
  )
  log.setLevel(given.flags.has(VERBOSE.long) ? LOG_DEBUG : LOG_LEVEL_DEFAULT)
  const seconds = timeoutOf(given)
  const table = new FlowTable({ clock, log, counters: { ...NO_HOST_COUNTERS }, timeout: () => seconds })
  const terminated = new Promise<number>((resolve) => {
    runtime.onTerminate((signal) => {
      log.notice(`${signal} received, stopping`)
      resolve(0)
    })
  })
  try {
    await open({ runtime, log, table })
  } catch (error) {
    throw new CommandError(messageOf(error))
  }
  log.notice('start')
  return terminated
}

/** From UDP to TCP: each source has a connection. */
async function wrap({ runtime, log, table }: End, listen: string, connect: string): Promise<void> {
  const target = new Target(runtime, log, TCP, connect, () => {})
  await target.open()
  const accept = (flow: TcpConnection): TcpHandlers => {
    const splice = new Splice()
    const dial = target.dial({
      onOpen(connection) {
        connection.attach(splice)
        splice.join(connection, flow)
      },
      onFailed(error) {
        log.limited('dial', LOG_WARNING, () => `dial failed: ${error.message}`)
        flow.reset(error.message)
      },
    })
    splice.onOver = () => dial.cancel()
    return splice.ofFlow
  }
  const entrance = new UdpEntrance({ runtime, log, table, path: 'auto', accept, onChange() {} }, listen)
  await entrance.open()
}

/** From TCP to UDP: each connection has a socket. */
async function unwrap({ runtime, log, table }: End, listen: string, connect: string): Promise<void> {
  const exit = new UdpExit({ runtime, log, table, onChange() {} }, connect)
  await exit.open()
  const accept = (connection: TcpConnection): TcpHandlers | null => {
    const splice = new Splice()
    try {
      const dial = exit.dial({
        onOpen(flow) {
          flow.attach(splice.ofFlow)
          splice.join(connection, flow)
        },
        onFailed(error) {
          log.limited('dial', LOG_WARNING, () => `no socket for a flow: ${error.message}`)
          connection.reset()
        },
      })
      splice.onOver = () => dial.cancel()
    } catch (error) {
      log.limited('flows', LOG_WARNING, () => `connection refused: ${messageOf(error)}`)
      return null
    }
    return splice
  }
  const onError = (error: Error): void => log.limited('accept', LOG_WARNING, () => `tcp accept: ${error.message}`)
  for (const address of await resolveAll(runtime, 'listen', listen, 'bind')) {
    const listener = await runtime.listenTcp(address, TCP, accept, onError)
    log.notice(`tcp listen: ${formatAddress(listener.local)}`)
  }
}

const make = (from: string, to: string, notes: string, open: typeof wrap): Command => ({
  options: [listenOption(from), connectOption(to), TIMEOUT, VERBOSE],
  notes,
  run({ runtime }, given) {
    const listen = required(given, '--listen', 'bind')
    const connect = required(given, '--connect', 'connect')
    return runEnd(runtime, given, (end) => open(end, listen, connect))
  },
})

export const wrapCommand = make(
  'UDP',
  'TCP',
  `Beside a kcptun-libev client, whose server is a kcptun-wasm with udp_connect, or has udp-unwrap for its target:
  udp-wrap --listen 127.0.0.1:5353 --connect 127.0.0.1:8053`,
  wrap,
)
export const unwrapCommand = make(
  'TCP',
  'UDP',
  `The target of a kcptun-libev server, whose client is a kcptun-wasm with udp_listen, or has udp-wrap beside it:
  udp-unwrap --listen 127.0.0.1:5000 --connect 127.0.0.1:53`,
  unwrap,
)
