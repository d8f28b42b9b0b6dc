/** Traps on demand: an engine whose export throws as a broken one does, and is of no use afterwards. */
import type { Core, CoreExports } from '../../host/engine/core.ts'

// (module (func (export "a") unreachable) (func (export "b") call 1))
const BROKEN = [
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 3, 2, 0, 0, 7, 9, 2, 1, 0x61, 0, 0, 1, 0x62, 0, 1],
  ...[0x0a, 0x0a, 2, 3, 0, 0, 0x0b, 4, 0, 0x10, 1, 0x0b],
]
const { exports: broken } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(BROKEN)), {})

/** How an engine can break: by an instruction that traps, or by calls without end. */
export type Fault = 'unreachable' | 'overflow'

/** Breaks as WebAssembly does. */
export function trapNow(fault: Fault = 'unreachable'): never {
  const call = broken[fault === 'unreachable' ? 'a' : 'b']
  if (typeof call === 'function') call()
  throw new Error('that was to trap')
}

export type Call = Exclude<keyof CoreExports, 'memory'>

export interface Trap {
  /** It happened. */
  readonly sprung: boolean
  /** What was called on the broken engine afterwards. */
  readonly later: readonly string[]
}

const isCall = (name: string): name is Call => name !== 'memory'

/**
 * Makes an engine trap at the next call of one of its exports. Getters of constant addresses (`*_ptr`, `*_slots`) do
 * no harm afterwards and are not noted.
 * @param when whether this call is the one; by default the first is
 */
export function trapAt(core: Core, name: Call, when: () => boolean = () => true, fault?: Fault): Trap {
  const trap = { sprung: false, later: [] as string[] }
  const original = core.calls
  const wrapped: Record<string, unknown> = { ...original }
  for (const call of Object.keys(original).filter(isCall)) {
    wrapped[call] = (...args: number[]): number => {
      if (trap.sprung && !/_(ptr|slots|capacity)$/.test(call)) trap.later.push(call)
      else if (call === name && !trap.sprung && when()) trap.sprung = true
      if (trap.sprung && !/_(ptr|slots|capacity)$/.test(call)) trapNow(fault)
      return (original[call] as (...args: number[]) => number)(...args)
    }
  }
  Object.defineProperty(core, 'calls', { value: { ...wrapped, memory: original.memory } })
  return trap
}

/**
 * Every engine made until `restore` is called is handed to `onCore` by its exports, which may return others in their
 * place.
 */
export function wrapEngines(wrap: (exports: CoreExports) => CoreExports): { restore(): void } {
  const { Instance } = WebAssembly
  const isEngine = (exports: object): exports is CoreExports => 'abi_version' in exports
  WebAssembly.Instance = class extends Instance {
    constructor(module: WebAssembly.Module, imports?: WebAssembly.Imports) {
      super(module, imports)
      const { exports } = this
      if (isEngine(exports)) Object.defineProperty(this, 'exports', { value: wrap(exports) })
    }
  }
  return {
    restore() {
      WebAssembly.Instance = Instance
    },
  }
}
