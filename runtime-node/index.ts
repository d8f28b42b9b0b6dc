/** Library entry for Node: the adapter and the function that starts an endpoint on it. */
export { startEndpoint } from '../host/endpoint.ts'
export { aesGcm } from './aes-gcm.ts'
export { nodeRuntime } from './runtime.ts'
