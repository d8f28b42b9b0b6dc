/** LogFileCalls with node:fs. */
import {
  accessSync,
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  openSync,
  type Stats,
  statSync,
  write,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { codeOf } from '../host/errors.ts'
import type { LogFileCalls } from '../host/runtime.ts'

/** The log names peers and addresses: for the owner and a group such as adm, not for everybody. */
const MODE = 0o640

/** Missing on Windows. */
const { O_NONBLOCK = 0, O_NOCTTY = 0 } = constants
const APPEND = constants.O_WRONLY | constants.O_APPEND | O_NONBLOCK | O_NOCTTY

/** An id that chown(2) does not change. */
const UNCHANGED = -1

const NO_READER = 'it is a FIFO that nobody reads'
const REFUSED = 'it is neither a file nor a FIFO nor a character device'

const isUsable = (stat: Stats): boolean => stat.isFile() || stat.isFIFO() || stat.isCharacterDevice()

function openFile(path: string): { fd: number; isNew: boolean } {
  try {
    return { fd: openSync(path, APPEND | constants.O_CREAT | constants.O_EXCL, MODE), isNew: true }
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  // with O_CREAT also through a symbolic link to a file that is not there
  return { fd: openSync(path, APPEND | constants.O_CREAT, MODE), isNew: false }
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

export const logFileCalls: LogFileCalls = {
  open(path) {
    let opened: { fd: number; isNew: boolean }
    try {
      opened = openFile(path)
    } catch (error) {
      throw codeOf(error) === 'ENXIO' && statOf(path)?.isFIFO() ? new Error(NO_READER) : error
    }
    if (isUsable(fstatSync(opened.fd))) return opened
    closeSync(opened.fd)
    throw new Error(REFUSED)
  },

  problem(path) {
    try {
      const stat = statOf(path)
      if (stat?.isDirectory()) return 'it is a directory'
      if (stat !== undefined && !isUsable(stat)) return REFUSED
      const folder = dirname(path)
      if (stat === undefined && statOf(folder) === undefined) return `the directory ${folder} does not exist`
      if (stat === undefined) accessSync(folder, constants.W_OK | constants.X_OK)
      else accessSync(path, constants.W_OK)
      return undefined
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  },

  write(fd, bytes, done) {
    // Deno writes all that it can, and then does not say how much that was
    const before = process.versions['deno'] === undefined ? 0 : fstatSync(fd).size
    write(fd, bytes, 0, bytes.length, null, (error, written = 0) => {
      const isUnknown = error !== null && process.versions['deno'] !== undefined
      done(error, isUnknown ? Math.max(0, fstatSync(fd).size - before) : written)
    })
  },

  writeNow(fd, bytes) {
    let written = 0
    while (written < bytes.length) written += writeSync(fd, bytes, written)
  },

  setOwner: (fd, uid = UNCHANGED, gid = UNCHANGED) => fchownSync(fd, uid, gid),

  close: (fd) => closeSync(fd),

  onExit: (callback) => void process.on('exit', callback),
}
