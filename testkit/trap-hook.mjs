// Preloaded into an unmodified program (node --import, bun --preload): after SIGUSR2 the engine traps at its next
// drain, by a call of a function in another module that executes `unreachable`.

// (module (func (export "a") unreachable))
const TRAP = [
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 0x61, 0, 0, 0x0a, 5, 1, 3, 0, 0, 0x0b,
]

const { Instance, Module } = WebAssembly
const trap = new Instance(new Module(new Uint8Array(TRAP)), {}).exports.a

let wanted = 0
process.on('SIGUSR2', () => wanted++)

WebAssembly.Instance = class extends Instance {
  /**
   * @param {WebAssembly.Module} module
   * @param {WebAssembly.Imports} [imports]
   */
  constructor(module, imports) {
    super(module, imports)
    const { exports } = this
    if (!('abi_version' in exports)) return
    const poll = exports.poll_events
    const poll_events = () => {
      if (wanted > 0 && typeof trap === 'function') {
        wanted--
        trap()
      }
      return typeof poll === 'function' ? poll() : 0
    }
    Object.defineProperty(this, 'exports', { value: { ...exports, poll_events } })
  }
}
