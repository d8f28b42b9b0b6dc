/** The HTTP server: Bun has the modules that Node's adapter uses. */
export * from '../runtime-node/http.ts'
