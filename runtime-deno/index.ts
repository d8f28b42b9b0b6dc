/** Library entry for Deno: the adapter and the function that starts an endpoint. */
export { startEndpoint } from '../host/endpoint/endpoint.ts'
export { crypto } from './crypto.ts'
export { denoRuntime } from './runtime.ts'
