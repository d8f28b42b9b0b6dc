/** Program entry for Bun. */
import { main } from '../host/cli.ts'
import { aesGcm } from './aes-gcm.ts'
import { bunRuntime } from './runtime.ts'

await main(bunRuntime(), process.argv.slice(2), aesGcm)
