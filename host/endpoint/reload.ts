/**
 * The reload loop (protocol.md 10.5): reads the file again, checks it, and passes it to the running endpoint, which
 * applies it completely or not at all.
 */

import type { Config, ConfigFile } from '../config/config.ts'
import { modeName } from '../config/rules.ts'
import { parseFile } from '../config/tunnels.ts'
import { ConfigError, messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { ReloadOutcome } from '../monitoring/source.ts'
import type { Runtime } from '../runtime.ts'
import { readRemedy } from '../service/identity.ts'
import { checkAddresses } from '../transport/resolver.ts'
import { reloadedOutcome } from './reload-outcome.ts'

/** What runs: one tunnel, or those of a file with `tunnels`. */
export type Reloadable =
  | { readonly config: Config; reload(config: Config): Promise<void> }
  | { readonly file: ConfigFile; reloadAll(file: ConfigFile): Promise<void> }

export interface ReloadOptions {
  readonly runtime: Pick<Runtime, 'readFile' | 'os'>
  readonly log: Log
  /** Path of the configuration file, as given at start. */
  readonly path: string
  /** Reads it; absent: it is the file at `path`. */
  readonly read?: () => Promise<Uint8Array>
  readonly endpoint: Reloadable
  /** Checks whether the output of the log can be set. @throws ConfigError */
  checkLog?(file: ConfigFile): Promise<void>
  /** Sets level and output of the log, and logs warnings about the file. */
  applyLog(file: ConfigFile, bytes: Uint8Array): void | Promise<void>
  /** Called before and after each reload, successful or not, for service managers. */
  onBegin?(): void
  onEnd?(): void
}

/**
 * Makes what SIGHUP calls. Reloads run one at a time; all requests during a reload together cause one more after it.
 * @returns a function whose promise never rejects
 */
export function makeReload(options: ReloadOptions): () => Promise<ReloadOutcome> {
  let running: Promise<unknown> | undefined
  let next: Promise<ReloadOutcome> | undefined
  const once = async (): Promise<ReloadOutcome> => {
    next = undefined
    options.onBegin?.()
    const outcome = await reloadOnce(options)
    options.onEnd?.()
    return outcome
  }
  return () => {
    if (next !== undefined) return next
    const outcome = running === undefined ? once() : running.then(once)
    if (running !== undefined) next = outcome
    running = outcome
    void outcome.then(() => {
      if (running === outcome) running = undefined
    })
    return outcome
  }
}

async function reloadOnce(options: ReloadOptions): Promise<ReloadOutcome> {
  const { runtime, log, path, read, endpoint, checkLog, applyLog } = options
  log.notice(`reloading the configuration: ${path}`)
  try {
    const before = fileOf(endpoint)
    const bytes = await (read?.() ?? runtime.readFile(path))
    const file = parseFile(bytes)
    await checkLog?.(file)
    if ('reloadAll' in endpoint) await endpoint.reloadAll(file)
    else await reloadOne(endpoint, file)
    await applyLog(file, bytes)
    log.notice('config successfully reloaded')
    return reloadedOutcome(before, fileOf(endpoint), file)
  } catch (error) {
    const remedy = readRemedy(error, runtime.os, path)
    const text = `reload failed, keeping the old configuration: ${messageOf(error)}${remedy}`
    log.error(text)
    return { outcome: 'refused', error: text, ...(error instanceof ConfigError && { key: error.key }) }
  }
}

/** What is in force. */
const fileOf = (endpoint: Reloadable): ConfigFile =>
  'file' in endpoint ? endpoint.file : { config: endpoint.config, tunnels: undefined }

async function reloadOne(endpoint: Exclude<Reloadable, { reloadAll: unknown }>, file: ConfigFile): Promise<void> {
  const { config, tunnels } = file
  if (tunnels !== undefined) throw new ConfigError('tunnels', '', 'was not there at the start: restart the program')
  checkAddresses(config)
  const { mode } = endpoint.config
  if (config.mode !== mode) {
    throw new Error(`the mode cannot change from ${modeName(mode)} to ${modeName(config.mode)}`)
  }
  await endpoint.reload(config)
}
