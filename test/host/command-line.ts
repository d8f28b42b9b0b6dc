/** Runs a subcommand in memory; the test supplies files, terminal and answers. */

import { COMMAND_LINE } from '../../host/cli/args.ts'
import { runCommand } from '../../host/cli/commands/command.ts'
import { findCommand } from '../../host/cli/commands/table.ts'
import type { CommandConsole } from '../../host/runtime.ts'
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
  /** Error codes of files that cannot be created, by path. */
  readonly broken?: Readonly<Record<string, string>>
}

export interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  readonly questions: readonly string[]
  readonly files: ReadonlyMap<string, string>
}

const failure = (code: string): Error => Object.assign(new Error(`${code}: it failed`), { code })

export async function tryCommand(name: string, words: readonly string[], world: World = {}): Promise<Outcome> {
  const entry = findCommand(name)
  if (entry === undefined) throw new Error(`no command ${name}`)
  const { files = new Map<string, string>(), directories = ['.'], answers } = world
  const questions: string[] = []
  const printed = { stdout: '', stderr: '' }
  const waiting = [...(answers ?? [])]
  const commandConsole: CommandConsole = {
    started: world.started ?? { command: 'node', script: '/usr/bin/kcptun-wasm' },
    directory: '/home/me',
    createFile(path, text) {
      const why = world.broken?.[path]
      if (why !== undefined) throw failure(why)
      if (files.has(path)) throw failure('EEXIST')
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
  }
  const runtime = Object.assign(new MemoryNetwork().runtime(), {
    commandConsole,
    os: undefined,
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
  return { status, ...printed, questions, files }
}
