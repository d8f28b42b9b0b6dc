/** The whole program for one configuration, in the process of an application. */

import type { Config } from '../config/config.ts'
import { startFileWarnings, startKeyWarnings } from '../config/lint.ts'
import { parseConfig } from '../config/load.ts'
import { modeName } from '../config/rules.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import { ConfigError, messageOf, StartError } from '../errors.ts'
import { formatAddress } from '../net/address.ts'
import { startService } from '../servers/start.ts'
import { checkAddresses } from '../transport/resolver.ts'
import type { Tunnel, TunnelOptions } from './api.ts'
import { toDocument } from './options.ts'
import { RunningEndpoint, type RunningParts } from './running.ts'
import { applyConfig, type Setting } from './setting.ts'

type Source = TunnelOptions['config']

export class LibraryTunnel extends RunningEndpoint implements Tunnel {
  readonly #setting: Setting
  #source: Source

  constructor(parts: RunningParts, setting: Setting, source: Source) {
    super(parts)
    this.#setting = setting
    this.#source = source
  }

  /** Opens the endpoint. @throws ConfigError, StartError */
  async start(crypto: RuntimeCrypto): Promise<void> {
    const { runtime, log } = this.#setting
    const config = await this.#read(this.#source)
    applyConfig(this.#setting, config)
    const starting = startService(runtime, config, log, crypto, undefined, {
      onPeerState: () => this.onPeerState(),
      onMigrated: (peer) => peer !== undefined && this.emit('migrate', formatAddress(peer)),
    })
    await this.begin(starting)
  }

  get listening(): string | undefined {
    const { openEndpoint } = this
    const datagrams = openEndpoint?.datagrams
    return openEndpoint?.listening ?? (datagrams && formatAddress(datagrams))
  }

  get monitoring(): string | undefined {
    const http = this.openEndpoint?.http
    return http && formatAddress(http)
  }

  async reload(source: Source = this.#source): Promise<void> {
    const { endpoint } = this
    const config = await this.#read(source)
    checkAddresses(config)
    if (config.mode !== endpoint.config.mode) {
      const [from, to] = [modeName(endpoint.config.mode), modeName(config.mode)]
      throw new StartError(`the mode cannot change from ${from} to ${to}`)
    }
    await endpoint.reload(config)
    this.#setting.log.setLevel(config.loglevel)
    this.#source = source
  }

  /** @throws ConfigError, StartError if the file cannot be read */
  async #read(source: Source): Promise<Config> {
    const { runtime, log } = this.#setting
    let bytes: Uint8Array
    if (typeof source === 'string') {
      bytes = await runtime.readFile(source).catch((error) => {
        throw new StartError(`config file ${source}: ${messageOf(error)}`)
      })
    } else bytes = source instanceof Uint8Array ? source : toDocument(source)
    const config = parseConfig(bytes)
    if (config.workers > 1) throw new ConfigError('workers', String(config.workers), 'is for the program')
    if (config.user !== undefined) throw new ConfigError('user', '', 'is for the program')
    const mode = typeof source === 'string' ? runtime.commandConsole?.fileMode(source) : undefined
    const path = typeof source === 'string' ? source : 'config'
    for (const text of [...startFileWarnings(path, mode, config), ...startKeyWarnings(bytes)]) log.warning(text)
    return config
  }
}
