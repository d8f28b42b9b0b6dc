/** kcptun-wasm on Bun with limited ciphers, see ours.ts. */
import { main } from '../host/cli/main.ts'
import { crypto as all } from '../runtime-bun/crypto.ts'
import { bunRuntime } from '../runtime-bun/runtime.ts'
import { limited } from './ours.ts'

const { crypto, words } = limited(all)
await main(bunRuntime(), words, crypto)
