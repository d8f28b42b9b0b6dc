// Compiles assembly/ with asc into the release and the debug module, and inlines the release module as base64 for hosts
// that instantiate it synchronously. A release or debug module with imports is rejected: the engine is sans-IO.

import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { inProject, replaceFile, runScript } from './files.mjs'
import { checkedModule } from './instrument.mjs'
import { checked, core } from './plan.mjs'

const ASC = 'node_modules/assemblyscript/bin/asc.js'

/**
 * @param {string} name for the message
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export function refuseImports(name, bytes) {
  const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes))
  if (imports.length === 0) return
  const list = imports.map((entry) => `${entry.module}.${entry.name} (${entry.kind})`).join(', ')
  throw new Error(`${name} must not import anything, but imports ${list}`)
}

/**
 * Compiles one target.
 * @param {string} target of asconfig.json
 * @param {string} out file
 * @param {readonly string[]} more arguments
 */
const compile = (target, out, ...more) =>
  runScript(ASC, ['--config', 'asconfig.json', '--target', target, '--outFile', out, ...more])

/**
 * Runs a function with a temporary folder for drafts.
 * @template T
 * @param {(draft: string) => Promise<T>} make
 */
async function inDraft(make) {
  const draft = `.cache/core.${process.pid}`
  mkdirSync(inProject(draft), { recursive: true })
  try {
    return await make(draft)
  } finally {
    rmSync(inProject(draft), { recursive: true, force: true })
  }
}

/** Compiles the module with checked memory accesses, for tests. */
export function buildChecked() {
  return inDraft(async (draft) => {
    await compile('checked', `${draft}/checked.wasm`, '--textFile', `${draft}/checked.wat`, checked.source)
    const bytes = checkedModule(readFileSync(inProject(`${draft}/checked.wat`), 'utf8'))
    refuseImports(checked.out, bytes)
    replaceFile(checked.out, bytes)
  })
}

export function buildCore() {
  return inDraft(async (draft) => {
    await Promise.all(
      [
        ['release', core.release],
        ['debug', core.debug],
      ].map(([target, out]) => compile(`${target}`, `${draft}/${out}`)),
    )
    const release = readFileSync(inProject(`${draft}/${core.release}`))
    const debug = readFileSync(inProject(`${draft}/${core.debug}`))
    refuseImports(core.release, release)
    refuseImports(core.debug, debug)
    replaceFile(core.release, release)
    replaceFile(core.debug, debug)
    replaceFile(`${core.debug}.map`, readFileSync(inProject(`${draft}/${core.debug}.map`)))
    // written last: the bundles depend on it
    replaceFile(core.inlined, `export default '${release.toString('base64')}'\n`)
    return `${core.release} ${release.length} bytes`
  })
}
