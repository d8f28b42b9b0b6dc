/** Traps on demand: an engine export throws as in a real trap, and the engine is unusable afterwards. */
import type { Core, CoreExports } from '../../host/engine/core.ts'

// (module (func (export "a") unreachable) (func (export "b") call 1))
const BROKEN = [
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 3, 2, 0, 0, 7, 9, 2, 1, 0x61, 0, 0, 1, 0x62, 0, 1],
  ...[0x0a, 0x0a, 2, 3, 0, 0, 0x0b, 4, 0, 0x10, 1, 0x0b],
]
const { exports: broken } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(BROKEN)), {})

/** How an engine breaks: by a trapping instruction, or by infinite recursion. */
export type Fault = 'unreachable' | 'overflow'

/** Throws the error of a real WebAssembly trap. */
export function trapNow(fault: Fault = 'unreachable'): never {
  const call = broken[fault === 'unreachable' ? 'a' : 'b']
  if (typeof call === 'function') call()
  throw new Error('that was to trap')
}

export type Call = Exclude<keyof CoreExports, 'memory'>

export interface Trap {
  /** Whether the trap happened. */
  readonly sprung: boolean
  /** Names of the exports called on the broken engine afterwards. */
  readonly later: readonly string[]
}

const isCall = (name: string): name is Call => name !== 'memory'

/**
 * Makes an engine trap at the next call of one of its exports. Later calls of getters of constant addresses (`*_ptr`,
 * `*_slots`) work and are not recorded.
 * @param when returns whether this call traps; by default the first one does
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

/** Passes the exports of every engine created until `restore` to `wrap` and uses the exports that it returns. */
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
