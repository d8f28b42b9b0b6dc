// time limit: 120 s, waits
/** Sockets that Node adopts from system calls meet the contract of host/runtime.ts. */
import { nodeRuntime } from '../../runtime-node/runtime.ts'
import { tunedConformance } from './tuned.ts'

await tunedConformance(nodeRuntime())
