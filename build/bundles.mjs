// Bundles the TypeScript entries of the plan with esbuild (ESM, npm packages remain imports) and copies plain files.

import { readFileSync } from 'node:fs'
import { relative } from 'node:path'
import * as esbuild from 'esbuild'
import { coreWasm } from './core-wasm-plugin.mjs'
import { inProject, replaceFile, root } from './files.mjs'

/** @type {import('esbuild').BuildOptions} */
export const commonOptions = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  packages: 'external',
  legalComments: 'none',
  logLevel: 'warning',
  plugins: [coreWasm],
}

/** @param {import('./plan.mjs').Bundle} bundle */
function banner(bundle) {
  // esbuild keeps a shebang of the source
  if (!bundle.executable || readFileSync(inProject(bundle.source), 'utf8').startsWith('#!')) return {}
  const interpreter = bundle.host === 'deno' ? '-S deno run -A' : bundle.host
  return { banner: { js: `#!/usr/bin/env ${interpreter}` } }
}

/** @param {import('./plan.mjs').Bundle} bundle */
export async function buildBundle(bundle) {
  const result = await esbuild.build({
    ...commonOptions,
    ...banner(bundle),
    entryPoints: [bundle.source],
    outfile: bundle.out,
    platform: bundle.host === 'neutral' ? 'neutral' : 'node',
    sourcemap: 'linked',
    write: false,
  })
  for (const file of result.outputFiles) {
    const isScript = file.path.endsWith('.js')
    replaceFile(relative(root, file.path), file.contents, bundle.executable && isScript ? 0o755 : 0o644)
  }
}

/** @param {{ source: string, out: string, executable?: boolean }} copy */
export async function copyFile(copy) {
  replaceFile(copy.out, readFileSync(inProject(copy.source)), copy.executable ? 0o755 : 0o644)
}
