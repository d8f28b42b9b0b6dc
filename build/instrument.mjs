// Instruments the engine's text format for the checked build: memory accesses outside the allocator are checked against
// shadow bytes, and control flow edges are counted (assembly/memory/guard.ts).

import binaryen from 'assemblyscript/binaryen'

/** Functions that access free blocks and shadow bytes, and those that run before them. */
const EXEMPT = /^\$assembly\/memory\/(guard|slab|buddy)\/|^\$~?start/
const GUARD = '$assembly/memory/guard'
/** Replacements of instructions other than loads and stores. */
const REPLACEMENTS = new Map([
  ['memory.copy', `call ${GUARD}/checkedCopy`],
  ['memory.fill', `call ${GUARD}/checkedFill`],
])
/** Replacements of allocator calls. */
const ALLOCATOR = new Map([
  ['call $assembly/memory/slab/take', `call ${GUARD}/take`],
  ['call $assembly/memory/slab/free', `call ${GUARD}/free`],
])
/** Functions of at most this size are inlined; binaryen's own bound is 2. */
const INLINE_SIZE = 24
const BITS = { 8: 1, 16: 2, 32: 4, 64: 8 }
const ACCESS = /^( *)([if](?:32|64))\.(load|store)(8|16|32)?(?:_[su])?(?: offset=(\d+))?(?: align=\d+)?$/

/**
 * Instruments one instruction.
 * @param {string} line
 * @param {() => number} edge numbers the edges
 * @param {Set<string>} types collects the types of stored values
 */
function instruction(line, edge, types) {
  const access = ACCESS.exec(line)
  if (access) {
    const [, indent, type = '', kind, bits, offset = '0'] = access
    const bytes = BITS[/** @type {keyof typeof BITS} */ (Number(bits ?? type.slice(1)))]
    const check = [`i32.const ${offset}`, `i32.const ${bytes}`, `call ${GUARD}/checkAccess`]
    if (kind === 'load') return [...check.map((text) => `${indent}${text}`), line]
    types.add(type)
    return [`local.set $value_${type}`, ...check, `local.get $value_${type}`]
      .map((text) => `${indent}${text}`)
      .concat(line)
  }
  const replacement = REPLACEMENTS.get(line.trim())
  if (replacement !== undefined) return [replacement]
  if (/^ *(if|else|loop)\b/.test(line)) return [line, `i32.const ${edge()}`, `call ${GUARD}/hitEdge`]
  return [line]
}

/**
 * Instruments a module.
 * @param {string} text of the module as asc writes it: one instruction per line
 * @returns {{ text: string, edges: number, accesses: number, allocations: number }}
 */
export function instrument(text) {
  let edges = 0
  let accesses = 0
  const edge = () => edges++
  /** @type {string[]} */
  const out = []
  let allocations = 0
  const lines = text.split('\n').map((line) => {
    const replacement = ALLOCATOR.get(line.trim())
    if (replacement !== undefined) allocations++
    return replacement ?? line
  })
  for (let i = 0; i < lines.length; i++) {
    const header = lines[i] ?? ''
    out.push(header)
    const name = /^ \(func (\S+)/.exec(header)?.[1]
    if (name === undefined || EXEMPT.test(name)) continue
    while (/^ {2}\(local /.test(lines[i + 1] ?? '')) out.push(lines[++i] ?? '')
    const types = new Set()
    /** @type {string[]} */
    const body = [`  i32.const ${edge()}`, `  call ${GUARD}/hitEdge`]
    for (i++; (lines[i] ?? ' )') !== ' )'; i++) {
      const made = instruction(lines[i] ?? '', edge, types)
      if (made.some((line) => line.endsWith('checkAccess'))) accesses++
      body.push(...made)
    }
    for (const type of types) out.push(`  (local $value_${type} ${type})`)
    out.push(...body, ' )')
  }
  return { text: out.join('\n'), edges, accesses, allocations }
}

/**
 * Builds the checked module, with function names.
 * @param {string} text of the module without checks
 * @returns {Uint8Array<ArrayBuffer>}
 * @throws Error if the text has an unexpected form, so that checks would be missing
 */
export function checkedModule(text) {
  const { text: instrumented, edges, accesses, allocations } = instrument(text)
  const wanted = text.split('\n').filter((line) => /\.(load|store)/.test(line)).length
  if (allocations < 20) throw new Error(`only ${allocations} calls of the allocator are redirected`)
  const limit = Number(/global \$assembly\/memory\/guard\/EDGE_BYTES i32 \(i32\.const (\d+)\)/.exec(text)?.[1] ?? 0)
  if (edges > limit)
    throw new Error(`${edges} edges, but ${limit} counters: raise EDGE_BYTES in assembly/memory/guard.ts`)
  if (accesses < 0.8 * wanted) throw new Error(`only ${accesses} of ${wanted} accesses to memory are checked`)
  const module = binaryen.parseText(instrumented)
  const inlineSize = binaryen.getAlwaysInlineMaxSize()
  try {
    module.setFeatures(binaryen.Features.All)
    binaryen.setDebugInfo(true)
    binaryen.setOptimizeLevel(3)
    // the parts of `checkAccess`, which runs before every access
    binaryen.setAlwaysInlineMaxSize(INLINE_SIZE)
    module.optimize()
    if (!module.validate()) throw new Error('the checked module is not valid')
    return new Uint8Array(module.emitBinary())
  } finally {
    module.dispose()
    binaryen.setDebugInfo(false)
    binaryen.setAlwaysInlineMaxSize(inlineSize)
  }
}
