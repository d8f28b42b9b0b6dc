/** The engines of the model, built when stale. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { insist } from './machine.ts'

/** The engine, and the engine with planted defects (patches.mjs). */
export type EngineName = 'clean' | 'mutants'

/** Runs the build, which takes a minute after a change of assembly/. */
export function buildEngines(): void {
  const { status, stderr } = spawnSync(process.execPath, ['test/model/build.mjs'], { encoding: 'utf8' })
  insist(status === 0, `the engines cannot be built: ${stderr}`)
}

export function engineModule(name: EngineName): WebAssembly.Module {
  return new WebAssembly.Module(readFileSync(`.cache/model/${name}.wasm`))
}
