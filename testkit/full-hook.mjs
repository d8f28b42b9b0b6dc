// Loaded before the program (node --import, bun --preload): SIGUSR2 makes every send call on UDP sockets fail with ENOBUFS,
// as a full queue of the interface does, and the next one ends that. Nothing of the program is changed for it.

import dgram from 'node:dgram'
import { createRequire } from 'node:module'
import { constants } from 'node:os'

const { ENOBUFS } = constants.errno
const require = createRequire(import.meta.url)

let isFull = false
process.on('SIGUSR2', () => {
  isFull = !isFull
})

const failure = () => Object.assign(new Error('send ENOBUFS'), { code: 'ENOBUFS', errno: -ENOBUFS, syscall: 'send' })

/** @typedef {(...args: any[]) => any} Call */

/**
 * @param {any} object
 * @param {string} name
 * @param {(original: Call) => Call} wrap
 */
function replace(object, name, wrap) {
  const original = object[name]
  object[name] = wrap(original)
}

if ('bun' in process.versions) {
  const ffi = require('bun:ffi')
  replace(ffi, 'dlopen', (dlopen) => (name, symbols) => {
    const library = dlopen(name, symbols)
    const { sendmmsg, __errno_location: location } = library.symbols
    if (sendmmsg === undefined) return library
    const failing = (/** @type {any[]} */ ...args) => {
      if (!isFull) return sendmmsg(...args)
      new DataView(ffi.toArrayBuffer(location(), 0, 4)).setInt32(0, ENOBUFS, true)
      return -1
    }
    return { ...library, symbols: { ...library.symbols, sendmmsg: failing } }
  })
  replace(Reflect.get(globalThis, 'Bun'), 'udpSocket', (udpSocket) => async (options) => {
    const socket = await udpSocket(options)
    for (const name of ['send', 'sendMany']) {
      replace(socket, name, (send) => (...args) => {
        if (isFull) throw failure()
        return send.apply(socket, args)
      })
    }
    return socket
  })
} else {
  const koffi = require('koffi')
  replace(koffi, 'load', (load) => (...names) => {
    const library = load(...names)
    return {
      func(/** @type {any[]} */ ...signature) {
        const call = library.func(...signature)
        if (!String(signature[0]).includes('sendmmsg')) return call
        return (/** @type {any[]} */ ...args) => {
          if (!isFull) return call(...args)
          koffi.errno(ENOBUFS)
          return -1
        }
      },
    }
  })
  replace(dgram.Socket.prototype, 'send', (send) => {
    return function (/** @type {any[]} */ ...args) {
      const done = args.at(-1)
      if (isFull && typeof done === 'function') process.nextTick(done, failure())
      // @ts-expect-error: the socket
      else Reflect.apply(send, this, args)
    }
  })
}
