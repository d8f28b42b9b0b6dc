/** Checks of local ports and of a server's target. */

import type { Config } from '../../config/config.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { codeOf, messageOf } from '../../errors.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import { isUnix, parseUnix } from '../../net/unix-path.ts'
import type { Runtime, TcpOptions } from '../../runtime.ts'
import { interleaved } from '../../transport/happy-eyeballs.ts'
import { resolveAll, resolveKey } from '../../transport/resolver.ts'
import { UnixTarget } from '../../transport/unix-target.ts'
import { firstAnswer, Pinger } from './pings.ts'
import { Probe } from './probe.ts'
import type { Case } from './reachability.ts'
import { round } from './reachability.ts'

/** Timeout of the connection to the target, ms. */
const DIAL_WAIT_MS = 5000
/** Timeout of the monitoring server, ms. */
const HTTP_WAIT_MS = 2000
const TCP_OPTIONS: TcpOptions = { nodelay: true, keepalive: false }

/** The address at which a local socket can be reached: loopback in place of a wildcard. */
export const onLoopback = (address: SocketAddress): SocketAddress => {
  if (address.address === '0.0.0.0') return { ...address, address: '127.0.0.1' }
  return address.address === '::' ? { ...address, address: '::1' } : address
}

/**
 * Asks the monitoring server of the program that runs with a configuration, with the token of that configuration.
 * @param path with query
 * @returns the answer, whatever its status; undefined without `http_listen`
 * @throws Error naming the address and the reason if there is no answer within `waitMs`
 */
export async function askMonitoring(
  runtime: Runtime,
  { http_listen, http_token, name }: Config,
  path: string,
  waitMs: number,
): Promise<Response | undefined> {
  if (http_listen === undefined) return undefined
  const address = await resolveKey(runtime, 'http_listen', http_listen, 'bind')
  const tunnel = name === undefined ? '' : `${path.includes('?') ? '&' : '?'}tunnel=${name}`
  const url = `http://${formatAddress(onLoopback(address))}${path}${tunnel}`
  const headers = http_token === undefined ? {} : { Authorization: `Bearer ${http_token}` }
  return fetch(url, { headers, signal: AbortSignal.timeout(waitMs) }).catch((error) => {
    throw new Error(`${url}: ${messageOf(error)}`)
  })
}

/** Mode and health of the program that answers on `http_listen`; undefined if none answers. */
async function running({ config, runtime }: Case): Promise<{ mode: string; health: string } | undefined> {
  try {
    const answer = await askMonitoring(runtime, config, '/stats.json?sessions=none', HTTP_WAIT_MS)
    const document: unknown = await answer?.json()
    if (typeof document !== 'object' || document === null) return undefined
    const { program, health } = document as { program?: { mode?: unknown }; health?: unknown }
    if (typeof program?.mode !== 'string' || typeof health !== 'string') return undefined
    return { mode: program.mode, health }
  } catch {
    return undefined
  }
}

/** Opens the port of a client for a moment. @throws SystemError */
async function tryListen(runtime: Runtime, address: SocketAddress, isUdp: boolean): Promise<void> {
  const nothing = (): void => {}
  const handlers = { onDatagram: nothing, onBatchEnd: nothing, onWritable: nothing, onError: nothing }
  const socket = isUdp
    ? await runtime.openUdp({ bind: address }, handlers)
    : await runtime.listenTcp(address, TCP_OPTIONS, () => null, nothing)
  socket.close()
}

/** Reports the port of a client for applications. */
export async function reportListen(examined: Case): Promise<void> {
  const { config, runtime, report } = examined
  const { listen, udp_listen } = config
  const isUdp = listen === undefined
  const text = listen ?? udp_listen
  if (text === undefined) return
  if (isUnix(text)) return reportListenUnix(examined, text)
  let address: SocketAddress
  try {
    address = await resolveKey(runtime, isUdp ? 'udp_listen' : 'listen', text, 'bind')
  } catch (error) {
    report.add('listen', 'failure', messageOf(error))
    return
  }
  const where = formatAddress(address)
  try {
    await tryListen(runtime, address, isUdp)
    report.add('listen', 'ok', `${where} is free: no client is running`, { values: { free: true } })
  } catch (error) {
    if (codeOf(error) !== 'EADDRINUSE') {
      report.add('listen', 'failure', `cannot listen on ${where}: ${messageOf(error)}`)
      return
    }
    const program = await running(examined)
    const values = { free: false, running: program?.mode ?? null }
    if (program === undefined) {
      const text = `${where} is in use, by a running client or another program`
      const remedies = [`to identify the program: ss -l${isUdp ? 'u' : 't'}np 'sport = :${address.port}'`]
      report.add('listen', 'note', text, { values, remedies })
    } else report.add('listen', 'ok', `${where} is in use by a running ${program.mode}: ${program.health}`, { values })
  }
}

/** In /proc/net/unix: the flag of a listening socket. */
const LISTENS = 0x10000

/** Whether a program listens on a Unix socket, without connecting to it; undefined: that cannot be known. */
export function listensUnix({ os }: Runtime, path: string): boolean | undefined {
  try {
    const lines = os?.readText('/proc/net/unix').split('\n')
    return lines?.some((line) => {
      const [, , , flags = '', , , , ...words] = line.split(/\s+/)
      return words.join(' ') === path && (Number.parseInt(flags, 16) & LISTENS) !== 0
    })
  } catch {
    // not Linux
    return undefined
  }
}

/** Reports the Unix socket of a client. */
async function reportListenUnix(examined: Case, listen: string): Promise<void> {
  const { runtime, report } = examined
  const isUsed = listensUnix(runtime, parseUnix('listen', listen))
  if (isUsed === undefined) report.add('listen', 'note', `${listen} is not tested: that requires Linux`)
  else if (!isUsed) report.add('listen', 'ok', `${listen} is free: no client is running`, { values: { free: true } })
  else {
    const program = await running(examined)
    const values = { free: false, running: program?.mode ?? null }
    const who =
      program === undefined ? 'running client or another program' : `running ${program.mode}: ${program.health}`
    report.add('listen', program === undefined ? 'note' : 'ok', `${listen} is in use, by a ${who}`, { values })
  }
}

/** Reports the UDP port of a server or rendezvous server, at each of its addresses. */
export async function reportBind(examined: Case): Promise<void> {
  for (const bind of examined.addresses.binds) if (bind.port !== 0) await reportBindAt(examined, bind)
}

async function reportBindAt(
  { runtime, config, report, addresses, own, progress }: Case,
  bind: SocketAddress,
): Promise<void> {
  const where = formatAddress(bind)
  const local = onLoopback(bind)
  progress(`pinging ${formatAddress(local)}`)
  try {
    const probe = await Probe.open(runtime, config, { bind: { ...local, port: 0 }, connect: local }, [own])
    const pinger = new Pinger(probe)
    probe.onAnswer = (answer) => void pinger.take(answer)
    const answer = await firstAnswer(probe, pinger, local)
    probe.close()
    if (answer !== undefined) {
      const text = `a program on ${where} answers to this key after ${round(answer)} ms`
      report.add('bind', 'ok', text, { values: { free: false, answers: true } })
      return
    }
    const socket = await runtime.openUdp({ bind }, { onDatagram() {}, onBatchEnd() {}, onWritable() {}, onError() {} })
    socket.close()
    report.add('bind', 'note', `${where} is free: no server is running`, { values: { free: true, answers: false } })
  } catch (error) {
    if (codeOf(error) === 'EADDRNOTAVAIL' && addresses.binds.length > 1) {
      report.add('bind', 'note', `${where} is not an address of this machine: kcp_bind has others`)
      return
    }
    const inUse = codeOf(error) === 'EADDRINUSE'
    const text = inUse
      ? `${where} is in use by a program that does not answer to this key`
      : `cannot bind to ${where}: ${messageOf(error)}`
    const remedies = inUse
      ? [
          `to identify the program: ss -lunp 'sport = :${bind.port}'`,
          'if it is a server that was started with another key or method: restart it',
        ]
      : codeOf(error) === 'EACCES'
        ? ['ports below 1024 require root or CAP_NET_BIND_SERVICE']
        : ['set kcp_bind to an address of this machine']
    report.add('bind', 'failure', text, { values: { free: false, answers: false }, remedies })
  }
}

/** Reports whether the target of a server accepts connections at one of its addresses. */
export async function reportTargetHere({ runtime, config, report, progress }: Case): Promise<void> {
  if (isProxy(config.connect)) {
    report.add('target', 'ok', `${config.connect} is served by this program: clients name their targets`)
    return
  }
  if (isUnix(config.connect ?? '')) {
    const error = await tryUnix(runtime, parseUnix('connect', config.connect ?? ''))
    if (error === undefined) report.add('target', 'ok', `${config.connect} accepted a connection`)
    else report.add('target', 'failure', messageOf(error), { remedies: ['start the target, or correct connect'] })
    return
  }
  // a name without address is reported with the others
  const targets = await resolveAll(runtime, 'connect', config.connect ?? '', 'connect').catch(() => [])
  const failures: string[] = []
  for (const target of interleaved(targets)) {
    const where = formatAddress(target)
    progress(`connecting to ${where}`)
    const begin = runtime.clock.monotonic()
    const failure = await tryTarget(runtime, target)
    if (failure === undefined) {
      const values = { connect_ms: round(runtime.clock.monotonic() - begin) }
      report.add('target', 'ok', `${where} accepted a connection after ${values.connect_ms} ms`, { values })
      return
    }
    failures.push(`${where}: ${failure}`)
  }
  if (failures.length === 0) return
  report.add('target', 'failure', `cannot connect to the target ${failures.join('; ')}`, {
    remedies: ['start the target, or correct connect'],
  })
}

/** @returns why no connection could be established; undefined if one was */
function tryTarget(runtime: Runtime, target: SocketAddress): Promise<string | undefined> {
  return new Promise((resolve) => {
    const finish = (why: string | undefined): void => {
      clearTimeout(timer)
      resolve(why)
    }
    const timer = setTimeout(() => finish(`no answer within ${DIAL_WAIT_MS / 1000} s`), DIAL_WAIT_MS)
    const connection = runtime.dialTcp(
      target,
      TCP_OPTIONS,
      {
        onData() {},
        onEnd() {},
        onDrain() {},
        onClose: (error) => finish(error === undefined ? 'connection closed' : messageOf(error)),
      },
      () => {
        connection.close()
        finish(undefined)
      },
    )
  })
}

/** @returns why a Unix socket does not accept a connection; undefined if it does */
async function tryUnix(runtime: Runtime, path: string): Promise<Error | undefined> {
  const target = new UnixTarget(runtime, path)
  await target.open()
  return new Promise((resolve) => {
    target.dial({
      onOpen(connection) {
        connection.close()
        resolve(undefined)
      },
      onFailed: resolve,
    })
  })
}
