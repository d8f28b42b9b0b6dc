/** A subcommand of the program that runs until it is stopped. */
import { type ChildProcess, spawn } from 'node:child_process'
import { commandOf, type Program } from './process.ts'
import { waitFor } from './wait.ts'

export class Command {
  readonly #child: ChildProcess
  log = ''

  constructor(program: Program, ...words: string[]) {
    const [command, ...leading] = commandOf(program)
    this.#child = spawn(command, [...leading, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => (this.log += text))
  }

  /** Waits for the line that says so. */
  starts(): Promise<void> {
    return waitFor(
      'the command starts',
      () => / start$/m.test(this.log),
      30_000,
      () => this.log,
    )
  }

  /** @returns the exit status */
  async stop(): Promise<number | null> {
    const exited = new Promise<number | null>((resolve) => this.#child.once('exit', resolve))
    this.#child.kill()
    return exited
  }
}
