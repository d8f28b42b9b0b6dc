// time limit: 120 s
/** The Bun adapter meets the contract of host/runtime.ts. */

import { bunRuntime } from '../../runtime-bun/runtime.ts'
import { serveHttp } from '../../runtime-shared/http.ts'
import { conformance } from './conformance.ts'

await conformance({ runtime: bunRuntime(), serveHttp })
