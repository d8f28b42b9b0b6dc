// time limit: 120 s
/** Sockets that Deno adopts from system calls meet the contract of host/runtime.ts. */
import { denoRuntime } from '../../runtime-deno/runtime.ts'
import { tunedConformance } from './tuned.ts'

await tunedConformance(denoRuntime(), 'not available: this runtime does not expose the descriptor of a connection')
