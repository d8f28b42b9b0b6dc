/** The log of an endpoint in a program of its own: lines go to a console-like logger, or nowhere. */

import { LOG_ERROR, LOG_NOTICE, LOG_WARNING, Log } from '../log/log.ts'
import type { Clock } from '../runtime.ts'
import type { Logger } from './api.ts'

/**
 * Creates a log that writes each line to `logger`, without time and level: they are the logger's own. It is called in a
 * later microtask: never inside the engine.
 */
export function logTo(logger: Logger | undefined, clock: Clock): Log {
  const log = new Log(
    () => {},
    () => new Date(clock.wall()),
    () => (level, text) => {
      queueMicrotask(() => {
        if (level <= LOG_ERROR) logger?.error(text)
        else if (level === LOG_WARNING) logger?.warn(text)
        else if (level === LOG_NOTICE) logger?.info(text)
        else logger?.debug(text)
      })
    },
  )
  log.setOutput(logger === undefined ? 'discard' : 'syslog')
  return log
}
