/** Where the configuration comes from: a file, or the environment of a plugin (`plugin.ts`). */

import { messageOf, StartError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Runtime } from '../runtime.ts'
import { readConfigFile } from './commands/command.ts'

export interface Source {
  /** For the log. */
  readonly name: string
  /** The file that has the key; undefined: no file. */
  readonly path: string | undefined
  /** @throws ConfigError, StartError */
  read(): Promise<Uint8Array>
  /** An error of the start in the terms of the source. */
  explain(error: unknown): unknown
  /** Called once, before anything is opened. @param stop ends the program, for a reason that it logs */
  begin(stop: (reason: string) => void): void
}

/** Reads a config file. @throws StartError */
export const readConfig = (runtime: Runtime, path: string): Promise<Uint8Array> =>
  readConfigFile(runtime, path).catch((error) => {
    throw new StartError(messageOf(error))
  })

/** @param isPlugin whether shadowsocks started the program all the same */
export const fileSource = (runtime: Runtime, path: string, log: Log, isPlugin: boolean): Source => ({
  name: path,
  path,
  read: () => readConfig(runtime, path),
  explain: (error) => error,
  begin() {
    if (isPlugin) log.notice(`a config file is given: the environment of a shadowsocks plugin (SS_*) is not used`)
  },
})
