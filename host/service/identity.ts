/**
 * Drops privileges after all sockets are open (protocol.md 10.5). The key `user` has the forms `user`, `user:`,
 * `user:group` and `:group`, with names or numbers. Any failure is an error: a process never keeps more privileges than
 * requested.
 */

import { ConfigError, messageOf, quote } from '../errors.ts'
import { syscallsOf } from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import type { IdentityCalls, OperatingSystem } from '../runtime.ts'

/** Maximum uid and gid: setuid and setgid treat 2^32 - 1 as "unchanged". */
const ID_MAX = 0xffff_fffe
const PASSWD = '/etc/passwd'

/** The parsed key `user`. */
export interface Identity {
  /** Original text. */
  readonly text: string
  readonly user: string | number | undefined
  readonly group: string | number | undefined
  /** `user:`: take the login group and the supplementary groups of the user. */
  readonly login: boolean
}

function parseId(text: string): string | number | undefined {
  if (text === '') return undefined
  return /^\d+$/.test(text) ? Number(text) : text
}

/**
 * Parses `user`.
 * @throws ConfigError if it is malformed
 */
export function parseIdentity(text: string): Identity {
  const colon = text.indexOf(':')
  const user = parseId(colon < 0 ? text : text.slice(0, colon))
  const group = colon < 0 ? undefined : parseId(text.slice(colon + 1))
  const refuse = (reason: string): never => {
    throw new ConfigError('user', quote(text), reason)
  }
  if (user === undefined && group === undefined) refuse('names neither a user nor a group')
  if (text.includes(':', colon + 1) && colon >= 0) refuse('must be user, user:, user:group or :group')
  for (const id of [user, group]) {
    if (typeof id === 'number' && id > ID_MAX) refuse(`${id} is not a valid uid or gid`)
  }
  return { text, user, group, login: colon >= 0 && user !== undefined && group === undefined }
}

/**
 * Checks, before sockets are opened, that the identity can be changed.
 * @throws Error
 */
export function checkIdentity(os: OperatingSystem | undefined, identity: Identity): IdentityCalls {
  const calls = os?.identity
  if (calls === undefined) throw new Error(`cannot run as ${quote(identity.text)}: not available on this system`)
  if (calls.geteuid() !== 0) {
    throw new Error(
      `cannot run as ${quote(identity.text)}: only root can change the user, running as uid ${calls.geteuid()}`,
    )
  }
  return calls
}

/** Looks up name and login group of a user in passwd(5). */
function loginOf(passwd: string, user: string | number): { name: string; group: number } | undefined {
  for (const line of passwd.split('\n')) {
    const [name, , uid, gid] = line.split(':')
    if (name === undefined || uid === undefined || gid === undefined || !/^\d+$/.test(gid)) continue
    if (user === name || String(user) === uid) return { name, group: Number(gid) }
  }
  return undefined
}

/** Whether a call fails. */
function refuses(call: () => void): boolean {
  try {
    call()
    return false
  } catch {
    return true
  }
}

function changeGroups(os: OperatingSystem, calls: IdentityCalls, identity: Identity): void {
  const { user, group, login } = identity
  if (login && user !== undefined) {
    const found = loginOf(os.readText(PASSWD), user)
    if (found === undefined) throw new Error(`${user} has no login group in ${PASSWD}, specify a group`)
    calls.initgroups(found.name, found.group)
    calls.setgid(found.group)
    return
  }
  // drop the supplementary groups of root
  calls.setgroups([])
  if (group !== undefined) calls.setgid(group)
}

/** Binds the system calls while their files are readable. If they are not available, their users report it. */
function preload(os: OperatingSystem): void {
  try {
    syscallsOf(os)
  } catch {
    // not available
  }
}

/**
 * Changes the identity: first the groups, while this is permitted, then the user. Verifies that root cannot be
 * regained.
 * @throws Error; the process must then exit
 */
export function takeIdentity(os: OperatingSystem | undefined, identity: Identity, log: Log): void {
  const calls = checkIdentity(os, identity)
  if (os === undefined) return
  const { text, user } = identity
  preload(os)
  try {
    changeGroups(os, calls, identity)
    if (user !== undefined) calls.setuid(user)
  } catch (error) {
    throw new Error(`cannot run as ${quote(text)}: ${messageOf(error)}`)
  }
  const [uid, gid] = [calls.getuid(), calls.getgid()]
  if (uid !== 0 && (calls.geteuid() === 0 || !refuses(() => calls.setuid(0)))) {
    throw new Error(`cannot run as ${quote(text)}: root could be regained`)
  }
  if (uid !== 0 && gid !== 0 && !refuses(() => calls.setgid(0))) {
    throw new Error(`cannot run as ${quote(text)}: the group root could be regained`)
  }
  log.notice(`running as uid ${uid}, gid ${gid}`)
  if (uid === 0) log.warning(`user ${quote(text)}: still running as root`)
  else if (gid === 0) log.warning(`user ${quote(text)}: the group is still root, use "${user}:" for the login group`)
}
