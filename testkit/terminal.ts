/** A terminal with a shell: a separate tmux server with one window. */
import { spawnSync } from 'node:child_process'
import { waitFor } from './wait.ts'

/** Why terminals cannot be used here; undefined if they can. */
export const terminalProblem: string | undefined =
  spawnSync('tmux', ['-V']).status === 0 ? undefined : 'there is no tmux'

const SHELL = 'env PS1=READY: LC_ALL=C.UTF-8 bash --norc --noprofile'
let count = 0

/** What a terminal shows. */
export interface Screen {
  /** Lines with SGR sequences. */
  readonly lines: readonly string[]
  /** Absent: hidden. */
  readonly cursor?: readonly [column: number, row: number]
}

export class Terminal {
  readonly #socket = `kcptun-wasm-test-${process.pid}-${count++}`

  /** @param shell command line of the shell; the default one prints READY: as its prompt */
  constructor(columns: number, rows: number, shell = SHELL) {
    this.#tmux('new-session', '-d', '-x', String(columns), '-y', String(rows), shell)
  }

  #tmux(...args: readonly string[]): string {
    const { status, stdout, stderr } = spawnSync('tmux', ['-L', this.#socket, '-f', '/dev/null', ...args], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`tmux ${args.join(' ')}: ${stderr}`)
    return stdout
  }

  type(text: string): void {
    this.#tmux('send-keys', '-l', '--', text)
  }

  key(name: string): void {
    this.#tmux('send-keys', name)
  }

  resize(columns: number, rows: number): void {
    this.#tmux('resize-window', '-x', String(columns), '-y', String(rows))
  }

  screen(): string {
    return this.#tmux('capture-pane', '-p')
  }

  /** What it shows, with colours and cursor. */
  styled(): Screen {
    const position = ['display-message', '-p', '#{cursor_flag} #{cursor_x} #{cursor_y}']
    const lines = this.#tmux('capture-pane', '-p', '-e', ';', ...position)
      .trimEnd()
      .split('\n')
    const [flag, column = 0, row = 0] = (lines.pop() ?? '').split(' ').map(Number)
    return flag === 1 ? { lines, cursor: [column, row] } : { lines }
  }

  /** Whether the alternate screen is on, the cursor visible, and automatic line wrap on. */
  flags(): string {
    return this.#tmux('display-message', '-p', '#{alternate_on} #{cursor_flag} #{wrap_flag}').trim()
  }

  /** Process ID of the program running in the shell. */
  child(): number {
    const shell = this.#tmux('display-message', '-p', '#{pane_pid}').trim()
    return Number(spawnSync('ps', ['-o', 'pid=', '--ppid', shell], { encoding: 'utf8' }).stdout.trim())
  }

  async shows(pattern: RegExp): Promise<void> {
    await waitFor(
      `the terminal shows ${pattern}`,
      () => pattern.test(this.screen()),
      20_000,
      () => this.screen(),
    )
  }

  close(): void {
    spawnSync('tmux', ['-L', this.#socket, 'kill-server'])
  }
}
