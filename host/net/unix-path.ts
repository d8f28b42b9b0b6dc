/**
 * Unix sockets as the configuration names them: `unix:/run/x.sock`, or `unix:@name` for an abstract name of Linux
 * (unix(7)). A path is absolute: the directory of a daemon is not that of the shell that started it.
 */

import { ConfigError, quote } from '../errors.ts'

const PREFIX = 'unix:'
/** sun_path of unix(7), with the NUL at its end. Some runtimes truncate a longer path without an error. */
const PATH_MAX_BYTES = 107

/** Whether the value of a key names a Unix socket. */
export const isUnix = (text: string): boolean => text.startsWith(PREFIX)

/** The text of a socket, as in the configuration. */
export const unixText = (path: string): string => PREFIX + path

/** Whether a path is an abstract name, which no file stands for. */
export const isAbstract = (path: string): boolean => path.startsWith('@')

/**
 * The path, or `@name`, in the value of a key.
 * @throws ConfigError
 */
export function parseUnix(key: string, text: string): string {
  const refuse = (reason: string): never => {
    throw new ConfigError(key, quote(text), reason)
  }
  // unix:///run/x.sock is a common spelling
  const path = text.slice(PREFIX.length).replace(/^\/+/, '/')
  if (path === '' || path === '@') refuse('the path of the Unix socket is missing, as in unix:/run/example.sock')
  if (!isAbstract(path) && !path.startsWith('/'))
    refuse('the path of a Unix socket must begin with / (or with @, an abstract name)')
  const bytes = new TextEncoder().encode(path).length
  if (bytes > PATH_MAX_BYTES)
    refuse(`the path of a Unix socket has at most ${PATH_MAX_BYTES} bytes, this one has ${bytes}`)
  if (path.endsWith('/')) refuse('the path of a Unix socket is that of a file, not of a directory')
  return path
}

/** Syntax of `listen_mode`: permission bits, in octal. */
const MODE = /^0?[0-7]{3}$/

/** Permission bits of a socket file. @throws ConfigError */
export function parseMode(key: string, text: string): number {
  if (!MODE.test(text)) throw new ConfigError(key, quote(text), 'must be permission bits in octal, such as "0660"')
  return Number.parseInt(text, 8)
}
