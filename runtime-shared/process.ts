/**
 * Process services: environment, user identity, daemon and workers, for Node and Bun. What differs is in os.ts of each
 * runtime.
 */
import { readFileSync } from 'node:fs'
import { codeOf } from '../host/errors.ts'
import type { IdentityCalls, OperatingSystem } from '../host/runtime.ts'
import { daemon } from './daemon.ts'
import { native } from './native.ts'
import { workers } from './workers.ts'

/** For a call that the type declarations lack. */
const isInitgroups = (value: unknown): value is IdentityCalls['initgroups'] => typeof value === 'function'

/** Missing on Windows. */
function identityCalls(): IdentityCalls | undefined {
  const { getuid, geteuid, getgid, setgroups, setgid, setuid } = process
  const initgroups: unknown = Reflect.get(process, 'initgroups')
  if (!getuid || !geteuid || !getgid || !setgroups || !isInitgroups(initgroups) || !setgid || !setuid) return undefined
  return { getuid, geteuid, getgid, setgroups, initgroups, setgid, setuid }
}

export const processCalls: Pick<
  OperatingSystem,
  'pid' | 'parentPid' | 'isAlive' | 'native' | 'env' | 'readText' | 'identity' | 'daemon' | 'workers'
> = {
  pid: process.pid,
  parentPid: () => process.ppid,
  isAlive(pid) {
    try {
      return process.kill(pid, 0)
    } catch (error) {
      return codeOf(error) !== 'ESRCH'
    }
  },
  native,
  env: (name) => process.env[name],
  readText: (path) => readFileSync(path, 'utf8'),
  identity: identityCalls(),
  daemon: process.platform === 'win32' ? undefined : daemon,
  workers: process.platform === 'linux' ? workers : undefined,
}
