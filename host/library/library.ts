/** The functions of the library for a runtime. */

import { generatePsk } from '../crypto/key.ts'
import { NotAvailable } from '../errors.ts'
import type {
  Client,
  ClientOptions,
  Library,
  Server,
  ServerOptions,
  StreamHandler,
  Tunnel,
  TunnelOptions,
} from './api.ts'
import { LibraryClient } from './client.ts'
import { checkObjects, checkTunnel } from './options.ts'
import type { Platform } from './platform.ts'
import { type RunningParts, reasonOf } from './running.ts'
import { LibraryServer } from './server.ts'
import { type Setting, settingOf } from './setting.ts'
import { LibraryTunnel } from './tunnel.ts'

/** @param platform of the runtime */
export function makeLibrary<Stream>(platform: Platform<Stream>): Library<Stream> {
  const prepare = (options: Partial<ClientOptions>): [Setting, RunningParts] => {
    checkObjects(options)
    const { logger, signal, transport } = options
    if (signal?.aborted) throw reasonOf(signal)
    if (transport === undefined && platform.noSockets !== undefined) throw new NotAvailable(platform.noSockets)
    const setting = settingOf(platform.runtime(), logger, transport)
    const { runtime, addressText } = setting
    return [setting, { runtime, signal, ...(addressText && { addressText }) }]
  }
  return {
    async createClient(options: ClientOptions): Promise<Client<Stream>> {
      const [setting, parts] = prepare(options)
      const client = new LibraryClient(platform, parts)
      await client.start(options, setting)
      return client
    },

    async createServer(options: ServerOptions, onStream: StreamHandler<Stream>): Promise<Server> {
      if (typeof onStream !== 'function') throw new TypeError('the second argument of createServer must be a function')
      const [setting, parts] = prepare(options)
      const server = new LibraryServer(platform, parts, onStream)
      await server.start(options, setting)
      return server
    },

    async createTunnel(options: TunnelOptions): Promise<Tunnel> {
      const [setting, parts] = prepare(options)
      checkTunnel({ ...options })
      const tunnel = new LibraryTunnel(parts, setting, options.config)
      await tunnel.start(platform.crypto)
      return tunnel
    },

    generatePsk,
  }
}
