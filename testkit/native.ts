/** The native programs of runtime-c/, built when they are stale. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { nativeFolder, projectRoot } from './process.ts'

/**
 * Builds the native programs, with sanitizers if NATIVE_BUILD=sanitize.
 * @returns their folder, or why they cannot be built here
 * @throws if the build fails
 */
export function buildNative(): { readonly folder: string } | { readonly reason: string } {
  if (process.platform !== 'linux') return { reason: 'the native programs are for Linux' }
  const args = nativeFolder.endsWith('sanitize') ? ['--sanitize'] : []
  const { status, stderr, error } = spawnSync('node', [join(projectRoot, 'build/native.mjs'), ...args], {
    encoding: 'utf8',
  })
  if (status === 0) return { folder: join(projectRoot, nativeFolder) }
  const missing = /missing: (.*)/.exec(stderr ?? '')?.[1]
  if (missing === undefined) throw new Error(`build/native.mjs: ${error?.message ?? stderr}`)
  return { reason: `not installed: ${missing}` }
}
