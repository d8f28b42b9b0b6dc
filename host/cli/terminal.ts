/**
 * The terminal of a process: how large it is, keys one by one, and a screen that is given back whatever happens. Made
 * from the streams of the runtime, which Node and Bun have alike.
 */
import type { Terminal } from '../runtime.ts'

/** Size taken where none is known, as of the oldest terminals. */
const COLUMNS_DEFAULT = 80
const ROWS_DEFAULT = 24

interface Output {
  readonly columns?: number | undefined
  readonly rows?: number | undefined
  on(event: 'resize', listener: () => void): unknown
}

interface Input {
  setRawMode?(raw: boolean): unknown
  setEncoding(encoding: 'utf8'): unknown
  on(event: 'data', listener: (text: string) => void): unknown
  resume(): unknown
  pause(): unknown
}

/** What node:process has of it. */
export interface TerminalProcess {
  readonly stdin: Input
  readonly stdout: Output
  on(event: 'exit', listener: () => void): unknown
}

/** The terminal of a process. No stream is opened before it is asked for. */
export function terminalOf(host: TerminalProcess): Terminal {
  return {
    size() {
      const { columns = 0, rows = 0 } = host.stdout
      return { columns: columns > 0 ? columns : COLUMNS_DEFAULT, rows: rows > 0 ? rows : ROWS_DEFAULT }
    },
    onResize: (callback) => void host.stdout.on('resize', callback),
    onKeys(callback) {
      const { stdin } = host
      stdin.setRawMode?.(true)
      stdin.setEncoding('utf8')
      stdin.on('data', callback)
      stdin.resume()
    },
    endKeys() {
      host.stdin.setRawMode?.(false)
      host.stdin.pause()
    },
    onExit: (callback) => void host.on('exit', callback),
  }
}
