/**
 * The declarations of the package's main entry, which is the same for every runtime. The code behind it is the entry of
 * the runtime: runtime-node/index.ts and others.
 */

import type { Library } from './api.ts'

export * from './exports.ts'

/** See [Library](#library). */
export declare const createClient: Library['createClient']
/** See [Library](#library). */
export declare const createServer: Library['createServer']
/** See [Library](#library). */
export declare const createTunnel: Library['createTunnel']
/** See [Library](#library). */
export declare const generatePsk: Library['generatePsk']
