/** System calls through Deno.dlopen. */
import { os } from '../../runtime-deno/os.ts'
import { callsTests } from './calls.ts'

callsTests(os)
