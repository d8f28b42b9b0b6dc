// node build/check-imports.mjs: rejects imports in the wrong direction between the rooms of the project and between the
// rooms of host/. Biome detects import cycles between files (noImportCycles).

import { readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { posix } from 'node:path'
import { filesBelow, inProject } from './files.mjs'

const PACKAGE = 'npm packages'
const SYSTEM = 'node:* modules'
const BUN = 'bun:* modules'
const PRODUCT = ['host', 'runtime-shared', 'runtime-node', 'runtime-bun', 'runtime-deno', 'runtime-browser']
const OUTSIDE = [PACKAGE, SYSTEM, BUN, 'dist', 'package.json']

/** Room -> rooms it may import. @type {Record<string, readonly string[]>} */
const allowed = {
  assembly: ['assembly'],
  host: ['host', PACKAGE, 'package.json'],
  'runtime-shared': ['runtime-shared', 'host', PACKAGE, SYSTEM, 'package.json'],
  'runtime-node': ['runtime-node', 'runtime-shared', 'host', PACKAGE, SYSTEM, 'package.json'],
  'runtime-bun': ['runtime-bun', 'runtime-shared', 'host', PACKAGE, SYSTEM, BUN, 'package.json'],
  'runtime-deno': ['runtime-deno', 'runtime-shared', 'host', PACKAGE, SYSTEM, 'package.json'],
  'runtime-browser': ['runtime-browser', 'host', PACKAGE],
  testkit: ['testkit', ...PRODUCT, ...OUTSIDE],
  test: ['test', 'testkit', 'build', ...PRODUCT, ...OUTSIDE],
  bench: ['bench', 'testkit', ...PRODUCT, ...OUTSIDE],
  examples: ['examples', 'testkit', ...OUTSIDE],
}

/** The rooms of host/, bottom first: each may import itself and those before it. */
const hostRooms = [
  'errors.ts',
  'format.ts',
  'version.ts',
  'view-cache.ts',
  'net',
  'runtime.ts',
  'crypto',
  'linux',
  'log',
  'config',
  'service',
  'engine',
  'driver',
  'transport',
  'datagrams',
  'proxy',
  'proxy-protocol',
  'monitoring',
  'dashboard',
  'endpoint',
  'servers',
  'library',
  'workers',
  'tunnels',
  'cli',
]

/** Modules of the system that files below a folder may import all the same: what every runtime has. */
const also = { 'host/cli/': ['node:util'] }

/**
 * @param {string} file relative to the project
 * @param {string} specifier
 */
function targetOf(file, specifier) {
  if (specifier.startsWith('.')) return posix.join(posix.dirname(file), specifier)
  if (specifier === 'bun' || specifier.startsWith('bun:')) return BUN
  if (specifier.startsWith('node:') || builtinModules.includes(specifier.split('/')[0] ?? '')) return SYSTEM
  return PACKAGE
}

/**
 * Specifiers of all static and dynamic imports and re-exports, type-only ones included.
 * @param {string} source
 */
function specifiers(source) {
  // whole-line comments may contain examples
  const bare = source.replace(/^[ \t]*(\/\/.*|\*.*|\/\*.*)$/gm, '')
  const pattern = /\bfrom\s*(['"])([^'"\n]+)\1|\bimport\s*\(?\s*(['"])([^'"\n]+)\3|\brequire\s*\(\s*(['"])([^'"\n]+)\5/g
  return [...bare.matchAll(pattern)].map((match) => match[2] ?? match[4] ?? match[6] ?? '')
}

/**
 * Why a file must not import a target; undefined if it may.
 * @param {string} file
 * @param {string} target
 */
function refusal(file, target) {
  const [room = '', hostRoom = ''] = file.split('/')
  const [targetRoom = '', targetHostRoom = ''] = target.split('/')
  const targets = allowed[room] ?? []
  if (!targets.includes(target) && !targets.includes(targetRoom)) return `${room} may only import ${targets.join(', ')}`
  if (room !== 'host' || targetRoom !== 'host') return undefined
  const at = hostRooms.indexOf(hostRoom)
  if (at < 0) return `host/${hostRoom} is missing in the order of build/check-imports.mjs`
  const targetAt = hostRooms.indexOf(targetHostRoom)
  return targetAt >= 0 && targetAt <= at ? undefined : `host/${hostRoom} is below host/${targetHostRoom}`
}

let wrong = 0
for (const room of Object.keys(allowed)) {
  for (const file of filesBelow(room).filter((name) => /\.[cm]?[jt]s$/.test(name))) {
    for (const specifier of specifiers(readFileSync(inProject(file), 'utf8'))) {
      if (Object.entries(also).some(([folder, names]) => file.startsWith(folder) && names.includes(specifier))) continue
      const why = refusal(file, targetOf(file, specifier))
      if (why === undefined) continue
      wrong++
      process.stderr.write(`${file}: must not import '${specifier}': ${why}\n`)
    }
  }
}
process.stderr.write(wrong === 0 ? 'import directions are correct\n' : `${wrong} imports in the wrong direction\n`)
process.exitCode = wrong === 0 ? 0 : 1
