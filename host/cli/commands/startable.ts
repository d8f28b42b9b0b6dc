/** What makes a configuration start, as far as that does not depend on the system. */

import type { Config } from '../../config/config.ts'
import { parseConfig } from '../../config/load.ts'
import { assertStartable } from '../../config/security.ts'
import { methods } from '../../crypto/methods.ts'
import { parseHostPort } from '../../net/address.ts'
import { parseIdentity } from '../../service/identity.ts'
import { checkAddresses } from '../../transport/resolver.ts'

/**
 * Runs all startup checks that do not depend on the system.
 * @throws ConfigError
 */
export function startable(bytes: Uint8Array): Config {
  const config = parseConfig(bytes)
  assertStartable(config, methods)
  checkAddresses(config)
  if (config.http_listen !== undefined) parseHostPort('http_listen', config.http_listen, 'bind')
  if (config.user !== undefined) parseIdentity(config.user)
  return config
}
