/** kcptun-wasm on Node with limited ciphers, see ours.ts. */
import { main } from '../host/cli/main.ts'
import { crypto as all } from '../runtime-node/crypto.ts'
import { nodeRuntime } from '../runtime-node/runtime.ts'
import { limited } from './ours.ts'

const { crypto, words } = limited(all)
await main(nodeRuntime(), words, crypto)
