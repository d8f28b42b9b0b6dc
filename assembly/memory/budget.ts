/**
 * The memory ceiling of an endpoint. The ceiling of the configuration is for sessions; descriptors, the replay filter
 * and the obfuscator's tables come on top of it.
 */
import { setCeiling, usedBytes } from './slab'

/** Most bytes the ceiling can be set to: what wasm32 can address, less some. */
const MAX_CEILING_BYTES: u32 = 0xf0000000

let sessionBytes: u32 = 0
let fixedBytes: u32 = 0

/** Opens the ceiling as far as it goes, for the blocks that are made at the start. */
export function openBudget(): void {
  setCeiling(MAX_CEILING_BYTES, 0)
}

/** All blocks in use now are not for sessions. */
export function fixBudget(): void {
  fixedBytes = usedBytes()
}

/** `bytes` of the blocks in use are not for sessions: they come on top of the ceiling. */
export function addFixed(bytes: u32): void {
  fixedBytes += bytes
  setCeiling(fixedBytes + min(sessionBytes, MAX_CEILING_BYTES - fixedBytes), fixedBytes)
}

/** Bytes that sessions may take together. */
export function setBudget(bytes: u32): void {
  sessionBytes = bytes
  addFixed(0)
}
