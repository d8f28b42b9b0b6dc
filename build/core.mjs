// Compiles assembly/ with asc into the release and the debug module, and inlines the release module as base64 for hosts
// that instantiate it synchronously. A release or debug module with an import is refused: the engine is sans-IO.

import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { inProject, replaceFile, runScript } from './files.mjs'
import { core } from './plan.mjs'

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

export async function buildCore() {
  const draft = `.cache/core.${process.pid}`
  mkdirSync(inProject(draft), { recursive: true })
  try {
    await Promise.all(
      [
        ['release', core.release],
        ['debug', core.debug],
      ].map(([target, out]) =>
        runScript(ASC, ['--config', 'asconfig.json', '--target', `${target}`, '--outFile', `${draft}/${out}`]),
      ),
    )
    const release = readFileSync(inProject(`${draft}/${core.release}`))
    const debug = readFileSync(inProject(`${draft}/${core.debug}`))
    refuseImports(core.release, release)
    refuseImports(core.debug, debug)
    replaceFile(core.release, release)
    replaceFile(core.debug, debug)
    replaceFile(`${core.debug}.map`, readFileSync(inProject(`${draft}/${core.debug}.map`)))
    // written last: it is what the bundles depend on
    replaceFile(core.inlined, `export default '${release.toString('base64')}'\n`)
    return `${core.release} ${release.length} bytes`
  } finally {
    rmSync(inProject(draft), { recursive: true, force: true })
  }
}
