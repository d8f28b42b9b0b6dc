/** Runs a test file in its own network namespace: the file starts itself again inside. */
import { spawnSync } from 'node:child_process'
import { Namespace, netnsProblem } from '../../testkit/namespace.ts'

const MARK = 'KCPTUN_WASM_TEST_INSIDE'

/**
 * Returns whether this process is inside. Otherwise runs the file inside and waits for it; `skipped` gets the reason
 * why it cannot.
 */
export function inNamespace(title: string, skipped: (why: string) => void): boolean {
  if (process.env[MARK] !== undefined) return true
  if (netnsProblem !== undefined) {
    skipped(netnsProblem)
    return false
  }
  const namespace = new Namespace(title)
  try {
    const self = [process.execPath, ...process.execArgv, process.argv[1] ?? '']
    const { status } = spawnSync('ip', ['netns', 'exec', namespace.name, ...self], {
      stdio: 'inherit',
      env: { ...process.env, [MARK]: '1' },
    })
    process.exitCode = status ?? 1
  } finally {
    namespace.remove()
  }
  return false
}
