/**
 * The reload loop (protocol.md 10.5): reads the file again, checks it, and hands it to the running endpoint, which takes
 * over all of it or nothing.
 */

import type { Config } from '../config/config.ts'
import { parseConfig } from '../config/load.ts'
import { modeName } from '../config/rules.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Runtime } from '../runtime.ts'
import { checkAddresses } from '../transport/resolver.ts'

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
    await endpoint.reload(config)
    applyLog(config)
    log.notice('config successfully reloaded')
  } catch (error) {
    log.error(`reload failed, the old configuration stays: ${messageOf(error)}`)
  }
}
