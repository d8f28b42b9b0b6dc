/** What makes a configuration start, as far as that does not depend on the system. */

import type { Config, ConfigFile } from '../../config/config.ts'
import { atEntry, parseFile } from '../../config/tunnels.ts'
import { parseHostPort } from '../../net/address.ts'
import { parseIdentity } from '../../service/identity.ts'
import { checkEntry } from '../../tunnels/entry.ts'

/**
 * Runs all startup checks that do not depend on the system.
 * @throws ConfigError
 */
export function startableFile(bytes: Uint8Array): ConfigFile {
  const file = parseFile(bytes)
  const { config, tunnels } = file
  for (const [index, each] of (tunnels ?? [config]).entries()) atEntry(tunnels && index, () => checkEntry(each))
  if (config.http_listen !== undefined) parseHostPort('http_listen', config.http_listen, 'bind')
  if (config.user !== undefined) parseIdentity(config.user)
  return file
}

/** The same of a file without `tunnels`. @throws ConfigError */
export const startable = (bytes: Uint8Array): Config => startableFile(bytes).config
