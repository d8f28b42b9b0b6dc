/**
 * A private copy of the checkout below the system's temporary directory: a mutant is written, compiled and tested
 * there, so that the working tree is never modified. node_modules is shared by a symbolic link.
 */
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { main as compile, createMemoryStream } from 'assemblyscript/asc'
import { inProject, root } from '../../build/files.mjs'
import { core } from '../../build/plan.mjs'
import { applyEdit, type Mutant } from './sites.ts'

const NOT_COPIED = new Set(['node_modules', '.git', '.cache'])
const OUTPUT_KEPT = 1 << 20

export interface Outcome {
  readonly status: number | null
  readonly output: string
  readonly timedOut: boolean
}

const trees = new Set<string>()
const children = new Set<() => void>()

/** Ends child processes and removes all copies when a run is interrupted. */
export function cleanUp(): void {
  for (const end of children) end()
  for (const path of trees) rmSync(path, { recursive: true, force: true })
}

export class PrivateTree {
  readonly path = mkdtempSync(join(tmpdir(), 'mutant-'))
  readonly #origin: string

  /** @param origin the tree to copy: for a mutant not the checkout, which may change during the run */
  constructor(origin: string = root) {
    this.#origin = origin
    trees.add(this.path)
    const isCopied = (source: string): boolean => !NOT_COPIED.has(relative(origin, source))
    cpSync(origin, this.path, { recursive: true, filter: isCopied })
    symlinkSync(realpathSync(inProject('node_modules')), join(this.path, 'node_modules'))
    // an equivalent module in a third of the compile time
    const settings = JSON.parse(readFileSync(this.#inside('asconfig.json'), 'utf8'))
    settings.targets.release = { ...settings.targets.release, optimizeLevel: 1, converge: false }
    writeFileSync(this.#inside('asconfig.json'), JSON.stringify(settings))
  }

  #inside(path: string): string {
    return join(this.path, path)
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
    trees.delete(this.path)
  }

  write({ file, edit }: Mutant): void {
    writeFileSync(this.#inside(file), applyEdit(readFileSync(join(this.#origin, file), 'utf8'), edit))
  }

  /**
   * Runs a Node program in the copy.
   * @param seconds after which it is ended
   */
  run(args: readonly string[], seconds: number): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const child = spawn('node', args, { cwd: this.path, stdio: ['ignore', 'pipe', 'pipe'] })
      let output = ''
      let timedOut = false
      const collect = (text: string): void => {
        output = (output + text).slice(-OUTPUT_KEPT)
      }
      child.stdout.setEncoding('utf8').on('data', collect)
      child.stderr.setEncoding('utf8').on('data', collect)
      // on SIGTERM test/run.mjs ends its test processes
      const end = (): boolean => child.kill('SIGTERM')
      children.add(end)
      const timer = setTimeout(() => {
        timedOut = true
        end()
      }, seconds * 1000)
      child.on('error', reject)
      child.on('close', (status) => {
        clearTimeout(timer)
        children.delete(end)
        resolve({ status, output, timedOut })
      })
    })
  }

  /**
   * Compiles only the engine, in the form that in-process tests use. The compiler runs in this process: one that is
   * started anew needs three times as long.
   * @returns the module; undefined when it does not compile
   */
  async compileEngine(): Promise<Buffer | undefined> {
    const args = ['--baseDir', this.path, '--config', 'asconfig.json', '--target', 'release', '--outFile', core.release]
    const { error } = await compile(args, { stdout: createMemoryStream(), stderr: createMemoryStream() })
    if (error) return undefined
    const module = readFileSync(this.#inside(core.release))
    writeFileSync(this.#inside(core.inlined), `export default '${module.toString('base64')}'\n`)
    return module
  }

  /** @returns whether the TypeScript type-checks */
  async checkTypes(seconds: number): Promise<boolean> {
    return (await this.run(['node_modules/typescript/bin/tsc', '--noEmit'], seconds)).status === 0
  }

  /** Bundles the programs in dist/, which tests of whole processes start. */
  async bundle(seconds: number): Promise<boolean> {
    const script = `import { build } from './build/build.mjs'
      process.exitCode = (await build({ only: ['bundles'] })) ? 0 : 1`
    return (await this.run(['--input-type=module', '-e', script], seconds)).status === 0
  }
}
