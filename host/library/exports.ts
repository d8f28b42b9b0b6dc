/** What the entries of all runtimes export besides the functions of the library. */

export { ClosedError, ConfigError, NotAvailable, RefusedError, ResetError, StartError } from '../errors.ts'
export type * from './api.ts'
export { overDataChannel, overMessagePort } from './transports.ts'
