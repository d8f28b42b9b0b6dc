// The engine as a library: built in, and from the bytes of core.wasm.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { ABI_VERSION, Core, instantiate } from 'kcptun-wasm/core'

const bytes = await readFile(new URL(import.meta.resolve('kcptun-wasm/core.wasm')))
for (const exports of [instantiate(), instantiate(new Uint8Array(bytes))]) {
  assert.equal(new Core(exports).calls.abi_version(), ABI_VERSION)
}
