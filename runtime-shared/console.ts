/** Services for subcommands: creating files, the terminal, the program's command line. */
import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import type { CommandConsole } from '../host/runtime.ts'
import { printTo } from './platform.ts'
import { started } from './program.ts'

const require = createRequire(import.meta.url)

const OWNER_ONLY = 0o600
const OWNER_DIRECTORY = 0o700
const PERMISSIONS = 0o7777
const DESCRIPTORS = { stdin: 0, stdout: 1, stderr: 2 } as const

/** Lines of standard input. All questions share one reader, which may have read ahead. */
let lines: AsyncIterator<string> | undefined

/** Creates a file that only its owner can read. */
function createFile(path: string, text: string): void {
  const fd = openSync(path, 'wx', OWNER_ONLY)
  try {
    writeFileSync(fd, text)
    fsyncSync(fd)
  } catch (error) {
    unlinkSync(path)
    throw error
  } finally {
    closeSync(fd)
  }
}

/** Gives a new file owner and permission bits of another; bits for a group that it cannot have are left out. */
function becomeLike(name: string, other: string): void {
  if (process.platform === 'win32') return
  const { mode, uid, gid } = statSync(other)
  try {
    chownSync(name, uid, gid)
    chmodSync(name, mode & PERMISSIONS)
  } catch {
    // it stays with its owner alone
  }
}

export const commandConsole: CommandConsole = {
  get started() {
    return started()
  },
  directory: process.cwd(),

  createFile,

  replaceFile(given, text, isChange = false) {
    const path = isChange ? realpathSync(given) : given
    const name = `${path}.${process.pid}.new`
    createFile(name, text)
    try {
      if (isChange) becomeLike(name, path)
      renameSync(name, path)
    } catch (error) {
      unlinkSync(name)
      throw error
    }
  },

  removeFile: (path) => unlinkSync(path),

  createDirectory: (path) => void mkdirSync(path, { recursive: true, mode: OWNER_DIRECTORY }),

  fileMode(path) {
    const { mode } = statSync(path)
    return process.platform === 'win32' ? undefined : mode & PERMISSIONS
  },

  // node:tty and node:readline take 3 MiB on Bun, and a tunnel needs neither
  isTerminal(stream) {
    const { isatty }: typeof import('node:tty') = require('node:tty')
    return isatty(DESCRIPTORS[stream])
  },

  async ask(question) {
    printTo(DESCRIPTORS.stderr, question)
    const { createInterface }: typeof import('node:readline') = require('node:readline')
    lines ??= createInterface({ input: process.stdin, terminal: false })[Symbol.asyncIterator]()
    const { done, value } = await lines.next()
    return done === true ? undefined : value
  },
  async readInput(limit, isComplete) {
    let bytes = new Uint8Array()
    for await (const chunk of process.stdin) {
      const longer = new Uint8Array(bytes.length + chunk.length)
      longer.set(bytes)
      longer.set(chunk, bytes.length)
      bytes = longer
      if (bytes.length > limit) throw new Error(`longer than ${limit} bytes`)
      if (isComplete(bytes)) break
    }
    return bytes
  },
}
