/**
 * Drops privileges after all sockets are open (protocol.md 10.5). The key `user` has the forms `user`, `user:`,
 * `user:group` and `:group`, with names or numbers. Any failure is an error: a process never keeps more privileges than
 * requested.
 */

import { type Config, MODE_SERVER } from '../config/config.ts'
import { ConfigError, codeOf, messageOf, quote } from '../errors.ts'
import { syscallsOf } from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import { parseHostPort } from '../net/address.ts'
import { isAbstract, isUnix, parseUnix } from '../net/unix-path.ts'
import type { IdentityCalls, OperatingSystem, Runtime } from '../runtime.ts'

/** Maximum uid and gid: setuid and setgid treat 2^32 - 1 as "unchanged". */
const ID_MAX = 0xffff_fffe
const PASSWD = '/etc/passwd'
const GROUP = '/etc/group'
/** Ports below this one are for root, unless a sysctl says otherwise. */
const PRIVILEGED_PORTS = 1024

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
function loginOf(passwd: string, user: string | number): { name: string; id: number; group: number } | undefined {
  for (const line of passwd.split('\n')) {
    const [name, , uid, gid] = line.split(':')
    if (name === undefined || uid === undefined || gid === undefined || !/^\d+$/.test(gid)) continue
    if (user === name || String(user) === uid) return { name, id: Number(uid), group: Number(gid) }
  }
  return undefined
}

/** Id of a group of group(5). */
function groupOf(os: OperatingSystem, group: string): number | undefined {
  const line = os
    .readText(GROUP)
    .split('\n')
    .find((entry) => entry.startsWith(`${group}:`))
  return line === undefined ? undefined : Number(line.split(':')[2])
}

/**
 * Gives a file to the user and group that the program is about to run as.
 * @param what the file, for people
 * @param give sets its owner
 * @throws Error
 */
export function giveFile(
  os: OperatingSystem,
  { text, user, group, login }: Identity,
  what: string,
  give: (uid: number | undefined, gid: number | undefined) => void,
): void {
  try {
    const passwd = user === undefined || (typeof user === 'number' && !login) ? '' : os.readText(PASSWD)
    const found = user === undefined ? undefined : loginOf(passwd, user)
    const uid = typeof user === 'number' ? user : found?.id
    const gid = typeof group === 'string' ? groupOf(os, group) : login ? found?.group : group
    if (user !== undefined && uid === undefined) throw new Error(`${user} is not in ${PASSWD}, specify a number`)
    if (group !== undefined && gid === undefined) throw new Error(`${group} is not in ${GROUP}, specify a number`)
    give(uid, gid)
  } catch (error) {
    // when_down close: it is created later, by that user
    if (codeOf(error) === 'ENOENT') return
    throw new Error(`cannot give ${what} to ${quote(text)}: ${messageOf(error)}`)
  }
}

/** Gives the file of a Unix socket at `listen` to that user. @throws Error */
export function giveSocket({ os, unix }: Runtime, identity: Identity, { listen }: Config): void {
  if (os === undefined || unix === undefined || listen === undefined || !isUnix(listen)) return
  const path = parseUnix('listen', listen)
  if (!isAbstract(path)) giveFile(os, identity, listen, (uid, gid) => unix.setOwner(path, uid, gid))
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

/** What makes a file readable for this process, after an error of reading it; empty after another error. */
export function readRemedy(error: unknown, os: OperatingSystem | undefined, path: string): string {
  const group = os?.identity?.getgid()
  if (codeOf(error) !== 'EACCES' || group === undefined) return ''
  return `; make it readable for the group of this user: chgrp ${group} ${path} && chmod 640 ${path}`
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

/** Ports below the sysctl are for root; 1024 where it cannot be read. */
function firstFreePort(os: OperatingSystem | undefined): number {
  try {
    return Number(os?.readText('/proc/sys/net/ipv4/ip_unprivileged_port_start') ?? '') || PRIVILEGED_PORTS
  } catch {
    return PRIVILEGED_PORTS
  }
}

/** Since Linux 5.7 a socket can be bound to a device without privileges. */
function mayBindToDevice(os: OperatingSystem | undefined): boolean {
  try {
    const [major = 0, minor = 0] = (os?.readText('/proc/sys/kernel/osrelease') ?? '').split('.').map(Number)
    return major > 5 || (major === 5 && minor >= 7)
  } catch {
    return false
  }
}

/**
 * Warnings about sockets that can be opened as root only, and that the program may have to open, or open again, after
 * it changed the user.
 * @param status as Endpoint.status: sockets that are not open yet begin with their key
 */
export function rightsWarnings(
  os: OperatingSystem | undefined,
  { user }: Identity,
  config: Config,
  status: string,
): string[] {
  if (user === undefined || user === 0 || user === 'root') return []
  const first = firstFreePort(os)
  const isPrivileged = (key: 'listen' | 'http_listen' | 'kcp_bind'): boolean => {
    const text = config[key] ?? ':0'
    if (isUnix(text)) return false
    const { port } = parseHostPort(key, text, 'bind')
    return port !== 0 && port < first
  }
  const warnings: string[] = []
  const warn = (key: string, what: string): void => {
    warnings.push(`config key ${key}: as user ${quote(String(user))} ${what}; restart the program then`)
  }
  for (const key of ['listen', 'http_listen'] as const) {
    if (isPrivileged(key) && status.includes(`${key}: `)) {
      warn(key, 'the port cannot be opened when its address appears')
    }
  }
  if (config.when_down === 'close' && isPrivileged('listen')) {
    warn('when_down', 'the port of listen cannot be opened again')
  }
  // with several workers a server never opens its socket again
  if (config.workers > 1 && (config.mode & MODE_SERVER) !== 0) return warnings
  if (isPrivileged('kcp_bind')) warn('kcp_bind', 'the port cannot be opened again after an address change')
  if (config.netdev !== undefined && config.netdev !== '' && !mayBindToDevice(os)) {
    warn('netdev', 'a socket cannot be bound to the interface again after an address change')
  }
  if (config.fwmark !== 0) warn('fwmark', 'a socket that is opened again after an address change may not be marked')
  return warnings
}
