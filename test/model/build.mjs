// Builds the engines of the model checker in .cache/model: the engine with a state probe (probe.as) and all mutable
// globals exported, so that states can be saved and restored; and the same with selectable planted defects.

import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { exists, fingerprint, inProject, replaceFile, runScript, withLock } from '../../build/files.mjs'
import { exportGlobals } from './export-globals.mjs'
import { appended, mutants, sizes } from './patches.mjs'

const ASC = 'node_modules/assemblyscript/bin/asc.js'
const FOLDER = '.cache/model'
const STAMP = `${FOLDER}/stamp`
const INPUTS = ['assembly', 'package-lock.json'].concat(
  ['probe.as', 'patches.mjs', 'build.mjs', 'export-globals.mjs'].map((name) => `test/model/${name}`),
)

/**
 * Copies assembly/ and adds the probe and, optionally, the defects.
 * @param {string} folder
 * @param {boolean} withMutants
 */
function copySources(folder, withMutants) {
  rmSync(inProject(folder), { recursive: true, force: true })
  cpSync(inProject('assembly'), inProject(folder), { recursive: true })
  cpSync(inProject('test/model/probe.as'), inProject(`${folder}/model.ts`))
  /** @param {string} name @param {(text: string) => string} change */
  const edit = (name, change) => {
    const path = inProject(`${folder}/${name}`)
    writeFileSync(path, change(readFileSync(path, 'utf8')))
  }
  /** @param {string} what @param {string} file @param {string} find @param {string} put */
  const replace = (what, file, find, put) =>
    edit(file, (text) => {
      if (text.split(find).length !== 2) throw new Error(`${what}: its text must occur exactly once in ${file}`)
      return text.replace(find, () => put)
    })
  for (const { file, find, put } of sizes) replace('size', file, find, put)
  if (withMutants) {
    mutants.forEach(({ name, file, find, put }, index) => {
      replace(name, file, find, put.replaceAll('BAD', `modelPlanted(${index + 1})`))
    })
    for (const file of new Set(mutants.map((mutant) => mutant.file))) {
      edit(file, (text) => `${text}\nimport { planted as modelPlanted } from '../model'\n`)
    }
  }
  for (const [file, code] of Object.entries(appended)) edit(file, (text) => text + code)
}

/**
 * @param {string} name
 * @param {boolean} withMutants
 */
async function compile(name, withMutants) {
  const sources = `${FOLDER}/${name}`
  copySources(sources, withMutants)
  const draft = `${FOLDER}/${name}.draft.wasm`
  const level = withMutants ? ['--optimizeLevel', '1'] : ['-O3', '--noAssert', '--uncheckedBehavior', 'always']
  const args = ['--config', 'none', '--runtime', 'stub', '--use', 'abort=', '--initialMemory', '3']
  await runScript(ASC, [`${sources}/model.ts`, '--outFile', draft, ...args, ...level])
  replaceFile(`${FOLDER}/${name}.wasm`, exportGlobals(readFileSync(inProject(draft))))
}

/** Builds what is stale. */
export function buildModel() {
  return withLock(async () => {
    mkdirSync(inProject(FOLDER), { recursive: true })
    const print = fingerprint(INPUTS)
    if (exists(STAMP) && readFileSync(inProject(STAMP), 'utf8') === print) return
    await Promise.all([compile('clean', false), compile('mutants', true)])
    replaceFile(STAMP, print)
  })
}

if (process.argv[1] && import.meta.url === new URL(`file://${process.argv[1]}`).href) await buildModel()
