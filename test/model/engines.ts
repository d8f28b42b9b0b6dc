/** The engines of the model, made when they are stale. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { insist } from './machine.ts'

/** The product, and the product with planted defects (patches.mjs). */
export type EngineName = 'clean' | 'mutants'

/** Runs the build: it takes a minute after a change of assembly/, else nothing. */
export function buildEngines(): void {
  const { status, stderr } = spawnSync(process.execPath, ['test/model/build.mjs'], { encoding: 'utf8' })
  insist(status === 0, `the engines cannot be built: ${stderr}`)
}

export function engineModule(name: EngineName): WebAssembly.Module {
  return new WebAssembly.Module(readFileSync(`.cache/model/${name}.wasm`))
}
