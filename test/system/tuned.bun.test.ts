// time limit: 120 s, waits
/** Sockets that Bun adopts from system calls meet the contract of host/runtime.ts. */
import { bunRuntime } from '../../runtime-bun/runtime.ts'
import { tunedConformance } from './tuned.ts'

await tunedConformance(bunRuntime())
