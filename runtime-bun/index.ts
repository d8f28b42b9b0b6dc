/** Library entry for Bun: the adapter and the function that starts an endpoint on it. */
export { startEndpoint } from '../host/endpoint.ts'
export { aesGcm } from './aes-gcm.ts'
export { bunRuntime } from './runtime.ts'
