/** System calls by koffi. */
import { os } from '../../runtime-node/os.ts'
import { callsTests } from './calls.ts'

callsTests(os)
