// esbuild plugin: resolves the specifier `kcptun-core-wasm` to the generated module that holds core.wasm as base64, and
// `kcptun-dashboard` to the one that holds the dashboard's page.
// The same plugin serves the bundles and the tests.

import { inProject } from './files.mjs'
import { core, dashboard } from './plan.mjs'

/** @type {import('esbuild').Plugin} */
export const coreWasm = {
  name: 'kcptun-core-wasm',
  setup(build) {
    build.onResolve({ filter: /^kcptun-core-wasm$/ }, () => ({ path: inProject(core.inlined) }))
    build.onResolve({ filter: /^kcptun-dashboard$/ }, () => ({ path: inProject(dashboard.out) }))
  },
}
