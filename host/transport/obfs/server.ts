/**
 * The server's way through an obfuscator (protocol.md 9): dpi/tcp-wnd listens with the cover of a web server, dpi/tcp just captures. Follows a new
 * configuration and looks names up again when nothing was heard for long.
 */

import type { Config } from '../../config/config.ts'
import type { Aead } from '../../crypto/aead.ts'
import type { Driver } from '../../driver/driver.ts'
import { coreConfig } from '../../engine/config-block.ts'
import { ConfigError, messageOf, quote } from '../../errors.ts'
import { syscallsOf } from '../../linux/syscalls.ts'
import type { Log } from '../../log/log.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import type { OperatingSystem, Runtime, TcpListener } from '../../runtime.ts'
import { type Names, NO_NAMES, resolveNames, StartError, sameMaybe } from '../resolver.ts'
import type { Way } from '../transport.ts'
import { CoverServer } from './cover-server.ts'
import { firewallNotice } from './firewall.ts'
import type { ObfsSocket } from './socket.ts'
import { captureInterface, obfsSystem, openSockets } from './sockets.ts'

/** protocol.md 9.2 */
const BACKLOG = 16
/** What the listening socket has already is set there (coverSocket), and connections inherit it. */
const COVER_TCP = { nodelay: true, keepalive: false }

export class ObfsServer implements Way {
  names: Names = NO_NAMES
  readonly peerFound = true
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #driver: Driver
  readonly #aead: Aead | undefined
  readonly #os: OperatingSystem
  readonly #cover: CoverServer
  #config: Config
  #socket: ObfsSocket | undefined
  #listener: TcpListener | undefined
  /** Where packets are captured. */
  #attached: SocketAddress | undefined
  #closed = false
  /** What changes sockets runs one after the other. */
  #queue: Promise<void> = Promise.resolve()
  #failing = false

  /** @throws StartError when the system has not what is needed */
  constructor(runtime: Runtime, config: Config, log: Log, driver: Driver, aead: Aead | undefined) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#driver = driver
    this.#aead = aead
    this.#os = obfsSystem(runtime, config)
    this.#cover = new CoverServer(
      {
        accept: (remote) => {
          let context = 0
          driver.run(() => {
            context = this.#socket?.accept(remote) ?? 0
          })
          return context
        },
        release: (context) => driver.run(() => this.#socket?.release(context)),
      },
      () => new Date(),
    )
  }

  async open(): Promise<{ readonly local: SocketAddress }> {
    const { names, failures } = await resolveNames(this.#runtime, this.#config, NO_NAMES)
    if (failures[0] !== undefined) throw failures[0]
    this.names = names
    const bind = bindOf(names)
    const isTcp = this.#config.obfs === 'dpi/tcp'
    if (isTcp && bind.port === 0) {
      throw new ConfigError('kcp_bind', quote(this.#config.kcp_bind ?? ''), 'obfs dpi/tcp needs a port here')
    }
    this.#driver.start(coreConfig(this.#config, this.#aead, bind.family))
    this.#socket = await openSockets(this.#os, this.#config, this.#driver, bind.family)
    try {
      await this.#bind(bind)
    } catch (error) {
      throw new StartError(`kcp_bind: cannot open ${formatAddress(bind)}: ${messageOf(error)}`)
    }
    if (isTcp) this.#log.notice(firewallNotice({ side: 'server', address: bind }))
    return this.#socket
  }

  close(): void {
    this.#closed = true
    this.#listener?.close()
    this.#cover.resetAll()
  }

  onPeerFound(): void {}

  onUdpError(): void {}

  readonly onResolve = (): void => void this.#look()

  onObfsEnded(context: number): void {
    this.#cover.end(context)
  }

  /** It has no contexts: clients with a cover dial again when theirs is gone. */
  onEngineReplaced(): void {
    this.#socket?.engineReplaced()
    this.#cover.resetAll()
    if (this.#attached === undefined) return
    try {
      this.#attach(this.#attached)
    } catch (error) {
      this.#complain(error)
    }
  }

  reload(config: Config): Promise<void> {
    this.#config = config
    return this.#look()
  }

  /** Looks names up again, and opens what they have moved. Never rejects. */
  #look(): Promise<void> {
    this.#queue = this.#queue.then(() => this.#follow()).catch((error) => this.#complain(error))
    return this.#queue
  }

  #complain(error: unknown): void {
    if (!this.#failing) this.#log.warning(`addresses are looked up again later: ${messageOf(error)}`)
    this.#failing = true
  }

  async #follow(): Promise<void> {
    const { names, failures } = await resolveNames(this.#runtime, this.#config, this.names)
    const socket = this.#socket
    if (this.#closed || socket === undefined) return
    const before = this.names
    this.names = names
    if (names.target !== undefined && !sameMaybe(before.target, names.target)) {
      this.#log.notice(`connect: now ${formatAddress(names.target)}`)
    }
    const bind = bindOf(names)
    if (bind.family !== bindOf(before).family) {
      this.names = { ...names, bind: before.bind }
      throw new StartError(`kcp_bind: a change to IPv${bind.family} needs a restart`)
    }
    this.#driver.reconfigure(coreConfig(this.#config, this.#aead, bind.family))
    if (sameMaybe(before.bind, bind)) this.#attach(socket.local)
    else await this.#bind(bind)
    if (failures[0] !== undefined) throw failures[0]
    this.#failing = false
  }

  /** Listens and captures at an address. */
  async #bind(bind: SocketAddress): Promise<void> {
    if (this.#config.obfs === 'dpi/tcp') {
      this.#attach(bind)
      this.#log.notice(`obfs bind: ${formatAddress(bind)}`)
      return
    }
    const syscalls = syscallsOf(this.#os)
    const fd = syscalls.coverSocket(bind.family, { reuseport: this.#config.tcp.reuseport })
    let local: SocketAddress
    try {
      syscalls.bind(fd, bind, formatAddress(bind))
      syscalls.listen(fd, BACKLOG)
      local = syscalls.localAddress(fd)
      this.#attach(local)
    } catch (error) {
      syscalls.close(fd)
      throw error
    }
    const listener = await this.#os.adoptListener(fd, COVER_TCP, this.#cover.accept, (error) =>
      this.#driver.complaints.acceptError(error),
    )
    this.#listener?.close()
    this.#listener = listener
    if (this.#closed) listener.close()
    this.#log.notice(`obfs listen: ${formatAddress(local)}`)
  }

  #attach(local: SocketAddress): void {
    this.#attached = local
    const ifindex = captureInterface(this.#os, this.#config, local, this.#log)
    this.#driver.run(() => this.#socket?.attach(local, ifindex))
  }
}

function bindOf(names: Names): SocketAddress {
  if (names.bind === undefined) throw new StartError('kcp_bind: missing')
  return names.bind
}
