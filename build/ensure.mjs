// Prepares a checkout: installs packages if node_modules is missing or older than package-lock.json, then builds what
// is stale. Uses only Node's own modules: it runs before any package is installed.

import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Modification time, 0 for a missing file. @param {string} path relative to the project */
const modified = (path) => statSync(new URL(`../${path}`, import.meta.url), { throwIfNoEntry: false })?.mtimeMs ?? 0

/**
 * @param {string} command
 * @param {readonly string[]} args
 */
function run(command, args) {
  // stdout belongs to the program that follows
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: command === 'npm.cmd',
  })
  if (error) process.stderr.write(`${command}: ${error.message}\n`)
  if (status !== 0) process.exit(status ?? 1)
}

// npm writes node_modules/.package-lock.json at the end of an installation
if (modified('node_modules/.package-lock.json') < modified('package-lock.json')) {
  process.stderr.write('npm ci\n')
  run(process.platform === 'win32' ? 'npm.cmd' : 'npm', ['ci', '--no-audit', '--no-fund'])
}
run(process.execPath, [fileURLToPath(new URL('build.mjs', import.meta.url)), '--if-stale'])
