#!/usr/bin/env -S deno run -A
/** Program entry for Deno. */
import { main } from '../host/cli/main.ts'
import { crypto } from './crypto.ts'
import { denoRuntime } from './runtime.ts'

await main(denoRuntime(), process.argv.slice(2), crypto)
