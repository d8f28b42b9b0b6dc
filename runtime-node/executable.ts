/** The program as one executable under Node (single executable application): without packages that have native code. */
import { main } from '../host/cli/main.ts'
import { becomeExecutable } from '../runtime-shared/program.ts'
import { crypto } from './crypto.ts'
import { nodeRuntime } from './runtime.ts'

becomeExecutable()
void main(nodeRuntime(), process.argv.slice(2), { ...crypto, nativeSodium: () => undefined })
