// The build plan: every product and its source. The steps are in core.mjs, bundles.mjs and types.mjs.

/**
 * @typedef {object} Bundle
 * @property {string} source entry file
 * @property {string} out file in dist/
 * @property {'neutral' | 'node' | 'bun' | 'deno'} host the runtime
 * @property {boolean} [executable] gets a shebang line and mode 755
 */

export const core = {
  source: 'assembly/index.ts',
  release: 'dist/core.wasm',
  debug: 'dist/core.debug.wasm',
  inlined: 'dist/core-wasm.js',
}

/** The engine with checks of its memory, for tests: build/instrument.mjs. */
export const checked = { source: 'assembly/checked.ts', out: 'dist/core.checked.wasm' }

/** The page at `/` of the monitoring server, as a module. */
export const dashboard = { source: 'host/dashboard', out: 'dist/dashboard.js' }

/** @type {readonly Bundle[]} */
export const bundles = [
  { source: 'host/engine/core.ts', out: 'dist/core.js', host: 'neutral' },
  { source: 'runtime-node/index.ts', out: 'dist/node/index.js', host: 'node' },
  { source: 'runtime-node/cli.ts', out: 'dist/node/cli.js', host: 'node', executable: true },
  { source: 'runtime-bun/index.ts', out: 'dist/bun/index.js', host: 'bun' },
  { source: 'runtime-bun/cli.ts', out: 'dist/bun/cli.js', host: 'bun', executable: true },
  { source: 'runtime-deno/index.ts', out: 'dist/deno/index.js', host: 'deno' },
  { source: 'runtime-deno/cli.ts', out: 'dist/deno/cli.js', host: 'deno', executable: true },
  { source: 'examples/demo/demo.ts', out: 'dist/demo.js', host: 'node' },
  { source: 'bench/main.ts', out: 'dist/bench.js', host: 'node' },
  { source: 'test/browser/screenshots.ts', out: 'dist/screenshots.js', host: 'node' },
  { source: 'bench/ours-node.ts', out: 'dist/bench-node.js', host: 'node' },
  { source: 'bench/ours-bun.ts', out: 'dist/bench-bun.js', host: 'bun' },
]

/** Files copied unchanged. */
export const copies = [
  { source: 'host/config/schema.json', out: 'dist/schema.json' },
  { source: 'runtime-shared/cli.mjs', out: 'dist/cli.js', executable: true },
]

/** Type declarations of the library entries. */
export const types = { project: 'tsconfig.types.json', out: 'dist/types' }

/** Files and directories that each step reads; a change makes the step stale. */
export const inputs = {
  core: ['assembly', 'asconfig.json', 'build/abi.mjs', 'build/core.mjs', 'build/plan.mjs', 'package-lock.json'],
  checked: [
    'assembly',
    'asconfig.json',
    'build/core.mjs',
    'build/instrument.mjs',
    'build/plan.mjs',
    'package-lock.json',
  ],
  bundles: [
    'host',
    'runtime-node',
    'runtime-bun',
    'runtime-deno',
    'runtime-shared',
    'examples',
    'bench',
    'testkit',
    'test/browser',
    'build/bundles.mjs',
    'build/plan.mjs',
    'build/core-wasm-plugin.mjs',
    'build/dashboard.mjs',
    'package.json',
    'package-lock.json',
    'dist/core-wasm.js',
  ],
  types: [
    'host',
    'runtime-node',
    'runtime-bun',
    'runtime-deno',
    'runtime-shared',
    'tsconfig.json',
    'tsconfig.types.json',
    'package-lock.json',
  ],
}
