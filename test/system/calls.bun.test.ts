/** System calls through bun:ffi. */
import { os } from '../../runtime-bun/os.ts'
import { callsTests } from './calls.ts'

callsTests(os)
