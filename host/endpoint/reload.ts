/**
 * Reloading the configuration (protocol.md 10.5): reads the file again, checks it, and hands it to the running endpoint.
 * Whatever is wrong with it, the old configuration stays in force. Says which changes cannot be made while we run.
 */

import { type Config, MODE_SERVER } from '../config/config.ts'
import { parseConfig } from '../config/load.ts'
import { modeName } from '../config/rules.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Runtime } from '../runtime.ts'
import { checkAddresses } from '../transport/resolver.ts'

/** Keys that are only looked at when we start. */
const FIXED_KEYS = ['listen', 'http_listen', 'method', 'psk', 'password', 'obfs', 'user', 'workers'] as const

/** A fresh configuration with the old values of what cannot change, and the keys of which that keeps a change back. */
export function keepFixed(old: Config, fresh: Config): { readonly config: Config; readonly kept: readonly string[] } {
  const kept: string[] = FIXED_KEYS.filter((key) => old[key] !== fresh[key])
  if (old.tcp.reuseport !== fresh.tcp.reuseport) kept.push('tcp.reuseport')
  const { listen, http_listen, method, psk, password, obfs, user, workers } = old
  // with several workers the first process opened the socket
  const shared = workers > 1 && (old.mode & MODE_SERVER) !== 0
  const stays = shared ? { kcp_bind: old.kcp_bind, netdev: old.netdev, udp: old.udp } : {}
  if (shared) {
    if (old.kcp_bind !== fresh.kcp_bind) kept.push('kcp_bind')
    if (old.netdev !== fresh.netdev) kept.push('netdev')
    if (JSON.stringify(old.udp) !== JSON.stringify(fresh.udp)) kept.push('udp')
  }
  const tcp = { ...fresh.tcp, reuseport: old.tcp.reuseport }
  return { config: { ...fresh, listen, http_listen, method, psk, password, obfs, user, workers, tcp, ...stays }, kept }
}

/** Whether the UDP socket must be opened anew for options that are set when it is opened. */
export function needsOtherSocket(old: Config, fresh: Config): boolean {
  return old.netdev !== fresh.netdev || JSON.stringify(old.udp) !== JSON.stringify(fresh.udp)
}

export interface ReloadOptions {
  readonly runtime: Pick<Runtime, 'readFile'>
  readonly log: Log
  /** The path of the start, as it was given. */
  readonly path: string
  readonly endpoint: { readonly config: Config; reload(config: Config): Promise<void> }
  /** Sets level and output of the log, and says there what is doubtful about the file. */
  applyLog(config: Config): void
  /** A reload begins, and ended (with success or not): for service managers. */
  onBegin?(): void
  onEnd?(): void
}

/** The handler of SIGHUP. One reload at a time: a request during one makes another follow it. The result never rejects. */
export function makeReload(options: ReloadOptions): () => Promise<void> {
  let running: Promise<void> | undefined
  let again = false
  const loop = async (): Promise<void> => {
    while (again) {
      again = false
      options.onBegin?.()
      await reloadOnce(options)
      options.onEnd?.()
    }
    running = undefined
  }
  return () => {
    again = true
    running ??= loop()
    return running
  }
}

async function reloadOnce({ runtime, log, path, endpoint, applyLog }: ReloadOptions): Promise<void> {
  log.notice(`reloading the configuration: ${path}`)
  try {
    const config = parseConfig(await runtime.readFile(path))
    checkAddresses(config)
    const { mode } = endpoint.config
    if (config.mode !== mode) {
      throw new Error(`the mode cannot change from ${modeName(mode)} to ${modeName(config.mode)}`)
    }
    applyLog(config)
    await endpoint.reload(config)
    log.notice('config successfully reloaded')
  } catch (error) {
    applyLog(endpoint.config)
    log.error(`reload failed, the old configuration stays: ${messageOf(error)}`)
  }
}
