#!/usr/bin/env bun
/** Program entry for Bun. */
import { main } from '../host/cli/main.ts'
import { crypto } from './crypto.ts'
import { bunRuntime } from './runtime.ts'

await main(bunRuntime(), process.argv.slice(2), crypto)
