/** What makes an entry start, as far as that does not depend on the system. */

import type { Config } from '../config/config.ts'
import { assertStartable } from '../config/security.ts'
import { methods } from '../crypto/methods.ts'
import { checkAddresses } from '../transport/resolver.ts'

/** @throws ConfigError */
export function checkEntry(config: Config): void {
  assertStartable(config, methods)
  checkAddresses(config)
}
