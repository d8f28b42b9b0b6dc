/** The log of one of several tunnels: its lines carry the tunnel's name. */

import { LOG_SILENCE, LOG_WARNING, Log } from './log.ts'

/** Level and output are those of the log of the process; limits and recent lines are its own. */
export class TunnelLog extends Log {
  readonly #log: Log
  readonly #name: string

  /** @param log of the process */
  constructor(log: Log, name: string, now: () => Date) {
    super(() => {}, now)
    this.#log = log
    this.#name = name
  }

  override get level(): number {
    return this.#log.level
  }

  override at(level: number): boolean {
    return this.#log.at(level)
  }

  override write(level: number, text: string): void {
    if (level <= LOG_WARNING && level > LOG_SILENCE) this.remember(level, text)
    this.#log.write(level, text, this.#name)
  }
}
