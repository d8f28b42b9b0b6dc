// Emits the type declarations of the library entries with tsc.

import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { inProject, runScript } from './files.mjs'
import { types } from './plan.mjs'

const SCHEMA = 'host/config/schema.json'

export const TSC = 'node_modules/typescript/bin/tsc'

export async function buildTypes() {
  const draft = `.cache/types.${process.pid}`
  const all = `${draft}.all`
  try {
    await runScript(TSC, ['-p', types.project, '--outDir', all])
    // a declaration may refer to it
    copyFileSync(inProject(SCHEMA), inProject(`${all}/${SCHEMA}`))
    for (const file of needed(inProject(all))) {
      mkdirSync(dirname(inProject(`${draft}/${file}`)), { recursive: true })
      copyFileSync(inProject(`${all}/${file}`), inProject(`${draft}/${file}`))
    }
    rmSync(inProject(types.out), { recursive: true, force: true })
    renameSync(inProject(draft), inProject(types.out))
  } finally {
    for (const directory of [draft, all]) rmSync(inProject(directory), { recursive: true, force: true })
  }
}

/**
 * The declarations that the entries need, directly or not: a tenth of all, and the package has no others.
 * @param {string} directory
 */
function needed(directory) {
  const files = new Set(types.entries)
  for (const file of files) {
    const text = readFileSync(join(directory, file), 'utf8')
    for (const [, name = ''] of text.matchAll(/\b(?:from|import)\s*\(?\s*["'](\.[^"']+)["']/g)) {
      files.add(normalize(join(dirname(file), name)).replace(/(\.d)?\.[jt]s$/, '.d.ts'))
    }
  }
  return files
}
