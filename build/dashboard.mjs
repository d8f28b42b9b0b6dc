// Builds the dashboard: bundles host/dashboard/app.ts and style.css, inserts them into page.html, and writes a module
// with the page and a Content-Security-Policy that allows only these two, by their hashes. A page above the size limit
// is rejected.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as esbuild from 'esbuild'
import { inProject, replaceFile, root } from './files.mjs'
import { dashboard } from './plan.mjs'

const SIZE_MAX_BYTES = 150 * 1024
/** The page includes uPlot, so it also includes its licence. */
const CHARTS = 'node_modules/uplot'

/** @param {string} entry */
async function bundle(entry) {
  const result = await esbuild.build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    target: ['es2022', 'chrome115', 'firefox115', 'safari16.4'],
    charset: 'utf8',
    legalComments: 'none',
    logLevel: 'warning',
  })
  const text = result.outputFiles[0]?.text.trim() ?? ''
  if (/<\/(?:script|style)|<!--/i.test(text)) throw new Error(`${entry}: the text would close its element`)
  return text
}

/** @param {string} text */
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

export async function buildDashboard() {
  const script = await bundle(`${dashboard.source}/app.ts`)
  const style = await bundle(`${dashboard.source}/style.css`)
  const licence = readFileSync(inProject(`${CHARTS}/LICENSE`), 'utf8').trim()
  const html = readFileSync(inProject(`${dashboard.source}/page.html`), 'utf8')
    .replace(/\n\s*(?=<)/g, '\n')
    .replace('<html', () => `<!-- Charts: uPlot. ${licence} -->\n<html`)
    .replace('<style></style>', () => `<style>${style}</style>`)
    .replace('<script></script>', () => `<script>${script}</script>`)
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
