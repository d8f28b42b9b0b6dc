/** Where the log of a process goes: what the key `log` names. Files are loaded when one is named. */

import { ConfigError, messageOf, quote } from '../errors.ts'
import type { Clock, LogFileCalls, Runtime } from '../runtime.ts'
import { isLogFile, parseLogFile } from './file-name.ts'
import type { Log } from './log.ts'
import type { LogFile } from './log-file.ts'

export class LogOutput {
  readonly #runtime: { readonly clock: Clock } & Pick<Runtime, 'logFiles'>
  readonly #log: Log
  #file: LogFile | undefined
  #isEndWatched = false

  constructor(runtime: { readonly clock: Clock } & Pick<Runtime, 'logFiles'>, log: Log) {
    this.#runtime = runtime
    this.#log = log
  }

  /**
   * Checks before anything changes whether `set` can succeed.
   * @param name value of `log`
   * @throws ConfigError
   */
  async check(name: string): Promise<void> {
    if (!isLogFile(name) || parseLogFile(name) === this.#file?.path) return
    const problem = (await this.#calls(name)).problem(parseLogFile(name))
    if (problem !== undefined) throw new ConfigError('log', quote(name), `cannot be opened: ${problem}`)
  }

  /**
   * Changes the output.
   * @param name value of `log`
   * @throws ConfigError if it is a file that cannot be opened; the output stays then
   */
  async set(name: string): Promise<void> {
    if (!isLogFile(name)) {
      this.#log.setOutput(name)
      if (!this.#log.isInFile) await this.#leave()
      return
    }
    const path = parseLogFile(name)
    if (path === this.#file?.path) return
    const calls = await this.#calls(name)
    const { LogFile } = await import('./log-file.ts')
    try {
      if (this.#file === undefined) {
        this.#file = new LogFile(calls, this.#runtime.clock, this.#log, path)
        this.#log.setFile(this.#file)
        if (!this.#isEndWatched) calls.onExit(() => this.#file?.writeLast())
        this.#isEndWatched = true
        return
      }
      const { path: before } = this.#file
      this.#file.reopen(path)
      this.#log.notice(`the log continues here, it was in ${before}`)
    } catch (error) {
      throw new ConfigError('log', quote(name), `cannot be opened: ${messageOf(error)}`)
    }
  }

  /** Opens the file again, which may have been renamed; without a file nothing happens. */
  reopen(): void {
    const file = this.#file
    if (file === undefined) return
    try {
      file.reopen()
      this.#log.notice(`log file opened again: ${file.path}`)
    } catch (error) {
      const why = `cannot be opened again, the log stays in the file opened before: ${messageOf(error)}`
      this.#log.error(`config key log = ${quote(`file:${file.path}`)}: ${why}`)
    }
  }

  /** Whether the log is in a file that this process created. */
  get isNew(): boolean {
    return this.#file?.isNew === true
  }

  /** Gives the file to the user that the process is about to run as. @throws Error */
  setOwner(uid: number | undefined, gid: number | undefined): void {
    this.#file?.setOwner(uid, gid)
  }

  /** Resolves when the lines so far are written; undefined: at once. */
  flush(): Promise<void> | undefined {
    return this.#file?.flush()
  }

  async #leave(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    await file?.close()
  }

  #calls(name: string): Promise<LogFileCalls> {
    const calls = this.#runtime.logFiles?.()
    if (calls === undefined) throw new ConfigError('log', quote(name), 'files are not available on this system')
    return calls
  }
}
