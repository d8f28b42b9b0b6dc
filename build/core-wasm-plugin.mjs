// esbuild plugins. coreWasm resolves `kcptun-core-wasm` to the generated module with core.wasm as base64, and
// `kcptun-dashboard` to the one with the dashboard's page; used for bundles and tests. forBrowser leaves out what needs
// sockets.

import { join } from 'node:path'
import { inProject } from './files.mjs'
import { browser, core, dashboard } from './plan.mjs'

/** @type {import('esbuild').Plugin} */
export const coreWasm = {
  name: 'kcptun-core-wasm',
  setup(build) {
    build.onResolve({ filter: /^kcptun-core-wasm$/ }, () => ({ path: inProject(core.inlined) }))
    build.onResolve({ filter: /^kcptun-dashboard$/ }, () => ({ path: inProject(dashboard.out) }))
  },
}

/** @type {import('esbuild').Plugin} */
export const forBrowser = {
  name: 'kcptun-for-browser',
  setup(build) {
    const absent = new Set(browser.absent.map(inProject))
    build.onResolve({ filter: /^\./ }, ({ path, resolveDir }) =>
      absent.has(join(resolveDir, path)) ? { path: inProject(browser.stub) } : undefined,
    )
  },
}
