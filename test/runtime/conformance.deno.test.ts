// time limit: 120 s
/** The Deno adapter meets the contract of host/runtime.ts. */

import { denoRuntime } from '../../runtime-deno/runtime.ts'
import { serveHttp } from '../../runtime-deno/sockets.ts'
import { conformance } from './conformance.ts'

await conformance({ runtime: denoRuntime(), hidesRefusals: true, serveHttp })
