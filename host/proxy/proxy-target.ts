/** A server that is a proxy itself: the client of each session names its target (`connect`: socks5 or http). */

import { isProxy, type ProxyKind } from '../config/proxy-rules.ts'
import type { HostCounters } from '../driver/diagnostics.ts'
import type { Dial, Dialling } from '../driver/stream.ts'
import { codeOf, messageOf } from '../errors.ts'
import { LOG_DEBUG, LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpOptions, Timer } from '../runtime.ts'
import { HappyEyeballs, interleaved } from '../transport/happy-eyeballs.ts'
import { ProxyAccess } from './access.ts'
import { HttpConnect } from './http-connect.ts'
import { ProxyConnection, type ProxyConnectionHost, TargetError } from './proxy-connection.ts'
import type { Protocol, Refusal } from './request.ts'
import { Socks5 } from './socks5.ts'

const REFUSALS: Readonly<Record<string, Refusal>> = {
  ECONNREFUSED: 'refused',
  ENETUNREACH: 'network unreachable',
  ENETDOWN: 'network unreachable',
  EHOSTUNREACH: 'host unreachable',
  EHOSTDOWN: 'host unreachable',
  ETIMEDOUT: 'timeout',
  EACCES: 'denied',
  EPERM: 'denied',
}

/** The parts of a configuration that it uses. */
export interface ProxyConfig {
  readonly connect: string | undefined
  readonly proxy_rules: readonly string[]
  readonly proxy_users: Readonly<Record<string, string>>
}

export interface ProxyTargetHost {
  readonly runtime: Runtime
  readonly log: Log
  readonly tcp: TcpOptions
  readonly counters: HostCounters
}

export class ProxyTarget {
  readonly failure = undefined
  readonly #host: ProxyTargetHost
  readonly #kind: ProxyKind
  readonly #access: ProxyAccess

  /** @throws ConfigError for an invalid rule */
  constructor(host: ProxyTargetHost, { connect, proxy_rules, proxy_users }: ProxyConfig) {
    if (!isProxy(connect)) throw new TypeError('connect is not a proxy')
    this.#host = host
    this.#kind = connect
    this.#access = new ProxyAccess(proxy_rules, proxy_users)
  }

  async open(): Promise<void> {}

  close(): void {}

  /**
   * @param peer of the session, for the log
   * @param user the name of its key, if there are several
   */
  dial(dialling: Dialling, peer: () => SocketAddress | undefined, user?: () => string | undefined): Dial {
    const { clock } = this.#host.runtime
    const isUser = this.#access.hasUsers ? this.#access.isUser.bind(this.#access) : undefined
    const protocol: Protocol = this.#kind === 'socks5' ? new Socks5(isUser) : new HttpConnect(isUser)
    const timer = clock.defer(() => dialling.onOpen(new ProxyConnection(this.#connectionHost(peer, user), protocol)))
    return { cancel: () => clock.clearDeferred(timer) }
  }

  #connectionHost(
    peer: () => SocketAddress | undefined,
    user: () => string | undefined = () => undefined,
  ): ProxyConnectionHost {
    const { runtime, log } = this.#host
    const who = (): string => {
      const address = peer()
      const name = user()
      const place = address === undefined ? 'a client' : formatAddress(address)
      return name === undefined ? place : `${place} (${name})`
    }
    return {
      clock: runtime.clock,
      dial: (host, port, onOpen, onFailed) => {
        if (log.at(LOG_DEBUG)) log.debug(`${this.#kind}: ${who()} asks for ${shown(host, port)}`)
        return this.#connect(host, port, onOpen, onFailed)
      },
      onRefused: (why, text) => this.#refused(why, text, who),
    }
  }

  #refused(why: Refusal, text: string, who: () => string): void {
    const { counters, log } = this.#host
    if (why === 'denied') counters.proxy_denied++
    else if (why === 'unauthorized') counters.proxy_auth_failures++
    else if (why === 'malformed' || why === 'unsupported') counters.proxy_bad_requests++
    else counters.tcp_dial_failures++
    log.limited(`proxy ${why}`, LOG_WARNING, () => `${this.#kind}: request of ${who()} refused: ${text}`)
  }

  #connect(
    host: string,
    port: number,
    onOpen: (connection: TcpConnection) => void,
    onFailed: (error: TargetError) => void,
  ): Dial {
    const { runtime, tcp } = this.#host
    const place = shown(host, port)
    const fail = (error: unknown): void => {
      const why = REFUSALS[codeOf(error)] ?? 'failed'
      onFailed(error instanceof TargetError ? error : new TargetError(why, messageOf(error)))
    }
    const attempts = new HappyEyeballs(runtime, tcp, { onOpen, onFailed: fail }, { onConnected() {} })
    let isOver = false
    let timer: Timer | undefined
    void this.#addresses(host, port).then(
      (addresses) => {
        if (!isOver) attempts.start(addresses)
      },
      (error) => {
        // a refusal by name is known at once, and nothing may be called inside this call
        timer = runtime.clock.defer(() => {
          if (!isOver) fail(error instanceof TargetError ? error : unresolved(place, error))
        })
      },
    )
    return {
      cancel() {
        isOver = true
        runtime.clock.clearDeferred(timer)
        attempts.cancel()
      },
    }
  }

  /** The addresses of a host that may be connected to. @throws TargetError if there are none, or the lookup's error */
  async #addresses(host: string, port: number): Promise<SocketAddress[]> {
    const place = shown(host, port)
    const refusal = this.#access.refusalOfName(host, port)
    if (refusal !== undefined) throw new TargetError('denied', `${place} is denied (${refusal})`)
    const found = await this.#host.runtime.resolve(host)
    let why: string | undefined
    const permitted = found.filter(({ address }) => {
      const refused = this.#access.refusal(host, address, port)
      if (refused !== undefined) why ??= `${place}${address === host ? '' : ` at ${address}`} is denied (${refused})`
      return refused === undefined
    })
    if (permitted.length === 0) throw new TargetError('denied', why ?? `${place} has no address`)
    return interleaved(permitted.map((address) => ({ ...address, port })))
  }
}

const shown = (host: string, port: number): string => `${host.includes(':') ? `[${host}]` : host}:${port}`

const unresolved = (place: string, error: unknown): TargetError =>
  new TargetError('host unreachable', `cannot resolve ${place}: ${messageOf(error)}`)
