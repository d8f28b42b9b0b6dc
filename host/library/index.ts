/**
 * The declarations of the package's main entry, which is the same for every runtime. The code behind it is the entry of
 * the runtime: runtime-node/index.ts and others.
 */

import type { Library } from './api.ts'

export * from './exports.ts'

export declare const createClient: Library['createClient']
export declare const createServer: Library['createServer']
export declare const createTunnel: Library['createTunnel']
export declare const generatePsk: Library['generatePsk']
