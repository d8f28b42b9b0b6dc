// esbuild plugin: resolves `kcptun-core-wasm` to the generated module with core.wasm as base64, and `kcptun-dashboard`
// to the one with the dashboard's page. Used for bundles and tests.

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
