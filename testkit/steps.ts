/** The steps that `rotate` prints, carried out as a user would: by an editor and a shell. */
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { commandOf, type Program, projectRoot, type Running, run } from './process.ts'
import { waitFor } from './wait.ts'

const RELOADED = 'config successfully reloaded'
const FAILED = 'reload failed'
const REPLACED = /Steps that replace the key (\S+) of/
const count = (text: string, part: string): number => text.split(part).length - 1

/** What is to be written where. */
export class Steps {
  readonly text: string
  /** Lines of each indented block. */
  readonly #blocks: readonly string[]

  constructor(text: string) {
    this.text = text
    this.#blocks = text
      .split(/\n(?! {7}|\n)/)
      .map((part) => part.match(/^ {7}.*$/gm)?.join('\n') ?? '')
      .filter((block) => block !== '')
  }

  /** Asks the program for steps. */
  static async print(program: Program, ...words: string[]): Promise<Steps> {
    const { code, stdout, stderr } = await run(program, ['rotate', ...words])
    if (code !== 0) throw new Error(stderr)
    return new Steps(stdout)
  }

  #block(pattern: RegExp, index = 0): string {
    const block = this.#blocks.filter((text) => pattern.test(text))[index]
    if (block === undefined) throw new Error(`no step has ${pattern}:\n${this.text}`)
    return block
  }

  /** Step 1 in the file of the server. */
  add(path: string): void {
    const text = readFileSync(path, 'utf8')
    const [, after] = /add this entry to \S*keys, after that of (\S+):/.exec(this.text) ?? []
    const before = after === undefined ? /^.*"psk": ".*"/m : new RegExp(`^.*"name": "${after}".*\\}`, 'm')
    const what = after === undefined ? () => this.#block(/"keys"/) : (old: string) => `${old},\n${this.#block(/^ *\{/)}`
    writeFileSync(path, text.replace(before, what))
  }

  /** Step 2 in the file of a client with psk. */
  use(path: string): void {
    const index = count(this.text, '"keys": [') - 1
    writeFileSync(
      path,
      readFileSync(path, 'utf8').replace(/^.*"psk": ".*"/m, () => this.#block(/"keys"/, index)),
    )
  }

  /** The new key. */
  get psk(): string {
    const [, name = ''] = REPLACED.exec(this.text) ?? []
    const entries = [...this.text.matchAll(/\{ "name": "([^"]+)", "psk": "([^"]+)"/g)]
    const entry = entries.find(([, other]) => other !== name)
    if (entry === undefined) throw new Error('no new key')
    return entry[2] ?? ''
  }

  /** Steps 4 and 5: removes the entry of the old key from a file. */
  remove(path: string): void {
    const [, name] = REPLACED.exec(this.text) ?? []
    const text = readFileSync(path, 'utf8')
    const entry = `[ ]*\\{ "name": "${name}",.*\\}`
    const rest = text.replace(new RegExp(`${entry},\\n`), '').replace(new RegExp(`,\\n${entry}\\n`), '\n')
    if (rest === text) throw new Error(`${path} has no entry ${name}`)
    writeFileSync(path, rest)
  }

  /** Step 3: what the printed command prints. */
  async status(program: Program): Promise<string> {
    const line = this.#block(/ --status/).trim()
    const [, words = ''] = / (rotate .*)$/.exec(line) ?? []
    const [command, ...leading] = commandOf(program)
    const { stdout } = await promisify(execFile)(command, [...leading, ...words.split(' ')], { cwd: projectRoot })
    return stdout
  }
}

/** Sends SIGHUP and waits until the file is taken over. */
export async function reloadFile(end: Running): Promise<void> {
  const before = count(end.log(), RELOADED)
  const failures = count(end.log(), FAILED)
  process.kill(end.pid, 'SIGHUP')
  await waitFor(
    'the file is reloaded',
    () => {
      if (count(end.log(), FAILED) > failures) throw new Error(end.log().slice(-2000))
      return count(end.log(), RELOADED) > before
    },
    20_000,
    () => end.log().slice(-2000),
  )
}
