/**
 * Taking on another identity once all sockets are open (protocol.md 10.5): the forms `user`, `user:`, `user:group` and
 * `:group`, names or numbers. Any failure is an error: a process never keeps more rights than requested.
 */

import { ConfigError, messageOf, quote } from '../errors.ts'
import { syscallsOf } from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import type { IdentityCalls, OperatingSystem } from '../runtime.ts'

/** Above it setuid and setgid take a number for "unchanged" (2^32 - 1) or for none at all. */
const ID_MAX = 0xffff_fffe
const PASSWD = '/etc/passwd'

/** What `user` asks for. */
export interface Identity {
  /** As it was written. */
  readonly text: string
  readonly user: string | number | undefined
  readonly group: string | number | undefined
  /** `user:`: the login group of the user, and the groups that the user is a member of. */
  readonly login: boolean
}

function parseId(text: string): string | number | undefined {
  if (text === '') return undefined
  return /^\d+$/.test(text) ? Number(text) : text
}

/**
 * Parses `user`.
 * @throws ConfigError for a text without a name
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
    if (typeof id === 'number' && id > ID_MAX) refuse(`${id} is no number of a user or group`)
  }
  return { text, user, group, login: colon >= 0 && user !== undefined && group === undefined }
}

/**
 * Says early, before sockets are opened, why the identity cannot be taken on.
 * @throws Error
 */
export function checkIdentity(os: OperatingSystem | undefined, identity: Identity): IdentityCalls {
  const calls = os?.identity
  if (calls === undefined) throw new Error(`cannot run as ${quote(identity.text)}: not available on this system`)
  if (calls.geteuid() !== 0) {
    throw new Error(
      `cannot run as ${quote(identity.text)}: only root can change the user, and this runs as uid ${calls.geteuid()}`,
    )
  }
  return calls
}

/** Name and login group of a user, from the text of passwd(5). */
function loginOf(passwd: string, user: string | number): { name: string; group: number } | undefined {
  for (const line of passwd.split('\n')) {
    const [name, , uid, gid] = line.split(':')
    if (name === undefined || uid === undefined || gid === undefined || !/^\d+$/.test(gid)) continue
    if (user === name || String(user) === uid) return { name, group: Number(gid) }
  }
  return undefined
}

/** Whether a call is refused, as it must be. */
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
    if (found === undefined) throw new Error(`${user} has no login group in ${PASSWD}, name a group`)
    calls.initgroups(found.name, found.group)
    calls.setgid(found.group)
    return
  }
  // root's supplementary groups are nothing for anybody else
  calls.setgroups([])
  if (group !== undefined) calls.setgid(group)
}

/** Binds the system calls while their files are readable. Later users get an error when there are none. */
function preload(os: OperatingSystem): void {
  try {
    syscallsOf(os)
  } catch {
    // not available
  }
}

/**
 * Takes on the identity: groups first, while that is allowed, then the user, then makes sure that the way back is
 * closed.
 * @throws Error; the process must end then
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
  if (uid === 0) log.warning(`user ${quote(text)}: this still runs as root`)
  else if (gid === 0) log.warning(`user ${quote(text)}: the group is still root, write "${user}:" for the user's own`)
}
