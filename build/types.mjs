// Emits the type declarations of the library entries with tsc.

import { copyFileSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { inProject, runScript } from './files.mjs'
import { types } from './plan.mjs'

const SCHEMA = 'host/config/schema.json'

export const TSC = 'node_modules/typescript/bin/tsc'

export async function buildTypes() {
  const draft = `.cache/types.${process.pid}`
  try {
    await runScript(TSC, ['-p', types.project, '--outDir', draft])
    mkdirSync(inProject(draft), { recursive: true })
    // a declaration refers to it
    copyFileSync(inProject(SCHEMA), inProject(`${draft}/${SCHEMA}`))
    rmSync(inProject(types.out), { recursive: true, force: true })
    renameSync(inProject(draft), inProject(types.out))
  } finally {
    rmSync(inProject(draft), { recursive: true, force: true })
  }
}
