/**
 * The terminal of a process: its size, single key presses, and a callback at exit to restore the screen. Built on the
 * standard streams, which are the same on Node and Bun.
 */
import type { Terminal } from '../runtime.ts'

/** Size assumed if the terminal does not report one. */
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

/** The part of node:process that is used. */
export interface TerminalProcess {
  readonly stdin: Input
  readonly stdout: Output
  on(event: 'exit', listener: () => void): unknown
}

/** The terminal of a process. Streams are opened on first use. */
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
