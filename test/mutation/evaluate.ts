/** Builds a mutant in a private tree and runs the tests against it. */
import { PrivateTree } from './private-tree.ts'
import type { Mutant } from './sites.ts'
import { concerns, type Finding, firstFailure, inOrder, type TestFile } from './suites.ts'

export type Verdict = Finding | 'does not compile' | 'same module'

export interface Evaluation {
  readonly suites: readonly TestFile[]
  /** A copy of the unchanged tree, taken at the start. */
  readonly base: PrivateTree
  /** The unchanged engine, compiled there. */
  readonly engine: Buffer
  /** Seconds for one mutant. */
  readonly limit: number
}

const COMPILE_LIMIT_S = 300

async function compile(tree: PrivateTree, mutant: Mutant, engine: Buffer): Promise<Verdict | undefined> {
  if (!mutant.file.startsWith('assembly/')) {
    return (await tree.checkTypes(COMPILE_LIMIT_S)) ? undefined : 'does not compile'
  }
  const module = await tree.compileEngine()
  if (module === undefined) return 'does not compile'
  // an edit without effect on the optimized module is not a mutant
  return module.equals(engine) ? 'same module' : undefined
}

/**
 * @returns which test caught the mutant, if one did, or why the mutant was not run
 */
export async function evaluate(mutant: Mutant, { base, suites, engine, limit }: Evaluation): Promise<Verdict> {
  const tree = new PrivateTree(base.path)
  try {
    tree.write(mutant)
    const refused = await compile(tree, mutant, engine)
    if (refused !== undefined) return refused
    const chosen = inOrder(
      suites.filter((suite) => concerns(suite, mutant)),
      mutant,
    )
    const inProcess = chosen.filter(({ isWhole }) => !isWhole)
    const whole = chosen.filter(({ isWhole }) => isWhole)
    const first = await firstFailure(inProcess, tree, limit)
    if (first.by !== undefined || whole.length === 0) return first
    if (!(await tree.bundle(COMPILE_LIMIT_S))) return 'does not compile'
    const second = await firstFailure(whole, tree, limit)
    return { by: second.by, unsteady: [...first.unsteady, ...second.unsteady] }
  } finally {
    tree.remove()
  }
}
