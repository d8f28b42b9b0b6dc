/** Ciphers in browsers: those of libsodium-wrappers. */

import type { RuntimeCrypto } from '../host/crypto/open.ts'
import { NotAvailable } from '../host/errors.ts'

export const crypto: RuntimeCrypto = {
  aesGcm: {
    provider: '',
    open() {
      throw new NotAvailable(
        'method aes256gcm is not available in a browser, which encrypts with it asynchronously only',
      )
    },
  },
  nativeSodium: () => undefined,
}
