/** System calls through koffi. */
import { os } from '../../runtime-node/os.ts'
import { callsTests } from './calls.ts'

callsTests(os)
