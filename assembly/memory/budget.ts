/*
 * The memory ceiling of an endpoint. The configured ceiling is for sessions; the memory of descriptors, the replay
 * filter and the obfuscator's tables is added to it.
 */
import { setCeiling, usedBytes } from './slab'

/** Maximum ceiling: what wasm32 can address, with a margin. */
const MAX_CEILING_BYTES: u32 = 0xf0000000

let sessionBytes: u32 = 0
let fixedBytes: u32 = 0

/** Raises the ceiling to its maximum, for the blocks allocated at the start. */
export function openBudget(): void {
  setCeiling(MAX_CEILING_BYTES, 0)
}

/** Marks all blocks in use as fixed: they are not counted against the sessions' budget. */
export function fixBudget(): void {
  fixedBytes = usedBytes()
}

/** Marks `bytes` more as fixed and raises the ceiling by them. */
export function addFixed(bytes: u32): void {
  fixedBytes += bytes
  setCeiling(fixedBytes + min(sessionBytes, MAX_CEILING_BYTES - fixedBytes), fixedBytes)
}

/** Sets the maximum bytes of all sessions. */
export function setBudget(bytes: u32): void {
  sessionBytes = bytes
  addFixed(0)
}
