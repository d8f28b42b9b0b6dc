/** Runs a subcommand in memory; the test supplies files, terminal and answers. */

import { COMMAND_LINE } from '../../host/cli/args.ts'
import { runCommand } from '../../host/cli/commands/command.ts'
import { findCommand } from '../../host/cli/commands/table.ts'
import type { CommandConsole, Terminal } from '../../host/runtime.ts'
import { MemoryNetwork, NO_CIPHERS } from './memory-runtime.ts'

/** The environment of a command. */
export interface World {
  /** Texts by path; the command adds its files here. */
  readonly files?: Map<string, string>
  readonly directories?: readonly string[]
  /** Permission bits of every file. */
  readonly mode?: number
  /** The user's answers at the terminal, in order, followed by end of input. Absent: no terminal. */
  readonly answers?: readonly string[]
  readonly started?: CommandConsole['started']
  readonly env?: Readonly<Record<string, string>>
  /** Standard input, or its parts as they arrive. */
  readonly input?: string | Uint8Array | readonly string[]
  /** Columns of the terminal. */
  readonly columns?: number
  /** Error codes of files that cannot be created, by path. */
  readonly broken?: Readonly<Record<string, string>>
}

export interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  readonly questions: readonly string[]
  readonly files: ReadonlyMap<string, string>
  /** Parts of the input that were not waited for. */
  readonly unread: number
}

const failure = (code: string): Error => Object.assign(new Error(`${code}: it failed`), { code })

const terminalOfWidth = (columns: number): Terminal => ({
  size: () => ({ columns, rows: 24 }),
  onResize: () => {},
  onKeys: () => {},
  endKeys: () => {},
  onExit: () => {},
})

export async function tryCommand(name: string, words: readonly string[], world: World = {}): Promise<Outcome> {
  const entry = findCommand(name)
  if (entry === undefined) throw new Error(`no command ${name}`)
  const { files = new Map<string, string>(), directories = ['.'], answers } = world
  const questions: string[] = []
  const printed = { stdout: '', stderr: '' }
  const waiting = [...(answers ?? [])]
  let unread = 0
  const commandConsole: CommandConsole = {
    started: world.started ?? { command: 'node', script: '/usr/bin/kcptun-wasm' },
    directory: '/home/me',
    createFile(path, text) {
      const why = world.broken?.[path]
      if (why !== undefined) throw failure(why)
      if (files.has(path)) throw failure('EEXIST')
      files.set(path, text)
    },
    replaceFile(path, text) {
      const why = world.broken?.[path]
      if (why !== undefined) throw failure(why)
      files.set(path, text)
    },
    removeFile: (path) => void files.delete(path),
    createDirectory(path) {
      const why = world.broken?.[path]
      if (why !== undefined) throw failure(why)
    },
    fileMode(path) {
      if (!files.has(path) && !directories.includes(path)) throw failure('ENOENT')
      return world.mode
    },
    isTerminal: () => answers !== undefined,
    async ask(question) {
      questions.push(question)
      return waiting.shift()
    },
    async readInput(limit, isComplete) {
      const { input = '' } = world
      if (input instanceof Uint8Array) return input
      const parts = typeof input === 'string' ? [input] : [...input]
      let bytes = new Uint8Array()
      while (parts.length > 0 && !isComplete(bytes)) bytes = Buffer.concat([bytes, Buffer.from(parts.shift() ?? '')])
      if (bytes.length > limit) throw new Error('too long')
      unread = parts.length
      return bytes
    },
  }
  const runtime = Object.assign(new MemoryNetwork().runtime(), {
    commandConsole,
    os: undefined,
    terminal: world.columns === undefined ? undefined : terminalOfWidth(world.columns),
    print(stream: 'stdout' | 'stderr', text: string) {
      printed[stream] += text
    },
    async readFile(path: string) {
      const text = files.get(path)
      if (text === undefined) throw failure('ENOENT')
      return new TextEncoder().encode(text)
    },
  })
  const status = await runCommand({ runtime, crypto: NO_CIPHERS, commandLine: COMMAND_LINE }, entry, words)
  return { status, ...printed, questions, files, unread }
}
