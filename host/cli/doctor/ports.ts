/** Checks of local ports and of a server's target. */

import { codeOf, messageOf } from '../../errors.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import type { TcpOptions } from '../../runtime.ts'
import { resolveKey, wildcard } from '../../transport/resolver.ts'
import { firstAnswer, Pinger } from './pings.ts'
import { Probe } from './probe.ts'
import type { Case } from './reachability.ts'
import { round } from './reachability.ts'

/** Timeout of the connection to the target, ms. */
const DIAL_WAIT_MS = 5000
const TCP_OPTIONS: TcpOptions = { nodelay: true, keepalive: false }

/** Mode and health of the program that answers on `http_listen`; undefined if none answers. */
async function running({ config, runtime }: Case): Promise<{ mode: string; health: string } | undefined> {
  if (config.http_listen === undefined) return undefined
  try {
    const address = await resolveKey(runtime, 'http_listen', config.http_listen, 'bind')
    const url = `http://${formatAddress(onLoopback(address))}/stats.json?sessions=none`
    const headers = config.http_token === undefined ? {} : { Authorization: `Bearer ${config.http_token}` }
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(2000) })
    const document: unknown = await answer.json()
    if (typeof document !== 'object' || document === null) return undefined
    const { program, health } = document as { program?: { mode?: unknown }; health?: unknown }
    if (typeof program?.mode !== 'string' || typeof health !== 'string') return undefined
    return { mode: program.mode, health }
  } catch {
    return undefined
  }
}

/** The address at which a local socket can be reached: loopback in place of a wildcard. */
export const onLoopback = (address: SocketAddress): SocketAddress => {
  if (address.address === '0.0.0.0') return { ...address, address: '127.0.0.1' }
  return address.address === '::' ? { ...address, address: '::1' } : address
}

/** Reports the TCP port of a client. */
export async function reportListen(examined: Case): Promise<void> {
  const { config, runtime, report } = examined
  if (config.listen === undefined) return
  let address: SocketAddress
  try {
    address = await resolveKey(runtime, 'listen', config.listen, 'bind')
  } catch (error) {
    report.add('listen', 'failure', messageOf(error))
    return
  }
  const where = formatAddress(address)
  try {
    const listener = await runtime.listenTcp(
      address,
      TCP_OPTIONS,
      () => null,
      () => {},
    )
    listener.close()
    report.add('listen', 'ok', `${where} is free: no client runs on it`, { values: { free: true } })
  } catch (error) {
    if (codeOf(error) !== 'EADDRINUSE') {
      report.add('listen', 'failure', `listen: cannot listen on ${where}: ${messageOf(error)}`)
      return
    }
    const program = await running(examined)
    const values = { free: false, running: program?.mode ?? null }
    if (program === undefined) {
      const text = `${where} is in use: by the running client, which is fine, or by another program`
      const remedies = [`if it is another program: ss -ltnp 'sport = :${address.port}'`]
      report.add('listen', 'note', text, { values, remedies })
    } else report.add('listen', 'ok', `${where} is in use, a ${program.mode} runs here: ${program.health}`, { values })
  }
}

/** Reports the UDP port of a server or rendezvous server. */
export async function reportBind({ runtime, report, addresses, own, progress }: Case): Promise<void> {
  const { bind } = addresses
  if (bind === undefined || bind.port === 0) return
  const where = formatAddress(bind)
  const local = onLoopback(bind)
  progress(`pinging ${formatAddress(local)}`)
  try {
    const probe = await Probe.open(runtime, { bind: wildcard(local.family), connect: local }, [own])
    const pinger = new Pinger(probe)
    probe.onArrival = (arrival) => {
      pinger.take(arrival)
    }
    const answer = await firstAnswer(probe, pinger, local)
    probe.close()
    if (answer !== undefined) {
      const text = `a program runs on ${where} and answers to this key, after ${round(answer)} ms`
      report.add('bind', 'ok', text, { values: { free: false, answers: true } })
      return
    }
    const socket = await runtime.openUdp({ bind }, { onDatagram() {}, onBatchEnd() {}, onWritable() {}, onError() {} })
    socket.close()
    report.add('bind', 'note', `${where} is free: nothing runs on it`, { values: { free: true, answers: false } })
  } catch (error) {
    const inUse = codeOf(error) === 'EADDRINUSE'
    const text = inUse
      ? `${where} is in use by a program that does not answer to this key: another configuration, or another program`
      : `kcp_bind: cannot open ${where}: ${messageOf(error)}`
    const remedies = inUse
      ? [
          `who it is: ss -lunp 'sport = :${bind.port}'`,
          'a server that was started before the key was changed needs a restart',
        ]
      : codeOf(error) === 'EACCES'
        ? ['ports below 1024 need root or CAP_NET_BIND_SERVICE']
        : ['kcp_bind must be an address of this machine']
    report.add('bind', 'failure', text, { values: { free: false, answers: false }, remedies })
  }
}

/** Reports whether the target of a server accepts connections. */
export async function reportTargetHere({ runtime, report, addresses, progress }: Case): Promise<void> {
  const { target } = addresses
  if (target === undefined) return
  const where = formatAddress(target)
  progress(`connecting to ${where}`)
  const begin = runtime.clock.monotonic()
  const failure = await new Promise<string | undefined>((resolve) => {
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
        onClose: (error) => finish(error === undefined ? 'it hung up' : messageOf(error)),
      },
      () => {
        connection.close()
        finish(undefined)
      },
    )
  })
  if (failure === undefined) {
    const values = { connect_ms: round(runtime.clock.monotonic() - begin) }
    report.add('target', 'ok', `${where} accepts connections, after ${values.connect_ms} ms`, { values })
    return
  }
  report.add('target', 'failure', `the target ${where} does not accept a connection: ${failure}`, {
    remedies: ['start the program that the tunnel leads to, or correct connect'],
  })
}
