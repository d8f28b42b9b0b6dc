// time limit: 120 s
/** The Node adapter meets the contract of host/runtime.ts. */

import { nodeRuntime } from '../../runtime-node/runtime.ts'
import { serveHttp } from '../../runtime-shared/http.ts'
import { conformance } from './conformance.ts'

await conformance({ runtime: nodeRuntime(), serveHttp })
