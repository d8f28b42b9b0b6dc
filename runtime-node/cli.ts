#!/usr/bin/env node
/** Program entry for Node. */
import { main } from '../host/cli/main.ts'
import { crypto } from './crypto.ts'
import { nodeRuntime } from './runtime.ts'

await main(nodeRuntime(), process.argv.slice(2), crypto)
