/**
 * Log lines for machines (`--log-format json`): one JSON object a line. Which session and peer a line is about is read
 * from its text, so that callers write one text for people.
 */

/** Names of the levels 0 to 8. */
const LEVELS = ['silence', 'fatal', 'error', 'warning', 'notice', 'info', 'debug', 'verbose', 'very verbose'] as const

const SESSION = /^\[session:([0-9A-F]{8})\] /
/** `host:port` as `formatAddress` prints it. */
const ADDRESS = String.raw`(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.%]+\]):\d+`
/** What stands before the address of a peer; of one that moved the new address counts. */
const PEER = new RegExp(`(?:peer moved(?: from ${ADDRESS})? to|peer found at|no answer from|from) (${ADDRESS})`)

/** C1 control characters, which JSON leaves as they are and terminals obey. */
const CONTROL = /[\u007f-\u009f]/g

/**
 * @param level 0 to 8
 * @returns the object without line break: `time` (RFC 3339, UTC, ms), `level`, `text`, and `session` (conv, 8 hex digits)
 * and `peer` (`host:port`) where the text names them
 */
export function jsonLine(level: number, time: Date, text: string): string {
  const line = {
    time: time.toISOString(),
    level: LEVELS[level] ?? LEVELS[8],
    text,
    session: SESSION.exec(text)?.[1],
    peer: PEER.exec(text)?.[1],
  }
  return JSON.stringify(line).replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
