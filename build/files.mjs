// Files and processes for the build: the project's root, atomic writes, fingerprints of sources, child processes.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

/** @param {string} path relative to the project */
export const inProject = (path) => join(root, path)

/** @param {string} path relative to the project */
export const exists = (path) => existsSync(inProject(path))

/**
 * Replaces a file atomically: a reader sees the old or the new one.
 * @param {string} path relative to the project
 * @param {string | Uint8Array} content
 * @param {number} [mode]
 */
export function replaceFile(path, content, mode = 0o644) {
  const target = inProject(path)
  const draft = `${target}.${process.pid}.tmp`
  mkdirSync(dirname(target), { recursive: true })
  writeFileSync(draft, content, { mode })
  renameSync(draft, target)
}

/**
 * All files at or below a path, sorted; empty for a path that does not exist.
 * @param {string} path relative to the project
 * @returns {string[]} relative to the project, with forward slashes
 */
export function filesBelow(path) {
  const full = inProject(path)
  if (!existsSync(full)) return []
  if (!statSync(full).isDirectory()) return [path]
  return readdirSync(full)
    .sort()
    .flatMap((name) => filesBelow(`${path}/${name}`))
}

/**
 * Digest of names and contents of everything at or below the paths.
 * @param {readonly string[]} paths relative to the project
 */
export function fingerprint(paths) {
  const hash = createHash('sha256')
  for (const file of paths.flatMap(filesBelow)) {
    const content = readFileSync(inProject(file))
    hash.update(`${file}\0${content.length}\0`).update(content)
  }
  return hash.digest('hex')
}

/**
 * Runs a program of node_modules under Node in the project's root.
 * @param {string} script relative to the project
 * @param {readonly string[]} args
 * @returns {Promise<void>} rejects when the exit status is not 0
 */
export function runScript(script, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [inProject(script), ...args], { cwd: root, stdio: ['ignore', 2, 2] })
    child.on('error', reject)
    child.on('exit', (status, signal) => {
      if (status === 0) resolve()
      else reject(new Error(`${script} ended with ${signal ?? `status ${status}`}`))
    })
  })
}

const LOCK_WAIT_MS = 180_000
const LOCK_POLL_MS = 100
/** After this time a lock without its owner's id is considered abandoned, ms. */
const LOCK_NAMELESS_MS = 5000

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

/** @param {string} lock */
function lockIsAbandoned(lock) {
  try {
    return !isAlive(Number(readFileSync(join(lock, 'pid'), 'utf8')))
  } catch {
    // the owner has not written its id yet, or has just released the lock
    const since = statSync(lock, { throwIfNoEntry: false })?.mtimeMs
    return since !== undefined && Date.now() - since > LOCK_NAMELESS_MS
  }
}

/**
 * Runs `action` while no other build of this checkout is running.
 * @template T
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function withLock(action) {
  const lock = inProject('.cache/build.lock')
  mkdirSync(dirname(lock), { recursive: true })
  const deadline = Date.now() + LOCK_WAIT_MS
  for (;;) {
    try {
      mkdirSync(lock)
      break
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
      if (lockIsAbandoned(lock)) rmSync(lock, { recursive: true, force: true })
      else if (Date.now() > deadline) throw new Error(`another build holds ${lock}`)
      else await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS))
    }
  }
  try {
    writeFileSync(join(lock, 'pid'), String(process.pid))
    return await action()
  } finally {
    rmSync(lock, { recursive: true, force: true })
  }
}
