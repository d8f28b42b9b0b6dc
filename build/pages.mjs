// Builds pages that are one file: bundles script and style, inserts them into page.html, with a Content-Security-Policy
// that allows only these two, by their hashes. The dashboard becomes a module of the monitoring server; a dashboard above
// the size limit is rejected.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as esbuild from 'esbuild'
import { inProject, replaceFile, root } from './files.mjs'
import { dashboard, page } from './plan.mjs'

const SIZE_MAX_BYTES = 150 * 1024
/** The pages include uPlot, so they also include its licence. */
const CHARTS = 'node_modules/uplot'

/**
 * @param {string} entry
 * @param {esbuild.BuildOptions} [options]
 */
async function bundle(entry, options) {
  const result = await esbuild.build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: 'iife',
    platform: 'browser',
    target: ['es2022', 'chrome115', 'firefox115', 'safari16.4'],
    charset: 'utf8',
    legalComments: 'none',
    logLevel: 'warning',
    ...options,
    write: false,
  })
  const text = result.outputFiles[0]?.text.trim() ?? ''
  if (/<\/(?:script|style)|<!--/i.test(text)) throw new Error(`${entry}: the text would close its element`)
  return text
}

/** @param {string} text */
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

/**
 * Inserts script and style into the page.html of a folder.
 * @param {string} folder
 * @param {string} script
 * @param {string} style
 */
function pageOf(folder, script, style) {
  const licence = readFileSync(inProject(`${CHARTS}/LICENSE`), 'utf8').trim()
  return readFileSync(inProject(`${folder}/page.html`), 'utf8')
    .replace(/\n\s*(?=<)/g, '\n')
    .replace('<html', () => `<!-- Charts: uPlot. ${licence} -->\n<html`)
    .replace('<style></style>', () => `<style>${style}</style>`)
    .replace(/(<script[^>]*>)(<\/script>)/, (_all, open, close) => open + script + close)
}

export async function buildDashboard() {
  const script = await bundle(`${dashboard.source}/app.ts`)
  const style = await bundle(`${dashboard.source}/style.css`)
  const html = pageOf(dashboard.source, script, style)
  const size = Buffer.byteLength(html)
  if (size > SIZE_MAX_BYTES) throw new Error(`the dashboard has ${size} bytes, the limit is ${SIZE_MAX_BYTES}`)
  const csp = [
    "default-src 'none'",
    `script-src ${hash(script)}`,
    `style-src ${hash(style)}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ')
  replaceFile(dashboard.out, `export const html = ${JSON.stringify(html)}\nexport const csp = ${JSON.stringify(csp)}\n`)
  return `${dashboard.out}: a page of ${size} bytes`
}

export async function buildExamplePage() {
  const script = await bundle(`${page.source}/page.ts`, {
    format: 'esm',
    alias: { 'kcptun-wasm/browser': './dist/browser/index.js' },
  })
  const style = await bundle(`${page.source}/style.css`)
  // WebAssembly is compiled; nothing is fetched
  const csp = `default-src 'none'; script-src ${hash(script)} 'wasm-unsafe-eval'; style-src ${hash(style)}; img-src data:`
  const html = pageOf(page.source, script, style).replace('CSP', () => csp)
  replaceFile(page.out, html)
  return `${page.out}: a page of ${Buffer.byteLength(html)} bytes`
}
