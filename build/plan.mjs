// The build plan: every product and its source. The steps are in core.mjs, bundles.mjs and types.mjs.

/**
 * @typedef {object} Bundle
 * @property {string} source entry file
 * @property {string} out file in dist/
 * @property {'node' | 'browser'} [platform] of the modules that it may import; default: node. A browser's includes npm
 * packages
 * @property {boolean} [executable] gets mode 755; its source begins with a shebang line
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

/** The engine's module and the entries of the runtimes. They share the files in `parts`. */
export const entries = {
  parts: 'dist/parts',
  /** @type {readonly Bundle[]} */
  bundles: [
    { source: 'host/engine/core.ts', out: 'dist/core.js' },
    { source: 'runtime-node/index.ts', out: 'dist/node/index.js' },
    { source: 'runtime-node/cli.ts', out: 'dist/node/cli.js', executable: true },
    { source: 'runtime-bun/index.ts', out: 'dist/bun/index.js' },
    { source: 'runtime-bun/cli.ts', out: 'dist/bun/cli.js', executable: true },
    { source: 'runtime-deno/index.ts', out: 'dist/deno/index.js' },
    { source: 'runtime-deno/cli.ts', out: 'dist/deno/cli.js', executable: true },
  ],
}

/** Single files. @type {readonly Bundle[]} */
export const bundles = [
  { source: 'runtime-browser/index.ts', out: 'dist/browser/index.js', platform: 'browser' },
  { source: 'examples/demo/demo.ts', out: 'dist/demo.js' },
  { source: 'bench/main.ts', out: 'dist/bench.js' },
  { source: 'test/browser/screenshots.ts', out: 'dist/screenshots.js' },
  { source: 'test/browser/session.ts', out: 'dist/session.js' },
  { source: 'bench/ours-node.ts', out: 'dist/bench-node.js' },
  { source: 'bench/ours-bun.ts', out: 'dist/bench-bun.js' },
]

/** The page that explains the program: one file. */
export const page = { source: 'examples/browser', out: 'dist/example-browser.html' }

/** In a browser's bundle: what is left out, and what is put in its place. */
export const browser = {
  absent: [
    'host/datagrams/ends.ts',
    'host/monitoring/monitoring.ts',
    'host/endpoint/listen-port.ts',
    'host/endpoint/server-target.ts',
    'host/linux/system-watch.ts',
    'host/proxy/proxy-target.ts',
    'host/proxy-protocol/greeting.ts',
    'host/proxy-protocol/visitors.ts',
    'host/transport/obfs/client.ts',
    'host/transport/obfs/server.ts',
    'host/transport/udp.ts',
  ],
  stub: 'runtime-browser/absent.ts',
  // the larger build of libsodium contains the other one
  same: { 'libsodium-wrappers': 'libsodium-wrappers-sumo' },
}

/** Files copied unchanged. */
export const copies = [
  { source: 'host/config/schema.json', out: 'dist/schema.json' },
  { source: 'runtime-shared/cli.mjs', out: 'dist/cli.js', executable: true },
]

/** Type declarations of the library entries. */
export const types = {
  project: 'tsconfig.types.json',
  out: 'dist/types',
  // those of package.json, and what core.wasm.d.ts imports
  entries: [
    'host/library/index.d.ts',
    'host/engine/core.d.ts',
    'host/engine/abi.d.ts',
    'runtime-browser/index.d.ts',
    'runtime-node/index.d.ts',
    'runtime-bun/index.d.ts',
    'runtime-deno/index.d.ts',
  ],
}

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
    'runtime-browser',
    'runtime-shared',
    'examples',
    'bench',
    'testkit',
    'test/browser',
    'build/bundles.mjs',
    'build/plan.mjs',
    'build/core-wasm-plugin.mjs',
    'build/pages.mjs',
    'package.json',
    'package-lock.json',
    'dist/core-wasm.js',
  ],
  types: [
    'host',
    'runtime-node',
    'runtime-bun',
    'runtime-deno',
    'runtime-browser',
    'runtime-shared',
    'tsconfig.json',
    'tsconfig.types.json',
    'package-lock.json',
  ],
}
