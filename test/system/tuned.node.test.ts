// time limit: 120 s
/** Sockets that Node adopts from system calls keep all promises of host/runtime.ts too. */
import { nodeRuntime } from '../../runtime-node/runtime.ts'
import { tunedConformance } from './tuned.ts'

await tunedConformance(nodeRuntime())
