#!/usr/bin/env node
// Program entry of the package (dist/cli.js): loads the build for the runtime that starts it.
const { bun, deno } = process.versions
await import(deno ? './deno/cli.js' : bun ? './bun/cli.js' : './node/cli.js')
