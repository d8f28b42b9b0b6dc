// node build/check-imports.mjs: refuses imports that point the wrong way. assembly/ and host/ see nothing but themselves
// (host/ npm packages too, but no node:* and no bun:*), a runtime sees host/ and what both runtimes share.

import { readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { posix } from 'node:path'
import { filesBelow, inProject } from './files.mjs'

const PACKAGE = 'npm packages'
const SYSTEM = 'node:* modules'
const BUN = 'bun:* modules'

/** Room -> rooms it may import. @type {Record<string, readonly string[]>} */
const allowed = {
  assembly: ['assembly'],
  host: ['host', PACKAGE, 'package.json'],
  'runtime-shared': ['runtime-shared', 'host', PACKAGE, SYSTEM, 'package.json'],
  'runtime-node': ['runtime-node', 'runtime-shared', 'host', PACKAGE, SYSTEM, 'package.json'],
  'runtime-bun': ['runtime-bun', 'runtime-shared', 'host', PACKAGE, SYSTEM, BUN, 'package.json'],
}

/**
 * @param {string} file relative to the project
 * @param {string} specifier
 */
function roomOf(file, specifier) {
  if (specifier.startsWith('.')) return posix.join(posix.dirname(file), specifier).split('/')[0] ?? ''
  if (specifier === 'bun' || specifier.startsWith('bun:')) return BUN
  if (specifier.startsWith('node:') || builtinModules.includes(specifier.split('/')[0] ?? '')) return SYSTEM
  return PACKAGE
}

/**
 * Specifiers of all static and dynamic imports and re-exports, type-only ones included.
 * @param {string} source
 */
function specifiers(source) {
  // whole-line comments may hold examples
  const bare = source.replace(/^[ \t]*(\/\/.*|\*.*|\/\*.*)$/gm, '')
  const pattern = /\bfrom\s*(['"])([^'"\n]+)\1|\bimport\s*\(?\s*(['"])([^'"\n]+)\3|\brequire\s*\(\s*(['"])([^'"\n]+)\5/g
  return [...bare.matchAll(pattern)].map((match) => match[2] ?? match[4] ?? match[6] ?? '')
}

let wrong = 0
for (const [room, targets] of Object.entries(allowed)) {
  for (const file of filesBelow(room).filter((name) => /\.[cm]?[jt]s$/.test(name))) {
    for (const specifier of specifiers(readFileSync(inProject(file), 'utf8'))) {
      const target = roomOf(file, specifier)
      if (targets.includes(target)) continue
      wrong++
      process.stderr.write(`${file}: must not import '${specifier}': ${room} may only import ${targets.join(', ')}\n`)
    }
  }
}
process.stderr.write(wrong === 0 ? 'imports point one way\n' : `${wrong} imports point the wrong way\n`)
process.exitCode = wrong === 0 ? 0 : 1
