/**
 * The checked build of the engine (assembly/memory/guard.ts): violations found, memory the host may access,
 * control-flow edges taken.
 */
import { readFileSync } from 'node:fs'
import { type CoreExports, instantiate } from '../host/engine/core.ts'

const CHECKED_MODULE = 'dist/core.checked.wasm'

/** The exports that the checked build adds. */
interface Checks {
  check_range(at: number, bytes: number): void
  fault_ptr(): number
  edges_ptr(): number
  edge_slots(): number
}

/** Descriptions of violations, by the kind in the fault record. */
const KINDS: Readonly<Record<number, string>> = {
  1: 'access to the null page',
  2: 'access across the edge of a block',
  3: 'free of a pointer that is not an allocated block',
  128: 'access to memory that was never allocated or has left the quarantine',
  129: 'access beyond a block',
  130: 'access to a freed block',
}

const isChecked = (calls: CoreExports): calls is CoreExports & Checks => 'fault_ptr' in calls

let module: WebAssembly.Module | undefined

/** A fresh engine of the checked build. */
export function instantiateChecked(): CoreExports {
  module ??= new WebAssembly.Module(new Uint8Array(readFileSync(CHECKED_MODULE)))
  const exports: object = new WebAssembly.Instance(module, {}).exports
  return exports as CoreExports
}

/** Instantiates an engine for simulations: the checked build if `ENGINE_BUILD=checked`, else the release build. */
export const freshEngine = process.env['ENGINE_BUILD'] === 'checked' ? instantiateChecked : () => instantiate()

/** Traps, in the checked build only, unless the host may read and write these bytes. */
export function checkRange(calls: CoreExports, at: number, length: number): void {
  if (isChecked(calls)) calls.check_range(at, length)
}

/** Description of the violation that made the checked build trap; undefined if there was none or for another build. */
export function faultText(calls: CoreExports): string | undefined {
  if (!isChecked(calls)) return undefined
  const record = new DataView(calls.memory.buffer, calls.fault_ptr(), 12)
  const kind = record.getUint32(0, true)
  if (kind === 0) return undefined
  const at = record.getUint32(4, true)
  return `${KINDS[kind] ?? `fault ${kind}`}: ${record.getUint32(8, true)} bytes at 0x${at.toString(16)}`
}

/** A view of the edge counters, valid until memory grows; empty for another build. */
export function edgeCounters(calls: CoreExports): Uint8Array {
  if (!isChecked(calls)) return new Uint8Array(0)
  return new Uint8Array(calls.memory.buffer, calls.edges_ptr(), calls.edge_slots())
}

/** True for the checked build, whose memory also holds red zones and a quarantine. */
export const hasChecks = (calls: CoreExports): boolean => isChecked(calls)
