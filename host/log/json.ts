/**
 * Log lines as JSON (`--log-format json`), one object per line. Session and peer are extracted from the text, so that
 * callers only write the text.
 */

/** Names of the levels 0 to 8. */
const LEVELS = ['silence', 'fatal', 'error', 'warning', 'notice', 'info', 'debug', 'verbose', 'very verbose'] as const

/** With the name of its user, where a server has several keys. */
const SESSION = /^\[session:([0-9A-F]{8})(?: ([\w.-]+))?\] /
/** `host:port` as `formatAddress` prints it. */
const ADDRESS = String.raw`(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.%]+\]):\d+`
/** Phrases before the address of a peer. If the peer moved, the new address is extracted. */
const PEER = new RegExp(
  `(?:peer moved(?: from ${ADDRESS})? to |peer found at |no answer from |waiting for |connected: (?:rendezvous server )?|from )(${ADDRESS})` +
    `|^(${ADDRESS}) (?:refuses|cannot be reached)`,
)

/** DEL and C1 control characters, which JSON does not escape and terminals interpret. */
const CONTROL = /[\u007f-\u009f]/g

/**
 * Formats a log line as JSON.
 * @param level 0 to 8
 * @param tunnel one of several
 * @returns the object without line break: `time` (RFC 3339, UTC, ms), `level`, `tunnel`, `text`, and, if named in the
 * text, `session` (conv, 8 hex digits), `user` (name of its key) and `peer` (`host:port`)
 */
export function jsonLine(level: number, time: Date, text: string, tunnel?: string): string {
  const peer = PEER.exec(text)
  const session = SESSION.exec(text)
  const line = {
    time: time.toISOString(),
    level: LEVELS[level] ?? LEVELS[8],
    tunnel,
    text,
    session: session?.[1],
    user: session?.[2],
    peer: peer?.[1] ?? peer?.[2],
  }
  return JSON.stringify(line).replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
