/**
 * The tunnels of a file with `tunnels`: opens them all or none, serves their figures together, and applies a reload to
 * those whose entry changed. A file without `tunnels` needs nothing of it: cli/main.ts starts its endpoint itself.
 */

import { type Config, type ConfigFile, MODE_CLIENT } from '../config/config.ts'
import { keepFixed } from '../config/diff.ts'
import { monitoringWarnings } from '../config/rules.ts'
import { atEntry, PROCESS_KEYS, shareAddress } from '../config/tunnels.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import { ConfigError, messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Monitoring } from '../monitoring/monitoring.ts'
import type { ReloadRequest } from '../monitoring/source.ts'
import type { Runtime } from '../runtime.ts'
import { type Identity, rightsWarnings } from '../service/identity.ts'
import { Retry } from '../transport/retry.ts'
import { AllTunnels } from './all-tunnels.ts'
import { checkEntry } from './entry.ts'
import { Tunnel, type TunnelHost } from './tunnel.ts'

/** Keys of the process that are only read at its start. */
const FIXED = ['http_listen', 'user', 'native'] as const

/** What a reload is going to do. */
interface Plan {
  /** All tunnels, in the order of the file. */
  readonly after: readonly Tunnel[]
  readonly opening: readonly Tunnel[]
  readonly changing: readonly { readonly tunnel: Tunnel; readonly config: Config }[]
  readonly closing: readonly Tunnel[]
}

/** One step of a reload. */
interface Step {
  readonly tunnel: Tunnel
  /** What it is to become. */
  readonly config: Config
  run(): Promise<void>
}

export class Tunnels {
  /** Never resolves: a tunnel that fails is started again. */
  readonly failed: Promise<Error> = new Promise(() => {})
  /** Called by POST /reload. */
  onReloadRequest: ReloadRequest | undefined
  /** Called when `status` changes. */
  onStatus: (status: string) => void = () => {}
  readonly #host: TunnelHost
  readonly #atStart: Config
  #config: Config
  #list: readonly Tunnel[]
  readonly #monitor: AllTunnels
  readonly #http: Retry
  #monitoring: Monitoring | undefined
  #status = ''
  #closed = false

  constructor(runtime: Runtime, { config, tunnels = [] }: ConfigFile, log: Log, crypto: RuntimeCrypto) {
    this.#atStart = config
    this.#config = config
    this.#host = {
      runtime,
      crypto,
      log,
      records: config.http_listen !== undefined,
      onStatus: () => this.#tellStatus(),
    }
    this.#list = tunnels.map((entry) => new Tunnel(this.#host, this.#own(entry)))
    this.#monitor = new AllTunnels(runtime, () => this.#list)
    this.#http = new Retry(
      runtime.clock,
      log,
      () => this.#openMonitoring(),
      () => this.#tellStatus(),
    )
  }

  /** What is retried, for people, by tunnel; empty: nothing. */
  get status(): string {
    const parts = this.#list.map(({ name, status }) => (status === '' ? '' : `${name}: ${status}`))
    return [...parts, this.#http.failure ?? ''].filter((text) => text !== '').join('; ')
  }

  /** What is in force. */
  get file(): ConfigFile {
    const fixed = Object.fromEntries(FIXED.map((key) => [key, this.#atStart[key]]))
    return { config: { ...this.#config, ...fixed }, tunnels: this.#list.map(({ config }) => config) }
  }

  /**
   * Opens everything that may require privileges, of all tunnels, and the monitoring server.
   * @throws StartError of the first one in the file that fails; all are closed then
   */
  async open(): Promise<void> {
    const isClient = ({ config }: Tunnel): boolean => (config.mode & MODE_CLIENT) !== 0
    // clients last: their server may be one of the others
    for (const clients of [false, true]) {
      await this.#all(this.#list.filter((tunnel) => isClient(tunnel) === clients).map((tunnel) => tunnel.open()))
    }
    await this.#all([this.#http.start()])
  }

  /** Starts the workers of those that have some. @throws StartError; all are closed then */
  async start(): Promise<void> {
    await this.#all(this.#list.map((tunnel) => tunnel.start()))
    this.#status = this.status
  }

  /** Warnings about sockets that the user to run as may not open again. */
  rightsWarnings(identity: Identity): string[] {
    const { os } = this.#host.runtime
    const { failure = '' } = this.#http
    const own = { ...this.#config, listen: undefined, kcp_bind: undefined, netdev: undefined, fwmark: 0 }
    const texts = rightsWarnings(os, identity, own, failure)
    const others = this.#list.flatMap(({ name, config, status }) =>
      rightsWarnings(os, identity, config, status).map((text) => `[${name}] ${text}`),
    )
    return [...texts, ...others]
  }

  /** Passes the level of the log to all workers. */
  sendLevel(): void {
    for (const tunnel of this.#list) tunnel.sendLevel()
  }

  /**
   * Applies a file: opens the tunnels that are new in it, changes those whose entry changed, closes those that it does
   * not have, and leaves the others alone. If one step fails, what was done is undone.
   * @throws ConfigError, StartError naming the tunnel
   */
  async reloadAll({ config, tunnels }: ConfigFile): Promise<void> {
    if (tunnels === undefined) throw new ConfigError('tunnels', '', 'was there at the start: restart the program')
    for (const [index, entry] of tunnels.entries()) atEntry(index, () => checkEntry(entry))
    const plan = this.#plan(tunnels)
    const undo: (() => Promise<void>)[] = []
    try {
      await this.#apply(plan, undo)
    } catch (error) {
      for (const step of undo.reverse()) await step().catch((reason) => this.#host.log.error(messageOf(reason)))
      throw error
    }
    this.#list = plan.after
    for (const tunnel of plan.closing) {
      await this.#yield()
      await tunnel.close()
    }
    for (const key of FIXED) {
      if (config[key] !== this.#atStart[key])
        this.#host.log.warning(`config key ${key}: the change needs a restart and is ignored`)
    }
    const known = monitoringWarnings(this.#config)
    for (const text of monitoringWarnings(config)) if (!known.includes(text)) this.#host.log.warning(text)
    this.#config = config
    this.#monitoring?.reload(config)
    this.#tellStatus()
  }

  /** Ends all tunnels, in the order of the file; resolves when their workers are gone. */
  async close(): Promise<void> {
    this.#closed = true
    this.#http.close()
    this.#monitoring?.close()
    await Promise.all(this.#list.map((tunnel) => tunnel.close()))
  }

  /** Lets the other tunnels work: opening one takes some milliseconds. */
  #yield(): Promise<void> {
    return new Promise((resolve) => this.#host.runtime.clock.defer(resolve))
  }

  async #openMonitoring(): Promise<void> {
    const { runtime, log } = this.#host
    if (this.#config.http_listen === undefined) return
    const { openMonitoring } = await import('../monitoring/monitoring.ts')
    const monitoring = await openMonitoring(runtime, this.#config, log, this.#monitor, {
      tunnels: () => this.#list,
      reload: (by) => this.onReloadRequest?.(by),
    })
    if (this.#closed) monitoring?.close()
    else this.#monitoring = monitoring
  }

  /** The configuration of an entry without what the process does: a change of it is none of the tunnel. */
  #own(entry: Config): Config {
    const start = Object.entries(this.#atStart).filter(([key]) => PROCESS_KEYS.has(key))
    return { ...entry, ...Object.fromEntries(start), http_listen: undefined, http_token: undefined, user: undefined }
  }

  async #all(actions: readonly Promise<void>[]): Promise<void> {
    const results = await Promise.allSettled(actions)
    const failed = results.find((result) => result.status === 'rejected')
    if (failed === undefined) return
    await this.close()
    throw failed.reason
  }

  #plan(tunnels: readonly Config[]): Plan {
    const opening: Tunnel[] = []
    const changing: Plan['changing'][number][] = []
    const after = tunnels.map((entry) => {
      const config = this.#own(entry)
      const tunnel = this.#list.find(({ name }) => name === config.name)
      if (tunnel !== undefined && isSame(tunnel.config, config)) return tunnel
      if (tunnel !== undefined && tunnel.config.mode === config.mode) {
        const { kept } = keepFixed(tunnel.config, config)
        if (kept.length === 0) {
          changing.push({ tunnel, config })
          return tunnel
        }
        tunnel.log.notice(`${kept.join(', ')} changed: the tunnel is started anew, its sessions end`)
      }
      const fresh = new Tunnel(this.#host, config)
      opening.push(fresh)
      return fresh
    })
    return { after, opening, changing, closing: this.#list.filter((tunnel) => !after.includes(tunnel)) }
  }

  /** @param undo gets what takes back each step */
  async #apply({ opening, changing, closing }: Plan, undo: (() => Promise<void>)[]): Promise<void> {
    let steps: Step[] = [
      ...changing.map(({ tunnel, config }) => ({ tunnel, config, run: () => this.#change(tunnel, config, undo) })),
      ...opening.map((tunnel) => ({ tunnel, config: tunnel.config, run: () => this.#openNew(tunnel, undo) })),
    ]
    for (let reason: unknown; ; ) {
      // what needs an address that another tunnel still has
      const waiting: Step[] = []
      for (const step of steps) {
        await this.#yield()
        await step.run().catch((error) => {
          const isOurs = this.#list.some((tunnel) => tunnel.isOpen && shareAddress(step.config, tunnel.config))
          if (!isOurs || !/EADDRINUSE/.test(messageOf(error))) throw error
          waiting.push(step)
          reason = error
        })
      }
      if (waiting.length === 0) return
      if (waiting.length < steps.length) {
        steps = waiting
        continue
      }
      // sessions of these end, so it is the last that is tried
      const isInTheWay = (tunnel: Tunnel): boolean =>
        tunnel.isOpen && waiting.some((step) => step.tunnel !== tunnel && shareAddress(step.config, tunnel.config))
      const leaving = [...closing, ...changing.map(({ tunnel }) => tunnel)].filter(isInTheWay)
      if (leaving.length === 0) throw reason
      for (const tunnel of leaving) {
        undo.push(() => tunnel.reopen())
        await tunnel.close()
      }
      steps = waiting.map((step) =>
        leaving.includes(step.tunnel) ? { ...step, run: () => this.#startAnew(step, undo) } : step,
      )
    }
  }

  /** Starts a closed tunnel with another configuration. */
  async #startAnew({ tunnel, config }: Step, undo: (() => Promise<void>)[]): Promise<void> {
    const before = tunnel.config
    await tunnel.openAs(config)
    undo.push(async () => {
      await tunnel.close()
      tunnel.config = before
    })
  }

  async #change(tunnel: Tunnel, config: Config, undo: (() => Promise<void>)[]): Promise<void> {
    const before = tunnel.config
    await tunnel.reload(config)
    undo.push(() => tunnel.reload(before))
  }

  async #openNew(tunnel: Tunnel, undo: (() => Promise<void>)[]): Promise<void> {
    await tunnel.open()
    undo.push(() => tunnel.close())
    await tunnel.start()
  }

  #tellStatus(): void {
    const { status } = this
    if (this.#closed || status === this.#status) return
    this.#status = status
    this.onStatus(status)
  }
}

/** Whether two configurations say the same. */
const isSame = (a: Config, b: Config): boolean => JSON.stringify(a) === JSON.stringify(b)

/**
 * Opens the tunnels of a file and the monitoring server.
 * @throws ConfigError, or StartError naming the tunnel; everything is closed then
 */
export async function openTunnels(
  runtime: Runtime,
  file: ConfigFile,
  log: Log,
  crypto: RuntimeCrypto,
): Promise<Tunnels> {
  for (const [index, entry] of (file.tunnels ?? []).entries()) atEntry(index, () => checkEntry(entry))
  for (const text of monitoringWarnings(file.config)) log.warning(text)
  const tunnels = new Tunnels(runtime, file, log, crypto)
  await tunnels.open()
  return tunnels
}
