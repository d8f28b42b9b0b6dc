/**
 * Unix sockets and their files: a file that nobody answers at is replaced, its permissions are right from the first
 * moment, and it is removed by whoever created it.
 */

import { chmodSync, lchownSync, lstatSync, renameSync, type Stats, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import { codeOf, systemError } from '../host/errors.ts'
import { isAbstract } from '../host/net/unix-path.ts'
import type { BoundPath, TcpConnection, TcpHandlers, UnixSockets } from '../host/runtime.ts'

/** Permission bits that a umask can take away. */
const ALL_BITS = 0o777

/** What a runtime does itself. */
export interface UnixCalls {
  /**
   * Binds to a path in the spelling of calls before it returns, or adopts a bound descriptor; then listens. `shown` is
   * the path for people.
   */
  listen(
    where: { readonly path: string } | { readonly fd: number },
    shown: string,
    accept: (connection: TcpConnection) => TcpHandlers | null,
    onError: (error: NodeJS.ErrnoException) => void,
  ): Promise<{ close(): void; keepAlive?(isKept: boolean): void }>
  /** As Runtime.dialTcp. */
  dial(path: string, shown: string, handlers: TcpHandlers, onOpen: () => void): TcpConnection
}

/** A path in the spelling of calls. */
const spelled = (path: string): string => (isAbstract(path) ? `\0${path.slice(1)}` : path)

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

const isSame = (a: Stats | undefined, b: Stats): boolean =>
  a !== undefined && a.dev === b.dev && a.ino === b.ino && a.birthtimeMs === b.birthtimeMs

/** Code of the error of a connection to the path; empty if it is accepted. */
function answerAt({ dial }: UnixCalls, path: string): Promise<string> {
  return new Promise((resolve) => {
    const onClose = (error: unknown): void => resolve(codeOf(error) || 'ECONNREFUSED')
    const connection = dial(path, path, { onData() {}, onEnd() {}, onDrain() {}, onClose }, () => {
      connection.reset()
      resolve('')
    })
  })
}

/** Removes the file of a socket that nobody listens at. @throws what else is at the path */
async function clear(calls: UnixCalls, path: string): Promise<void> {
  const before = statOf(path)
  // otherwise libuv says that permission is denied
  if (before === undefined && statOf(dirname(path)) === undefined)
    throw systemError('ENOENT', 'its directory does not exist', 'listen')
  if (before === undefined) return
  if (!before.isSocket()) throw systemError('EEXIST', 'there is a file, which is not a socket', 'listen')
  const answer = await answerAt(calls, path)
  if (answer === 'ENOENT') return
  if (answer !== 'ECONNREFUSED') throw systemError('EADDRINUSE', 'in use: a program listens there', 'listen')
  // another instance may have been faster
  if (isSame(statOf(path), before)) unlinkSync(path)
}

/** Runs a call whose files get no more permissions than `mode`. */
function masked<Result>(mode: number, call: () => Result): Result {
  let before: number
  try {
    before = process.umask(ALL_BITS & ~mode)
  } catch {
    // a worker thread cannot change it
    return call()
  }
  try {
    return call()
  } finally {
    process.umask(before)
  }
}

/** Removes the file of a socket, if it is still that one, after `close`. Runtimes remove whatever is at the path. */
function release(path: string, own: Stats, close: () => void): void {
  try {
    const found = statOf(path)
    const foreign = found !== undefined && !isSame(found, own) ? `${path}.${process.pid}` : undefined
    if (foreign !== undefined) renameSync(path, foreign)
    close()
    if (foreign !== undefined) renameSync(foreign, path)
    else if (isSame(statOf(path), own)) unlinkSync(path)
  } catch {
    // the directory is not writable any more: the next start replaces the file
    close()
  }
}

/** Sets the permissions of a socket's file: others may have put a link, or another file, in its place. */
function setMode(path: string, mode: number): void {
  if (!lstatSync(path).isSocket()) throw systemError('EEXIST', 'there is a file, which is not a socket', 'chmod')
  chmodSync(path, mode)
}

async function claim<Result>(
  calls: UnixCalls,
  path: string,
  mode: number,
  bind: (path: string) => Result | Promise<Result>,
): Promise<BoundPath<Result>> {
  if (isAbstract(path)) return { bound: await bind(spelled(path)), release: (close = () => {}) => close() }
  await clear(calls, path)
  const bound = await masked(mode, () => bind(path))
  const own = lstatSync(path)
  setMode(path, mode)
  return { bound, release: (close = () => {}) => release(path, own, close) }
}

/** The Unix sockets of a runtime. */
export function unixSockets(calls: UnixCalls): UnixSockets {
  return {
    claim: (path, mode, bind) => claim(calls, path, mode, bind),
    async listen(path, mode, fd, accept, onError) {
      if (fd !== undefined) return calls.listen({ fd }, path, accept, onError)
      const claimed = await claim(calls, path, mode, (where) => calls.listen({ path: where }, path, accept, onError))
      const { bound } = claimed
      return {
        close: () => claimed.release(() => bound.close()),
        keepAlive: (isKept) => bound.keepAlive?.(isKept),
      }
    },
    dial: (path, handlers, onOpen) => calls.dial(spelled(path), path, handlers, onOpen),
    setMode: (path, mode) => isAbstract(path) || setMode(path, mode),
    setOwner(path, uid, gid) {
      const { uid: user, gid: group } = lstatSync(path)
      // not what a link in its place points to
      lchownSync(path, uid ?? user, gid ?? group)
    },
  }
}
