// time limit: 120 s
/** Sockets that Bun adopts from system calls keep all promises of host/runtime.ts too. */
import { bunRuntime } from '../../runtime-bun/runtime.ts'
import { tunedConformance } from './tuned.ts'

await tunedConformance(bunRuntime())
