/** How the configuration names a file for the log: `file:/var/log/example.log`. */

import { ConfigError, quote } from '../errors.ts'

const PREFIX = 'file:'

/** Whether a value of `log` names a file. */
export const isLogFile = (text: string): boolean => text.startsWith(PREFIX)

/**
 * The path in a value of `log`; a relative one starts at the working directory.
 * @throws ConfigError
 */
export function parseLogFile(text: string): string {
  // file:///var/log/example.log is a common spelling
  const path = text.slice(PREFIX.length).replace(/^\/+/, '/')
  const refuse = (reason: string): never => {
    throw new ConfigError('log', quote(text), reason)
  }
  if (path === '') refuse('the path of the file is missing, as in file:/var/log/kcptun-wasm.log')
  if (path.endsWith('/')) refuse('the path is that of a file, not of a directory')
  if (path.includes('\0')) refuse('a path has no NUL')
  return path
}
