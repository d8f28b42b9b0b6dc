/** The program as one executable under Bun: build/release.mjs adds the rest of it. */

import { main } from '../host/cli/main.ts'
import { loadNativeSodium } from '../host/crypto/providers/native-aead.ts'
import { native } from '../runtime-shared/native.ts'
import { becomeExecutable } from '../runtime-shared/program.ts'
import { crypto } from './crypto.ts'
import { bunRuntime } from './runtime.ts'

/** @param embedded loads a file of the package sodium-native; absent where the executable has none */
export async function run(embedded?: (id: string) => unknown): Promise<void> {
  becomeExecutable()
  const nativeSodium = () =>
    embedded === undefined || native.refusal !== undefined ? undefined : loadNativeSodium(embedded)
  await main(bunRuntime(), process.argv.slice(2), { ...crypto, nativeSodium })
}
