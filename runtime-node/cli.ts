/** Program entry for Node. */
import { main } from '../host/cli.ts'
import { aesGcm } from './aes-gcm.ts'
import { nodeRuntime } from './runtime.ts'

await main(nodeRuntime(), process.argv.slice(2), aesGcm)
