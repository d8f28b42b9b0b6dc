// Bundles the TypeScript entries of the plan with esbuild (ESM, npm packages remain imports except for browsers, and
// jsonc-parser: as CommonJS module it would load Node's loader for these, 1.5 MiB of an idle process; uqr becomes a part
// that only a QR code loads) and copies plain files. NOTICES.md has the licences of packages that become part of ours.

import { readFileSync, rmSync } from 'node:fs'
import { basename, dirname, relative } from 'node:path'
import { gzipSync } from 'node:zlib'
import * as esbuild from 'esbuild'
import { coreWasm, forBrowser } from './core-wasm-plugin.mjs'
import { filesBelow, inProject, replaceFile, root } from './files.mjs'
import { browser } from './plan.mjs'

/** @type {import('esbuild').BuildOptions} */
export const commonOptions = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  packages: 'external',
  alias: {
    'jsonc-parser': './node_modules/jsonc-parser/lib/esm/main.js',
    uqr: './node_modules/uqr/dist/index.mjs',
  },
  legalComments: 'none',
  logLevel: 'warning',
  plugins: [coreWasm],
}

/** One file that needs no other. @type {import('esbuild').BuildOptions} */
const browserOptions = {
  packages: 'bundle',
  plugins: [forBrowser, coreWasm],
  alias: browser.same,
  minify: true,
}

/**
 * @param {import('./plan.mjs').Bundle} bundle
 * @returns {Promise<string | void>} what to report
 */
export async function buildBundle(bundle) {
  const { out, platform = 'node', source } = bundle
  const result = await esbuild.build({
    ...commonOptions,
    ...(platform === 'browser' && browserOptions),
    entryPoints: [source],
    outfile: out,
    platform,
    sourcemap: 'linked',
    write: false,
  })
  for (const file of result.outputFiles) replaceFile(relative(root, file.path), file.contents)
  if (platform !== 'browser') return undefined
  const script = result.outputFiles.find(({ path }) => path.endsWith('.js'))?.contents ?? new Uint8Array()
  return `${out}: ${script.length} bytes, ${gzipSync(script).length} with gzip`
}

/** @param {typeof import('./plan.mjs').entries} entries */
export async function buildEntries({ parts, bundles }) {
  const outdir = dirname(parts)
  const result = await esbuild.build({
    ...commonOptions,
    entryPoints: bundles.map(({ source, out }) => ({ in: source, out: relative(outdir, out).replace(/\.js$/, '') })),
    outdir,
    splitting: true,
    chunkNames: `${basename(parts)}/[name]-[hash]`,
    // names stay: stack traces are read
    minifyWhitespace: true,
    platform: 'node',
    sourcemap: 'linked',
    write: false,
  })
  const executable = new Set(bundles.filter((bundle) => bundle.executable).map(({ out }) => out))
  const written = new Set(result.outputFiles.map(({ path }) => relative(root, path)))
  for (const { path, contents } of result.outputFiles) {
    const out = relative(root, path)
    replaceFile(out, contents, executable.has(out) ? 0o755 : 0o644)
  }
  // their names contain a hash of their content
  for (const path of filesBelow(parts)) if (!written.has(path)) rmSync(inProject(path))
}

/** @param {{ source: string, out: string, executable?: boolean }} copy */
export async function copyFile(copy) {
  replaceFile(copy.out, readFileSync(inProject(copy.source)), copy.executable ? 0o755 : 0o644)
}
